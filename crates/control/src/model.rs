//! The resources: what an operator writes down about who there is and what they may do.
//!
//! One document describes one resource; the admin interface, the store and the files of `adit apply` all hold the
//! same ones. Unknown fields are refused everywhere.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use adit_proto::name::{BadName, Name};
use adit_proto::names::HostPattern;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

pub use configs::{ConfigType, HostV1, InterceptV1};
pub use moment::{Timestamp, rfc3339};
pub use whole::{Credential, Model, SecretText, TokenSecret};

pub mod configs;
pub(crate) mod moment;
mod whole;

/// The identity that every client of a public listener has. It has no credential, and `#all` does not mean it: only a
/// policy that names `@public` reaches the public.
pub const PUBLIC: &str = "public";

/// Fields that items of the admin interface have beside the resource: documents need not have them, so what was read
/// can be written back.
pub const READ_ONLY: [&str; 13] = [
    "remarks",
    "id",
    "revision",
    "created_at",
    "updated_at",
    "enrolled",
    "online",
    "credentials",
    "secrets",
    "sessions",
    "dial_policies",
    "bind_policies",
    "endpoints",
];

/// Somebody: a person, a device or an agent, with a certificate of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its name.
    #[schema(value_type = NameText)]
    pub name: Name,
    /// What policies can select it by (`#attribute`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<NameText>)]
    pub attributes: Vec<Name>,
    /// Whether it may change resources.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin: bool,
    /// Whether it may read `/metrics`, and nothing else by this.
    #[serde(default, skip_serializing_if = "is_false")]
    pub metrics: bool,
    /// Whether it is kept out, with everything it has open.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
}

/// Something that can be reached, and offered by agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    #[schema(value_type = NameText)]
    pub name: Name,
    /// What policies can select it by (`#attribute`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<NameText>)]
    pub attributes: Vec<Name>,
    /// Names of its configs; at most one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<NameText>)]
    pub configs: Vec<Name>,
}

/// How a service is hosted or intercepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Its name.
    #[schema(value_type = NameText)]
    pub name: Name,
    /// What `data` holds.
    #[serde(rename = "type")]
    pub config_type: ConfigType,
    /// The settings, as the type demands.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// What a policy permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Verb {
    /// To reach a service.
    Dial,
    /// To offer one.
    Bind,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "Dial",
            Self::Bind => "Bind",
        })
    }
}

impl FromStr for Verb {
    type Err = String;

    /// In any case: `Dial`, `dial`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "dial" => Ok(Self::Dial),
            "bind" => Ok(Self::Bind),
            _ => Err(format!("`{text}` is not Dial or Bind")),
        }
    }
}

/// How the attributes of a policy combine. It says nothing about entities that are named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Semantic {
    /// One of the attributes is enough.
    #[default]
    AnyOf,
    /// All of the attributes are needed.
    AllOf,
}

impl fmt::Display for Semantic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AnyOf => "AnyOf",
            Self::AllOf => "AllOf",
        })
    }
}

impl FromStr for Semantic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "anyof" => Ok(Self::AnyOf),
            "allof" => Ok(Self::AllOf),
            _ => Err(format!("`{text}` is not AnyOf or AllOf")),
        }
    }
}

/// One way to select entities: `#attribute`, `@name` or `#all`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Everything.
    All,
    /// Whatever has this attribute.
    Attribute(Name),
    /// The one entity of this name.
    Entity(Name),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("#all"),
            Self::Attribute(name) => write!(f, "#{name}"),
            Self::Entity(name) => write!(f, "@{name}"),
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |error: BadName| format!("`{text}`: {error}");
        if text.eq_ignore_ascii_case("#all") {
            Ok(Self::All)
        } else if let Some(name) = text.strip_prefix('#') {
            name.parse().map(Self::Attribute).map_err(bad)
        } else if let Some(name) = text.strip_prefix('@') {
            name.parse().map(Self::Entity).map_err(bad)
        } else {
            Err(format!("`{text}` is no role: write #attribute, @name or #all"))
        }
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Role {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[#@][A-Za-z0-9_][A-Za-z0-9_.+@-]*$"))
            .description(Some("`#attribute`, `@name` or `#all`."))
            .into()
    }
}

