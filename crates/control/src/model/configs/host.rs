//! `host.v1`: how whoever hosts a service reaches what stands behind it.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::values::{as_text, optional_port};
use super::{Address, ConfigType, HostPort, PortRange, Protocol, Span, problem, read};

/// How whoever hosts a service reaches what stands behind it. Each of protocol, address and port is either given, or
/// taken from the dial and held against a list of what is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct HostV1 {
    /// The protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Whether it is taken from the dial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_protocol: Option<bool>,
    /// Which may be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_protocols: Option<Vec<Protocol>>,
    /// Host name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether it is taken from the dial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_address: Option<bool>,
    /// Which may be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_addresses: Option<Vec<Address>>,
    /// What a dial's addresses are turned into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_address_translations: Option<Vec<AddressTranslation>>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "optional_port")]
    pub port: Option<u16>,
    /// Whether it is taken from the dial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_port: Option<bool>,
    /// Which may be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_port_ranges: Option<Vec<PortRange>>,
    /// Which addresses may be connected from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_source_addresses: Option<Vec<Address>>,
    /// How it is offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_options: Option<ListenOptions>,
    /// Connections that show whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_checks: Option<Vec<PortCheck>>,
    /// Requests that show whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_checks: Option<Vec<HttpCheck>>,
    /// A proxy on the way to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// Turns addresses of one network into those of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AddressTranslation {
    /// The network that is dialed.
    pub from: std::net::IpAddr,
    /// The one that is connected to.
    pub to: std::net::IpAddr,
    /// How many bits are the network's.
    pub prefix_length: u8,
}

/// How a service is offered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ListenOptions {
    /// Whether a dial can ask for this identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_using_edge_identity: Option<bool>,
    /// The name that a dial can ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// How long connecting may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span>,
    /// The same in whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_seconds: Option<u32>,
    /// Endpoints that cost less are preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u16>,
    /// Connections to the gateway; 3 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Which endpoints come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precedence: Option<Precedence>,
}

/// Which endpoints come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precedence {
    /// When no required one is there.
    Default,
    /// Before all others.
    Required,
    /// Last.
    Failed,
}

/// A connection that shows whether the service is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PortCheck {
    /// Where to.
    pub address: HostPort,
    /// How often.
    pub interval: Span,
    /// How long one may take.
    pub timeout: Span,
    /// What follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<CheckAction>,
}

/// A request that shows whether the service is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpCheck {
    /// Where to.
    pub url: String,
    /// Its method; `GET` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The status that means well; 200 where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_status: Option<u16>,
    /// What must be in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_in_body: Option<String>,
    /// How often.
    pub interval: Span,
    /// How long one may take.
    pub timeout: Span,
    /// What follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<CheckAction>,
}

/// What follows from a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CheckAction {
    /// When.
    pub trigger: Trigger,
    /// After how many of them in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_events: Option<u32>,
    /// After they went on for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
    /// What.
    pub action: Action,
}

/// When something follows from a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// It failed.
    Fail,
    /// It passed.
    Pass,
    /// It did what it did not the time before.
    Change,
}

/// What follows from a check, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `mark unhealthy`.
    MarkUnhealthy,
    /// `mark healthy`.
    MarkHealthy,
    /// `increase cost 100`.
    IncreaseCost(u16),
    /// `decrease cost 100`.
    DecreaseCost(u16),
    /// `send event`.
    SendEvent,
}

as_text!(Action);

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MarkUnhealthy => f.write_str("mark unhealthy"),
            Self::MarkHealthy => f.write_str("mark healthy"),
            Self::IncreaseCost(by) => write!(f, "increase cost {by}"),
            Self::DecreaseCost(by) => write!(f, "decrease cost {by}"),
            Self::SendEvent => f.write_str("send event"),
        }
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let action = match words[..] {
            ["mark", "unhealthy"] => Some(Self::MarkUnhealthy),
            ["mark", "healthy"] => Some(Self::MarkHealthy),
            ["increase", "cost", by] => by.parse().ok().map(Self::IncreaseCost),
            ["decrease", "cost", by] => by.parse().ok().map(Self::DecreaseCost),
            ["send", "event"] => Some(Self::SendEvent),
            _ => None,
        };
        action.ok_or_else(|| {
            format!(
                "`{text}` is no action; there are: mark unhealthy, mark healthy, increase cost N, decrease cost N, \
                 send event (N: 0 to 65535)"
            )
        })
    }
}

/// A proxy on the way to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Proxy {
    /// What it speaks.
    #[serde(rename = "type")]
    pub proxy_type: ProxyType,
    /// Where it is.
    pub address: HostPort,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyType {
    /// HTTP `CONNECT`.
    Http,
}

/// Where, and what.
type Wrong = (String, String);

