//! Whether resources fit each other: what is referred to exists, and what is claimed is claimed once.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto::name::Name;

use super::error::ChangeError;
use crate::model::{Kind, Model, PUBLIC, Resource, Role, Route, Service, ServicePolicy};

/// Resources of all kinds at most.
pub(super) const MAX_RESOURCES: usize = 200_000;
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

/// Checks what a batch leaves behind. `local` are the names of the configuration file's tokens.
///
/// # Errors
/// The first rule that is broken, with who breaks it.
pub(super) fn together(model: &Model, touched: &Touched, local: &BTreeSet<Name>) -> Result<(), ChangeError> {
    if model.count() > MAX_RESOURCES {
        return Err(ChangeError::client(
            "full",
            409,
            format!("there would be more than {MAX_RESOURCES} resources"),
            "delete what is not needed any more",
        ));
    }
    for (kind, name) in &touched.deleted {
        if model.get(*kind, name).is_none() {
            unreferred(model, *kind, name)?;
        }
    }
    let mut routes = false;
    for (kind, name) in &touched.written {
        match model.get(*kind, name) {
            Some(Resource::Identity(_) | Resource::Token(_)) => one_owner(model, local, *kind, name)?,
            Some(Resource::Service(service)) => configs(model, &service)?,
            Some(Resource::Config(_)) => {
                for service in model.services.values().filter(|service| service.configs.contains(name)) {
                    configs(model, service)?;
                }
            }
            Some(Resource::ServicePolicy(policy)) => roles(model, local, &policy)?,
            Some(Resource::Route(route)) => {
                routes = true;
                target(model, &route)?;
            }
            None => {}
        }
    }
    if routes { claims(model) } else { Ok(()) }
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

/// Nothing refers to it any more.
fn unreferred(model: &Model, kind: Kind, name: &Name) -> Result<(), ChangeError> {
    let referrers = referrers(model, kind, name);
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

/// Who refers to a resource.
fn referrers(model: &Model, kind: Kind, name: &Name) -> Vec<(Kind, Name)> {
    let names = |roles: &[Role]| entities(roles).any(|entity| entity == name);
    match kind {
        // Another one may have the name by now.
        Kind::Identity | Kind::Token
            if model.identities.contains_key(name) || model.tokens.contains_key(name) =>
        {
            Vec::new()
        }
        Kind::Identity | Kind::Token => policies(model, |policy| names(&policy.identity_roles)).collect(),
        Kind::Service => {
            let routes = model.routes.values().filter(|route| route.service == *name);
            let routes = routes.map(|route| (Kind::Route, route.name.clone()));
            policies(model, |policy| names(&policy.service_roles)).chain(routes).collect()
        }
        Kind::Config => {
            let services = model.services.values().filter(|service| service.configs.contains(name));
            services.map(|service| (Kind::Service, service.name.clone())).collect()
        }
        Kind::ServicePolicy | Kind::Route => Vec::new(),
    }
}

fn policies(model: &Model, which: impl Fn(&ServicePolicy) -> bool) -> impl Iterator<Item = (Kind, Name)> {
    let found = model.policies.values().filter(move |policy| which(policy));
    found.map(|policy| (Kind::ServicePolicy, policy.name.clone()))
}

/// The policies that name it, without the name; `None` for one that would be left with nobody or nothing.
pub(super) fn without(model: &Model, kind: Kind, name: &Name) -> Vec<(Name, Option<ServicePolicy>)> {
    let is_it = |role: &Role| matches!(role, Role::Entity(entity) if entity == name);
    let mut edited = Vec::new();
    for policy in model.policies.values() {
        let mut new = policy.clone();
        match kind {
            Kind::Service => new.service_roles.retain(|role| !is_it(role)),
            Kind::Identity | Kind::Token => new.identity_roles.retain(|role| !is_it(role)),
            Kind::Config | Kind::ServicePolicy | Kind::Route => {}
        }
        if new != *policy {
            let is_left = !new.service_roles.is_empty() && !new.identity_roles.is_empty();
            edited.push((policy.name.clone(), is_left.then_some(new)));
        }
    }
    edited
}