impl ToSchema for Role {}

/// Who may reach or offer what. Nothing is reachable unless a policy says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicePolicy {
    /// Its name.
    #[schema(value_type = NameText)]
    pub name: Name,
    /// What it permits.
    #[serde(rename = "type")]
    pub verb: Verb,
    /// How attributes combine.
    #[serde(default)]
    pub semantic: Semantic,
    /// Which services.
    pub service_roles: Vec<Role>,
    /// Which identities.
    pub identity_roles: Vec<Role>,
}

/// Where the public reaches a service: hosts of the HTTP listeners, TCP ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name.
    #[schema(value_type = NameText)]
    pub name: Name,
    /// Hosts: `app.example.com`, `*.example.com` or `*`. Each in one route.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "texts")]
    #[schema(value_type = Vec<String>)]
    pub hosts: Vec<HostPattern>,
    /// TCP ports of the gateway. Each in one route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// The service it leads to.
    #[schema(value_type = NameText)]
    pub service: Name,
}

/// A shared secret with a name. Agents that prove it have the built-in identity of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its name, and that of its identity. No identity has the same.
    #[schema(value_type = NameText)]
    pub name: Name,
    /// What policies can select its identity by (`#attribute`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<NameText>)]
    pub attributes: Vec<Name>,
    /// What its agents may offer without a policy.
    #[serde(default, skip_serializing_if = "Limits::is_everything")]
    pub limits: Limits,
    /// Whether it may change resources.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin: bool,
    /// Whether it may read `/metrics`, and nothing else by this.
    #[serde(default, skip_serializing_if = "is_false")]
    pub metrics: bool,
    /// Whether it is kept out, with everything it has open.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
}

impl Token {
    /// That a right to read metrics alone is not given together with the right to everything.
    ///
    /// # Errors
    /// It is.
    pub fn check_metrics(&self) -> Result<(), String> {
        if self.metrics && self.limits.is_everything() {
            return Err(
                "metrics is for a token with limits: one without may offer everything, and reads /metrics \
                        anyway; an empty list of hosts draws the limit that allows nothing"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// What a token's agents may offer without a policy that says so. A list that is absent says nothing; with no list at
/// all they may offer everything, as long as nobody draws a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Hosts, each with everything that is below it where it is a pattern.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_texts")]
    #[schema(value_type = Option<Vec<String>>)]
    pub hosts: Option<Vec<HostPattern>>,
    /// Ports and ranges: `5432`, `8000-8010`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Ports>>,
    /// Services by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<NameText>>)]
    pub services: Option<Vec<Name>>,
}

impl Limits {
    /// Whether no limit is drawn.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.hosts.is_none() && self.ports.is_none() && self.services.is_none()
    }
}

/// One port or a range of them, first and last included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no port or range of ports: write 5432 or 8000-8010");
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = port(first)?..=port(last)?;
        if range.is_empty() { Err(bad()) } else { Ok(Self(range)) }
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.start() == self.0.end() {
            serializer.serialize_u16(*self.0.start())
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Ports {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(65535));
        let range =
            ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]{1,5}(-[0-9]{1,5})?$"));
        OneOfBuilder::new()
            .item(number)
            .item(range)
            .description(Some("A port, or a range such as `8000-8010`."))
            .into()
    }
}

impl ToSchema for Ports {}

/// What kinds of resources there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`Identity`].
    Identity,
    /// [`ServiceConfig`].
    Config,
    /// [`Service`].
    Service,
    /// [`ServicePolicy`].
    ServicePolicy,
    /// [`Route`].
    Route,
    /// [`Token`].
    Token,
}

impl Kind {
    /// All of them, in an order in which they can be created: nothing refers to what comes after it.
    pub const ALL: [Self; 6] =
        [Self::Identity, Self::Token, Self::Config, Self::Service, Self::ServicePolicy, Self::Route];