impl HostV1 {
    /// Reads and checks.
    ///
    /// # Errors
    /// A sentence that names the property.
    pub fn read(data: &Value) -> Result<Self, String> {
        let config: Self = read(ConfigType::HostV1, data)?;
        config.check().map_err(|(path, what)| problem(ConfigType::HostV1, &path, &what))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Wrong> {
        let forwarded = |forward: Option<bool>| forward == Some(true);
        one_of(
            ["protocol", "forwardProtocol", "allowedProtocols"],
            [self.protocol.is_some(), forwarded(self.forward_protocol)],
            self.allowed_protocols.as_ref().map(Vec::len),
        )?;
        one_of(
            ["address", "forwardAddress", "allowedAddresses"],
            [self.address.is_some(), forwarded(self.forward_address)],
            self.allowed_addresses.as_ref().map(Vec::len),
        )?;
        one_of(
            ["port", "forwardPort", "allowedPortRanges"],
            [self.port.is_some(), forwarded(self.forward_port)],
            self.allowed_port_ranges.as_ref().map(Vec::len),
        )?;
        if let Some(address) = &self.address {
            check_host(address).map_err(|what| ("address".to_owned(), what))?;
        }
        PortRange::check(self.allowed_port_ranges.as_deref().unwrap_or_default())
            .map_err(|(at, what)| (format!("allowedPortRanges[{at}]"), what))?;
        self.check_translations()?;
        self.listen_options.as_ref().map_or(Ok(()), ListenOptions::check)?;
        self.check_checks()
    }

    fn check_translations(&self) -> Result<(), Wrong> {
        let translations = self.forward_address_translations.as_deref().unwrap_or_default();
        if !translations.is_empty() && self.forward_address != Some(true) {
            let what = "addresses are translated only where they are forwarded; add forwardAddress: true";
            return Err(("forwardAddressTranslations".to_owned(), what.to_owned()));
        }
        for (at, AddressTranslation { from, to, prefix_length }) in translations.iter().enumerate() {
            let path = || format!("forwardAddressTranslations[{at}]");
            if from.is_ipv4() != to.is_ipv4() {
                return Err((path(), format!("{from} and {to} are not of the same kind")));
            }
            let bits = if from.is_ipv4() { 32 } else { 128 };
            if *prefix_length > bits {
                let what = format!("{prefix_length} is too much; {from} has {bits} bits");
                return Err((path() + ".prefixLength", what));
            }
        }
        Ok(())
    }

    fn check_checks(&self) -> Result<(), Wrong> {
        let ports = self.port_checks.iter().flatten().enumerate();
        let ports = ports.map(|(at, it)| (format!("portChecks[{at}]"), it.interval, &it.actions));
        let requests = self.http_checks.iter().flatten().enumerate();
        let requests = requests.map(|(at, it)| (format!("httpChecks[{at}]"), it.interval, &it.actions));
        for (path, interval, actions) in ports.chain(requests) {
            if interval.0.is_zero() {
                return Err((path + ".interval", "it must be more than 0s".to_owned()));
            }
            let never = actions.iter().position(|it| it.consecutive_events == Some(0));
            if let Some(action) = never {
                let path = format!("{path}.actions[{action}].consecutiveEvents");
                return Err((path, "it must be 1 or more".to_owned()));
            }
        }
        for (at, HttpCheck { url, expect_status, .. }) in self.http_checks.iter().flatten().enumerate() {
            let is_web = ["http://", "https://"].iter().any(|scheme| {
                url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
                    && url.len() > scheme.len()
            });
            if !is_web {
                let what = format!("`{url}` is no address of the web; it begins with http:// or https://");
                return Err((format!("httpChecks[{at}].url"), what));
            }
            if let Some(status) = expect_status.filter(|status| !(100..600).contains(status)) {
                let what = format!("{status} is no status; they are 100 to 599");
                return Err((format!("httpChecks[{at}].expectStatus"), what));
            }
        }
        Ok(())
    }
}

impl ListenOptions {
    fn check(&self) -> Result<(), Wrong> {
        let path = |name: &str| format!("listenOptions.{name}");
        if self.connect_timeout.is_some() && self.connect_timeout_seconds.is_some() {
            let what = "connectTimeout says the same; keep one of them";
            return Err((path("connectTimeoutSeconds"), what.to_owned()));
        }
        if self.max_connections == Some(0) {
            return Err((path("maxConnections"), "it must be 1 or more".to_owned()));
        }
        Ok(())
    }
}

/// Either the first property is given, or the second is true and the third lists what is allowed.
fn one_of(
    [given, forward, allowed]: [&str; 3],
    [is_given, is_forwarded]: [bool; 2],
    listed: Option<usize>,
) -> Result<(), Wrong> {
    let wrong = |path: &str, what: String| Err((path.to_owned(), what));
    match (is_given, is_forwarded, listed) {
        (true, true, _) => {
            wrong(forward, format!("{given} is given too; keep {given}, or {forward} with {allowed}"))
        }
        (false, false, _) => {
            wrong(given, format!("it is missing; give {given}, or {forward}: true with {allowed}"))
        }
        (true, false, Some(_)) => wrong(
            allowed,
            format!("it is of use only with {forward}: true, and {given} is given; leave it out"),
        ),
        (false, true, None) => {
            wrong(allowed, format!("it is missing; {forward} needs the list of what is allowed"))
        }
        (false, true, Some(0)) => wrong(allowed, "the list is empty; nothing would be allowed".to_owned()),
        (true, false, None) | (false, true, Some(_)) => Ok(()),
    }
}

/// One host: a name or an address, without a port.
fn check_host(text: &str) -> Result<(), String> {
    match text.parse() {
        Ok(Address::Host(_) | Address::Ip(_)) => Ok(()),
        Ok(Address::Wild(_) | Address::Net(_)) => {
            Err(format!("`{text}` is more than one host; write one host name or address"))
        }
        Err(_) => Err(format!("`{text}` is no host name or address; the port has a property of its own")),
    }
}
