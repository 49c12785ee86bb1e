//! Whether resources fit each other: what is referred to exists, and what is claimed is claimed once.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use adit_proto::name::Name;

use super::OwnPorts;
use super::error::ChangeError;
use super::kept::Key;
use super::view::View;
use crate::model::{Kind, Model, PUBLIC, Resource, Role, Route, Service, ServicePolicy};
use crate::store::Write;

/// Resources of all kinds at most.
pub(super) const MAX_RESOURCES: usize = 200_000;
/// Bytes that all resources take in the store at most. In memory they take a few times as much.
pub(super) const MAX_BYTES: usize = 128 << 20;
/// Elements of one list of a resource at most.
const MAX_LIST: usize = 1000;
/// Bytes of a config's data at most.
const MAX_DATA: usize = 64 * 1024;
/// Referrers that are named in a message.
const NAMED: usize = 5;

/// What one batch does, by what it concerns.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) written: BTreeSet<(Kind, Name)>,
    pub(super) deleted: BTreeSet<(Kind, Name)>,
}

/// What the configuration says, which resources have to fit.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The names of the configuration file's tokens.
    pub(super) tokens: BTreeSet<Name>,
    /// The gateway's own ports, with what each is for.
    pub(super) ports: OwnPorts,
}

/// Checks a resource for itself.
///
/// # Errors
/// What is wrong with it.
pub(super) fn alone(resource: &Resource) -> Result<(), ChangeError> {
    let (kind, name) = (resource.kind(), resource.name());
    resource.check().and_then(|()| bounds(resource)).map_err(|why| {
        ChangeError::invalid(format!("{kind} `{name}`: {why}"), "correct it and send it again")
    })
}

fn bounds(resource: &Resource) -> Result<(), String> {
    let list = |what: &str, length: usize| {
        if length > MAX_LIST {
            Err(format!("{what} has {length} elements; {MAX_LIST} are allowed"))
        } else {
            Ok(())
        }
    };
    match resource {
        Resource::Identity(it) => list("attributes", it.attributes.len()),
        Resource::Service(it) => {
            list("attributes", it.attributes.len()).and_then(|()| list("configs", it.configs.len()))
        }
        Resource::Config(it) if !it.data.is_object() => Err("data is a JSON object".to_owned()),
        Resource::Config(it) if it.data.to_string().len() > MAX_DATA => {
            Err(format!("data is longer than {MAX_DATA} bytes"))
        }
        Resource::Config(_) => Ok(()),
        Resource::ServicePolicy(it) => list("service_roles", it.service_roles.len())
            .and_then(|()| list("identity_roles", it.identity_roles.len())),
        Resource::Route(it) => list("hosts", it.hosts.len()).and_then(|()| list("ports", it.ports.len())),
        Resource::Token(it) => {
            let lists = [
                ("limits.hosts", it.limits.hosts.as_ref().map_or(0, Vec::len)),
                ("limits.ports", it.limits.ports.as_ref().map_or(0, Vec::len)),
                ("limits.services", it.limits.services.as_ref().map_or(0, Vec::len)),
                ("attributes", it.attributes.len()),
            ];
            lists.into_iter().try_for_each(|(what, length)| list(what, length))
        }
    }
}

/// Checks what a batch leaves behind.
///
/// # Errors
/// The first rule that is broken, with who breaks it.
pub(super) fn together(model: &Model, touched: &Touched, given: &Given) -> Result<(), ChangeError> {
    if model.count() > MAX_RESOURCES {
        return Err(ChangeError::client(
            "full",
            409,
            format!("there would be more than {MAX_RESOURCES} resources"),
            "delete what is not needed any more",
        ));
    }
    let referrers = OnceCell::new();
    let referrers = || referrers.get_or_init(|| Referrers::of(model));
    for (kind, name) in &touched.deleted {
        if is_gone(model, *kind, name) {
            referrers().refuse(*kind, name)?;
        }
    }
    let (mut routes, local) = (false, &given.tokens);
    for (kind, name) in &touched.written {
        match model.get(*kind, name) {
            Some(Resource::Identity(_) | Resource::Token(_)) => one_owner(model, local, *kind, name)?,
            Some(Resource::Service(service)) => configs(model, &service)?,
            Some(Resource::Config(_)) => {
                let users = referrers().to(Kind::Config, name);
                for service in users.iter().filter_map(|(_, service)| model.services.get(*service)) {
                    configs(model, service)?;
                }
            }
            Some(Resource::ServicePolicy(policy)) => roles(model, local, &policy)?,
            Some(Resource::Route(route)) => {
                routes = true;
                target(model, &route)?;
                own_ports(&route, &given.ports)?;
            }
            None => {}
        }
    }
    if routes { claims(model) } else { Ok(()) }
}

