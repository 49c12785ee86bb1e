//! Resources into sets: who may do what to each service is worked out once, so that a decision only looks it up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use adit_proto::name::Name;
use adit_proto::names::HostPattern;

use super::reach::reachable;
use super::{Generation, Local, Member, Routes, Secrets, Snapshot, Source, TokenEntry};
use crate::model::{ConfigType, InterceptV1, Model, Route, SecretText, Token};
use crate::policy::Who;

impl Snapshot {
    /// Works out who may do what.
    ///
    /// It takes any model. Of what could be meant in two ways, the reading that gives less is taken: a role that names
    /// nothing selects nothing; a host in two routes goes to the first by name; a route whose service does not exist
    /// still claims its hosts.
    #[must_use]
    pub fn compile(generation: Generation, model: &Model, local: &Local) -> Self {
        let tokens = tokens(model, local);
        let members = members(model, &tokens);
        let mut places =
            (HashMap::with_capacity(model.identities.len()), HashMap::with_capacity(tokens.len()));
        for (index, member) in members.iter().enumerate() {
            match &member.who {
                Who::Public => {}
                Who::Identity(name) => drop(places.0.insert(name.clone(), index)),
                Who::Token(name) => drop(places.1.insert(name.clone(), index)),
            }
        }
        let mut snapshot = Self {
            generation,
            rules: local.rules.clone(),
            identities: places.0,
            tokens: places.1,
            members,
            services: HashMap::new(),
            policies: model.policies.values().map(Arc::clone).collect(),
            routes: routes(&model.routes),
            secrets: secrets(model, local, &tokens),
            intercepts: intercepts(model),
        };
        let services: Vec<_> = model.services.values().map(Arc::clone).collect();
        snapshot.services =
            reachable(&snapshot.members, &services, &snapshot.policies, |name| snapshot.named(name));
        snapshot
    }
}

/// The public, the identities and the tokens.
fn members(model: &Model, tokens: &[Arc<Token>]) -> Vec<Member> {
    let identities = model.identities.values().map(|it| Member {
        who: Who::Identity(it.name.clone()),
        is_admin: it.admin,
        reads_metrics: it.metrics,
        is_disabled: it.disabled,
        source: Source::Identity(Arc::clone(it), model.credentials.get(&it.name).map(Arc::clone)),
    });
    let tokens = tokens.iter().map(|it| Member {
        who: Who::Token(it.name.clone()),
        is_admin: it.admin,
        reads_metrics: it.metrics,
        is_disabled: it.disabled,
        source: Source::Token(Arc::clone(it)),
    });
    std::iter::once(Member::PUBLIC).chain(identities).chain(tokens).collect()
}

/// The tokens, each name once: the file's first.
fn tokens(model: &Model, local: &Local) -> Vec<Arc<Token>> {
    let of_file = local.tokens.iter().map(|it| Arc::new(it.token.clone()));
    let mut known = HashSet::new();
    of_file.chain(model.tokens.values().map(Arc::clone)).filter(|it| known.insert(it.name.clone())).collect()
}

/// The services that have an intercept config that can be read.
fn intercepts(model: &Model) -> Vec<(Name, InterceptV1)> {
    let mut intercepts = Vec::new();
    for service in model.services.values() {
        let configs = service.configs.iter().filter_map(|name| model.configs.get(name));
        let own = configs.filter(|config| config.config_type == ConfigType::InterceptV1);
        let read = own.filter_map(|config| InterceptV1::read(&config.data).ok());
        intercepts.extend(read.map(|config| (service.name.clone(), config)));
    }
    intercepts
}

/// The secrets of those that are not disabled, by token: those of the file, or else the stored ones.
fn secrets(model: &Model, local: &Local, tokens: &[Arc<Token>]) -> Secrets {
    let mut of_file: HashMap<&Name, Vec<&SecretText>> = HashMap::new();
    for it in &local.tokens {
        of_file.entry(&it.token.name).or_default().push(&it.secret);
    }
    let mut secrets = Secrets::default();
    for token in tokens.iter().filter(|token| !token.disabled) {
        let entry = |secret: &SecretText, not_after| TokenEntry {
            name: token.name.clone(),
            secret: secret.clone(),
            not_after,
            admin: token.admin,
        };
        let first = secrets.all.len();
        match of_file.get(&token.name) {
            Some(own) => secrets.all.extend(own.iter().map(|secret| entry(secret, None))),
            None => {
                let stored = model.secrets.get(&token.name).into_iter().flat_map(|held| held.iter());
                secrets.all.extend(stored.map(|it| entry(&it.secret, it.not_after)));
            }
        }
        secrets.of.insert(token.name.clone(), first..secrets.all.len());
    }
    secrets
}

fn routes(all: &BTreeMap<Name, Arc<Route>>) -> Routes {
    let mut routes = Routes::default();
    for route in all.values() {
        for pattern in &route.hosts {
            let entry = || (pattern.clone(), route.service.clone());
            match pattern {
                HostPattern::Exact(host) => {
                    routes.exact.entry(host.as_str().into()).or_insert_with(entry);
                }
                HostPattern::Suffix(domain) => {
                    routes.suffix.entry(domain.as_str().into()).or_insert_with(entry);
                }
                HostPattern::Any => {
                    routes.any.get_or_insert_with(entry);
                }
            }
        }
        for port in &route.ports {
            routes.ports.entry(*port).or_insert_with(|| route.service.clone());
        }
    }
    routes
}