    /// The word for one: `service-policy`.
    #[must_use]
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Config => "config",
            Self::Service => "service",
            Self::ServicePolicy => "service-policy",
            Self::Route => "route",
            Self::Token => "token",
        }
    }

    /// The word for several, which is their path in the admin interface and their prefix in the store.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Identity => "identities",
            Self::Config => "configs",
            Self::Service => "services",
            Self::ServicePolicy => "service-policies",
            Self::Route => "routes",
            Self::Token => "tokens",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}

impl FromStr for Kind {
    type Err = String;

    /// One or several: `service`, `services`.
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| text == kind.singular() || text == kind.plural());
        known.ok_or_else(|| {
            let all = Self::ALL.map(Self::singular).join(", ");
            format!("`{text}` is no kind of resource; there are {all}")
        })
    }
}

/// One document: a resource with its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Resource {
    /// An identity.
    Identity(Identity),
    /// A config of a service.
    Config(ServiceConfig),
    /// A service.
    Service(Service),
    /// A policy.
    ServicePolicy(ServicePolicy),
    /// A route.
    Route(Route),
    /// A token, without its secret.
    Token(Token),
}

impl Resource {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Identity(_) => Kind::Identity,
            Self::Config(_) => Kind::Config,
            Self::Service(_) => Kind::Service,
            Self::ServicePolicy(_) => Kind::ServicePolicy,
            Self::Route(_) => Kind::Route,
            Self::Token(_) => Kind::Token,
        }
    }

    /// Its name.
    #[must_use]
    #[expect(
        clippy::same_name_method,
        reason = "the other one is the name of a type in the interface's document"
    )]
    pub const fn name(&self) -> &Name {
        match self {
            Self::Identity(it) => &it.name,
            Self::Config(it) => &it.name,
            Self::Service(it) => &it.name,
            Self::ServicePolicy(it) => &it.name,
            Self::Route(it) => &it.name,
            Self::Token(it) => &it.name,
        }
    }

    /// Checks what can be checked without looking at other resources.
    ///
    /// # Errors
    /// A sentence that says which field is wrong and what belongs there.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Identity(Identity { name, .. }) | Self::Token(Token { name, .. }) if name == PUBLIC => {
                Err(format!(
                    "`{PUBLIC}` is the built-in identity of public listeners' clients; choose another name"
                ))
            }
            Self::Token(token) => token.check_metrics(),
            Self::Identity(_) | Self::Service(_) => Ok(()),
            Self::Config(config) => config.config_type.check(&config.data),
            Self::ServicePolicy(policy) => match (&policy.service_roles[..], &policy.identity_roles[..]) {
                ([], _) => Err("service_roles is empty: the policy would be for no service".to_owned()),
                (_, []) => Err("identity_roles is empty: the policy would be for nobody".to_owned()),
                _ => Ok(()),
            },
            Self::Route(route) if route.hosts.is_empty() && route.ports.is_empty() => {
                Err("a route needs at least one of hosts and ports".to_owned())
            }
            Self::Route(route) if route.ports.contains(&0) => Err("0 is no port".to_owned()),
            Self::Route(_) => Ok(()),
        }
    }
}

/// How a [`Name`] is described in the interface's document.
#[derive(Debug)]
pub struct NameText;

impl utoipa::PartialSchema for NameText {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .min_length(Some(1))
            .max_length(Some(adit_proto::limits::MAX_NAME))
            .pattern(Some("^[A-Za-z0-9_][A-Za-z0-9_.+@-]*$"))
            .description(Some("A name; compared without case or trailing dot."))
            .into()
    }
}

impl ToSchema for NameText {}

const fn is_false(value: &bool) -> bool {
    !*value
}

/// Lists of what is written as text.
mod texts {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let parse = |text: String| {
            text.parse().map_err(|error| serde::de::Error::custom(format_args!("`{text}`: {error}")))
        };
        Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
    }
}

/// The same where there may be none.
mod optional_texts {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(
        list: &Option<Vec<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match list {
            Some(list) => super::texts::serialize(list, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        super::texts::deserialize(deserializer).map(Some)
    }
}
