//! Resources into sets: who may do what to each service is worked out once, so that a decision only looks it up.

use std::collections::{BTreeMap, HashMap};

use adit_proto::name::Name;
use adit_proto::names::HostPattern;

use super::{Bits, Generation, Local, Member, PUBLIC_INDEX, Reachable, Routes, Snapshot, TokenEntry};
use crate::model::{
    ConfigType, InterceptV1, Model, Role, Route, Semantic, Service, ServicePolicy, Token, Verb,
};
use crate::policy::Who;

impl Snapshot {
    /// Works out who may do what.
    ///
    /// It takes any model. Of what could be meant in two ways, the reading that gives less is taken: a role that names
    /// nothing selects nothing; a host in two routes goes to the first by name; a route whose service does not exist
    /// still claims its hosts.
    #[must_use]
    pub fn compile(generation: Generation, model: &Model, local: &Local) -> Self {
        let mut snapshot = Self {
            generation,
            rules: local.rules.clone(),
            members: members(model, local),
            identities: HashMap::new(),
            tokens: HashMap::new(),
            services: HashMap::new(),
            policies: model.policies.values().cloned().collect(),
            routes: routes(&model.routes),
            secrets: secrets(model, local),
            intercepts: intercepts(model),
            credentials: model.credentials.iter().map(|(name, held)| (name.clone(), held.clone())).collect(),
        };
        for (index, member) in snapshot.members.iter().enumerate() {
            match &member.who {
                Who::Public => {}
                Who::Identity(name) => drop(snapshot.identities.insert(name.clone(), index)),
                Who::Token(name) => drop(snapshot.tokens.insert(name.clone(), index)),
            }
        }
        snapshot.services = reachable(&snapshot, model);
        snapshot
    }
}

/// The public, the identities and the tokens.
fn members(model: &Model, local: &Local) -> Vec<Member> {
    let public = Member {
        who: Who::Public,
        attributes: Vec::new(),
        is_admin: false,
        is_disabled: false,
        limits: None,
    };
    let identities = model.identities.values().map(|it| Member {
        who: Who::Identity(it.name.clone()),
        attributes: it.attributes.clone(),
        is_admin: it.admin,
        is_disabled: it.disabled,
        limits: None,
    });
    let tokens = tokens(model, local).into_iter().map(|it| Member {
        who: Who::Token(it.name.clone()),
        attributes: it.attributes.clone(),
        is_admin: it.admin,
        is_disabled: it.disabled,
        limits: Some(it.limits.clone()),
    });
    std::iter::once(public).chain(identities).chain(tokens).collect()
}

/// The tokens, each name once: the file's first.
fn tokens<'a>(model: &'a Model, local: &'a Local) -> Vec<&'a Token> {
    let mut tokens: Vec<&Token> = Vec::with_capacity(local.tokens.len() + model.tokens.len());
    for it in &local.tokens {
        if !tokens.iter().any(|other| other.name == it.token.name) {
            tokens.push(&it.token);
        }
    }
    let of_file = tokens.len();
    for token in model.tokens.values() {
        let is_replaced = tokens.iter().take(of_file).any(|other| other.name == token.name);
        if !is_replaced {
            tokens.push(token);
        }
    }
    tokens
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

fn secrets(model: &Model, local: &Local) -> Vec<TokenEntry> {
    let mut entries = Vec::new();
    for token in tokens(model, local).into_iter().filter(|token| !token.disabled) {
        let entry = |secret, not_after| TokenEntry {
            name: token.name.clone(),
            secret,
            not_after,
            admin: token.admin,
        };
        let of_file = entries.len();
        let same = local.tokens.iter().filter(|it| it.token.name == token.name);
        entries.extend(same.map(|it| entry(it.secret.clone(), None)));
        if entries.len() == of_file {
            let stored = model.secrets.get(&token.name).into_iter().flatten();
            entries.extend(stored.map(|it| entry(it.secret.clone(), it.not_after)));
        }
    }
    entries
}

fn routes(all: &BTreeMap<Name, Route>) -> Routes {
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

/// Every service with the union of what its policies permit.
fn reachable(snapshot: &Snapshot, model: &Model) -> HashMap<Name, Reachable> {
    let services: Vec<&Service> = model.services.values().collect();
    let of_services = Index::new(services.len(), services.iter().map(|it| &it.attributes[..]));
    let of_members = Index::new(snapshot.members.len(), snapshot.members.iter().map(|it| &it.attributes[..]));
    let places: HashMap<&str, usize> =
        services.iter().enumerate().map(|(index, it)| (it.name.folded(), index)).collect();

    let mut everybody = Bits::none(snapshot.members.len());
    let mut enabled = Bits::none(snapshot.members.len());
    for (index, member) in snapshot.members.iter().enumerate() {
        if index != PUBLIC_INDEX {
            everybody.insert(index);
        }
        if !member.is_disabled {
            enabled.insert(index);
        }
    }
    let mut every_service = Bits::none(services.len());
    (0..services.len()).for_each(|index| every_service.insert(index));

    let nobody = || Bits::none(snapshot.members.len());
    let mut permitted: Vec<(Bits, Bits)> = services.iter().map(|_| (nobody(), nobody())).collect();
    for policy in model.policies.values() {
        let ServicePolicy { verb, semantic, service_roles, identity_roles, .. } = policy;
        let mut who = of_members.select(*semantic, identity_roles, &everybody, |name| snapshot.named(name));
        who.intersect(&enabled);
        let what = of_services
            .select(*semantic, service_roles, &every_service, |name| places.get(name.folded()).copied());
        for index in what.iter() {
            if let Some((dial, bind)) = permitted.get_mut(index) {
                match verb {
                    Verb::Dial => dial.unite(&who),
                    Verb::Bind => bind.unite(&who),
                }
            }
        }
    }
    services
        .into_iter()
        .zip(permitted)
        .map(|(service, (dial, bind))| {
            (service.name.clone(), Reachable { service: service.clone(), dial, bind })
        })
        .collect()
}

/// Which of some things have an attribute.
struct Index<'a> {
    length: usize,
    having: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Index<'a> {
    fn new(length: usize, attributes: impl Iterator<Item = &'a [Name]>) -> Self {
        let mut having: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, attributes) in attributes.enumerate() {
            for attribute in attributes {
                having.entry(attribute.folded()).or_default().push(index);
            }
        }
        Self { length, having }
    }

    fn with(&self, attribute: &Name) -> Bits {
        let mut bits = Bits::none(self.length);
        for index in self.having.get(attribute.folded()).into_iter().flatten() {
            bits.insert(*index);
        }
        bits
    }

    /// What roles select: by attributes as the semantic says, and whatever is named besides.
    fn select(
        &self,
        semantic: Semantic,
        roles: &[Role],
        all: &Bits,
        named: impl Fn(&Name) -> Option<usize>,
    ) -> Bits {
        let by_attributes = roles.iter().filter_map(|role| match role {
            Role::Attribute(attribute) => Some(self.with(attribute)),
            Role::All | Role::Entity(_) => None,
        });
        let mut selected = by_attributes
            .reduce(|mut selected, bits| {
                match semantic {
                    Semantic::AnyOf => selected.unite(&bits),
                    Semantic::AllOf => selected.intersect(&bits),
                }
                selected
            })
            .unwrap_or_else(|| Bits::none(self.length));
        for role in roles {
            match role {
                Role::All => selected.unite(all),
                Role::Entity(name) => named(name).into_iter().for_each(|index| selected.insert(index)),
                Role::Attribute(_) => {}
            }
        }
        selected
    }
}