/// Checks what is left behind for its size. What gets smaller is let through.
///
/// # Errors
/// It would be too much.
pub(super) fn size(view: &View, writes: &[Write], most: usize) -> Result<(), ChangeError> {
    let mut bytes = view.bytes;
    for write in writes {
        let Key::Resource(kind, name) = Key::of(write.key()) else { continue };
        if let Write::Put { value, .. } = write {
            bytes += value.len();
        }
        let old = name.parse().ok().and_then(|name| view.metas.get(&(kind, name)));
        bytes -= old.map_or(0, |old| old.bytes);
    }
    if bytes <= most || bytes <= view.bytes {
        return Ok(());
    }
    Err(ChangeError::client(
        "full",
        409,
        format!("all resources together would take {bytes} bytes; {most} are the most"),
        "delete what is not needed any more; where a policy names many, give them an attribute instead",
    ))
}

impl Model {
    /// How many resources there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let Self { identities, configs, services, policies, routes, tokens, credentials: _, secrets: _ } =
            self;
        identities.len() + configs.len() + services.len() + policies.len() + routes.len() + tokens.len()
    }
}

/// A name is an identity's, a token's, or one's of the configuration file.
fn one_owner(model: &Model, local: &BTreeSet<Name>, kind: Kind, name: &Name) -> Result<(), ChangeError> {
    let owner = if model.identities.contains_key(name) && model.tokens.contains_key(name) {
        if kind == Kind::Identity { "a token" } else { "an identity" }
    } else if local.contains(name) {
        "a token of the gateway's configuration file"
    } else {
        return Ok(());
    };
    Err(ChangeError::client(
        "name_taken",
        409,
        format!("`{name}` is the name of {owner} already, and they share one set of names"),
        "choose another name",
    ))
}

fn configs(model: &Model, service: &Service) -> Result<(), ChangeError> {
    let mut types = BTreeMap::new();
    for name in &service.configs {
        let config = model
            .configs
            .get(name)
            .ok_or_else(|| missing(Kind::Service, &service.name, Kind::Config, name))?;
        if let Some(other) = types.insert(config.config_type, name) {
            let why = format!(
                "service `{}` would have two configs of type {}: `{other}` and `{name}`",
                service.name, config.config_type
            );
            return Err(ChangeError::invalid(why, "leave one of them out"));
        }
    }
    Ok(())
}

fn target(model: &Model, route: &Route) -> Result<(), ChangeError> {
    if model.services.contains_key(&route.service) {
        Ok(())
    } else {
        Err(missing(Kind::Route, &route.name, Kind::Service, &route.service))
    }
}

/// A route leads from no port where the gateway itself listens: nobody would ever get to its service.
fn own_ports(route: &Route, own: &OwnPorts) -> Result<(), ChangeError> {
    match route.ports.iter().find_map(|port| own.get_key_value(port)) {
        None => Ok(()),
        Some((port, purpose)) => Err(ChangeError::client(
            "claimed",
            409,
            format!(
                "route `{}` would lead from port {port}, which is the gateway's own ({purpose})",
                route.name
            ),
            "choose another port, or have the gateway listen elsewhere",
        )),
    }
}

fn roles(model: &Model, local: &BTreeSet<Name>, policy: &ServicePolicy) -> Result<(), ChangeError> {
    for name in entities(&policy.service_roles) {
        if !model.services.contains_key(name) {
            return Err(missing(Kind::ServicePolicy, &policy.name, Kind::Service, name));
        }
    }
    for name in entities(&policy.identity_roles) {
        let is_known = name == PUBLIC
            || model.identities.contains_key(name)
            || model.tokens.contains_key(name)
            || local.contains(name);
        if !is_known {
            return Err(missing(Kind::ServicePolicy, &policy.name, Kind::Identity, name));
        }
    }
    Ok(())
}

fn entities(roles: &[Role]) -> impl Iterator<Item = &Name> {
    roles.iter().filter_map(|role| if let Role::Entity(name) = role { Some(name) } else { None })
}

/// Every host and port is in one route.
fn claims(model: &Model) -> Result<(), ChangeError> {
    let mut hosts: BTreeMap<String, &Name> = BTreeMap::new();
    let mut ports: BTreeMap<u16, &Name> = BTreeMap::new();
    let twice = |what: String, one: &Name, other: &Name| {
        let message = if one == other {
            format!("route `{one}` names {what} twice")
        } else {
            format!("{what} would be in two routes: `{one}` and `{other}`")
        };
        ChangeError::client("claimed", 409, message, "take it out of one of them")
    };
    for route in model.routes.values() {
        for host in &route.hosts {
            if let Some(other) = hosts.insert(host.to_string(), &route.name) {
                return Err(twice(format!("host {host}"), other, &route.name));
            }
        }
        for port in &route.ports {
            if let Some(other) = ports.insert(*port, &route.name) {
                return Err(twice(format!("port {port}"), other, &route.name));
            }
        }
    }
    Ok(())
}

fn missing(kind: Kind, name: &Name, of: Kind, what: &Name) -> ChangeError {
    ChangeError::client(
        "missing_reference",
        422,
        format!("{kind} `{name}` refers to the {of} `{what}`, which does not exist"),
        format!("create the {of} first, or in the same batch"),
    )
}

/// Who refers to what, by kind and folded name; identities and tokens share their names.
#[derive(Debug)]
struct Referrers<'a>(HashMap<(Kind, &'a str), Vec<(Kind, &'a Name)>>);

impl<'a> Referrers<'a> {
    fn of(model: &'a Model) -> Self {
        let mut found = Self(HashMap::new());
        for service in model.services.values() {
            let from = (Kind::Service, &service.name);
            service.configs.iter().for_each(|config| found.note((Kind::Config, config), from));
        }
        for policy in model.policies.values() {
            let from = (Kind::ServicePolicy, &policy.name);
            entities(&policy.service_roles).for_each(|name| found.note((Kind::Service, name), from));
            entities(&policy.identity_roles).for_each(|name| found.note((Kind::Identity, name), from));
        }
        for route in model.routes.values() {
            found.note((Kind::Service, &route.service), (Kind::Route, &route.name));
        }
        found
    }

    fn note(&mut self, (kind, name): (Kind, &'a Name), from: (Kind, &'a Name)) {
        let list = self.0.entry((kind, name.folded())).or_default();
        if list.last() != Some(&from) {
            list.push(from);
        }
    }

    fn to<'b>(&'b self, kind: Kind, name: &'b Name) -> &'b [(Kind, &'b Name)] {
        let kind = if kind == Kind::Token { Kind::Identity } else { kind };
        self.0.get(&(kind, name.folded())).map_or(&[], |list| &list[..])
    }

    /// Says no if anything refers to what was deleted.
    fn refuse(&self, kind: Kind, name: &Name) -> Result<(), ChangeError> {
        let referrers = self.to(kind, name);
        if referrers.is_empty() {
            return Ok(());
        }
        let more = referrers.len().saturating_sub(NAMED);
        let mut named: Vec<String> =
            referrers.iter().take(NAMED).map(|(kind, name)| format!("{kind} `{name}`")).collect();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        let by_force = match kind {
            Kind::Identity | Kind::Token | Kind::Service => {
                "change or delete these first; with force, policies that name it lose the name in the same transaction"
            }
            Kind::Config | Kind::ServicePolicy | Kind::Route => "change or delete these first",
        };
        Err(ChangeError::client(
            "in_use",
            409,
            format!("the {kind} `{name}` is referred to by {}", named.join(", ")),
            by_force,
        ))
    }
}

/// Whether nothing that roles mean has this name any more.
fn is_gone(model: &Model, kind: Kind, name: &Name) -> bool {
    match kind {
        // Another one may have the name by now.
        Kind::Identity | Kind::Token => {
            !model.identities.contains_key(name) && !model.tokens.contains_key(name)
        }
        Kind::Config => !model.configs.contains_key(name),
        Kind::Service => !model.services.contains_key(name),
        Kind::ServicePolicy => !model.policies.contains_key(name),
        Kind::Route => !model.routes.contains_key(name),
    }
}

/// The policies that name what is deleted, without the names; `None` for one that would be left with nobody or nothing.
pub(super) fn without(model: &Model, deleted: &BTreeSet<(Kind, Name)>) -> Vec<(Name, Option<ServicePolicy>)> {
    let gone = |kinds: &[Kind]| -> HashSet<&Name> {
        let deleted =
            deleted.iter().filter(|(kind, name)| kinds.contains(kind) && is_gone(model, *kind, name));
        deleted.map(|(_, name)| name).collect()
    };
    let (services, identities) = (gone(&[Kind::Service]), gone(&[Kind::Identity, Kind::Token]));
    let mut edited = Vec::new();
    for policy in model.policies.values() {
        let names = |roles: &[Role], gone: &HashSet<&Name>| entities(roles).any(|name| gone.contains(name));
        if !names(&policy.service_roles, &services) && !names(&policy.identity_roles, &identities) {
            continue;
        }
        let mut new = ServicePolicy::clone(policy);
        let stays =
            |role: &Role, gone: &HashSet<&Name>| !matches!(role, Role::Entity(name) if gone.contains(name));
        new.service_roles.retain(|role| stays(role, &services));
        new.identity_roles.retain(|role| stays(role, &identities));
        let is_left = !new.service_roles.is_empty() && !new.identity_roles.is_empty();
        edited.push((policy.name.clone(), is_left.then_some(new)));
    }
    edited
}
