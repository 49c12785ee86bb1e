//! The rules once more, as one would read them aloud: plain loops over what is written, names compared as text. Slow,
//! and with nothing in common with the compiled sets, so that the two can be held against each other.

use adit_proto::names::ServiceName;

use super::{Subject, Who};
use crate::model::{Model, Role, Semantic, ServicePolicy, Token, Verb};
use crate::snapshot::Local;

/// What is in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference<'a> {
    pub(super) model: &'a Model,
    pub(super) local: &'a Local,
}

/// Names are the same without case and without a dot at the end.
fn same(a: &str, b: &str) -> bool {
    a.trim_end_matches('.').eq_ignore_ascii_case(b.trim_end_matches('.'))
}

impl<'a> Reference<'a> {
    /// May they reach it?
    pub(super) fn may_reach(self, subject: &Subject, service: &ServiceName) -> bool {
        let is_public = subject.who == Who::Public;
        if is_public && !self.allows_address(subject) {
            return false;
        }
        match self.service_of(service) {
            Some(named) => self.has_policy(Verb::Dial, &subject.who, &named),
            // Whoever offers a host or a port that no route claims was let in to offer it to everybody.
            None => is_public && matches!(service, ServiceName::Host(_) | ServiceName::Tcp(_)),
        }
    }

    /// As what may they offer it, if they may?
    pub(super) fn may_offer(self, who: &Who, offered: &ServiceName) -> Option<String> {
        let token = self.token(who).filter(|token| !token.disabled);
        if let Some(named) = self.service_of(offered) {
            let shown = self.model.services.values().find(|it| same(it.name.as_str(), &named))?.name.as_str();
            let mut is_allowed = self.has_policy(Verb::Bind, who, &named);
            if let Some(limits) = token.map(|token| &token.limits) {
                let has_none = limits.hosts.is_none() && limits.ports.is_none() && limits.services.is_none();
                let listed = limits.services.clone().unwrap_or_default();
                is_allowed |= has_none || listed.iter().any(|it| same(it.as_str(), &named));
            }
            return is_allowed.then(|| format!("@{shown}"));
        }
        let limits = &token?.limits;
        let has_none = limits.hosts.is_none() && limits.ports.is_none() && limits.services.is_none();
        let is_allowed = match offered {
            ServiceName::Host(pattern) => {
                has_none
                    || limits
                        .hosts
                        .iter()
                        .flatten()
                        .any(|it| is_within(&pattern.to_string(), &it.to_string()))
            }
            ServiceName::Tcp(port) => {
                has_none || limits.ports.iter().flatten().any(|it| it.0.start() <= port && port <= it.0.end())
            }
            ServiceName::Named(_) | ServiceName::Dial(_) => false,
        };
        is_allowed.then(|| offered.to_string())
    }

    /// Rules about addresses: with none, everybody; with some, those on the list.
    fn allows_address(self, subject: &Subject) -> bool {
        let nets = &self.local.rules.allow;
        match subject.address {
            Some(address) => nets.is_empty() || nets.iter().any(|net| net.contains(&address)),
            None => nets.is_empty(),
        }
    }

    /// The service that a name, a host pattern or a port stands for: a route that has exactly this. The first by name,
    /// where several have.
    fn service_of(self, service: &ServiceName) -> Option<String> {
        for route in self.model.routes.values() {
            let leads = match service {
                ServiceName::Host(pattern) => {
                    route.hosts.iter().any(|it| same(&it.to_string(), &pattern.to_string()))
                }
                ServiceName::Tcp(port) => route.ports.contains(port),
                ServiceName::Named(_) | ServiceName::Dial(_) => false,
            };
            if leads {
                return Some(route.service.as_str().to_owned());
            }
        }
        match service {
            ServiceName::Named(name) => Some(name.as_str().to_owned()),
            _ => None,
        }
    }

    /// Which pattern does a host take, and where does that lead? The host itself before everything, then the longest
    /// pattern that it is within; the first route by name, where several have it.
    pub(super) fn route_for(self, host: &str) -> Option<(String, String)> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let mut best: Option<(usize, (String, String))> = None;
        for route in self.model.routes.values() {
            for pattern in &route.hosts {
                let text = pattern.to_string();
                let length = if same(&text, &host) {
                    usize::MAX
                } else if text.starts_with('*') && is_within(&host, &text.to_ascii_lowercase()) {
                    text.len()
                } else {
                    continue;
                };
                if best.as_ref().is_none_or(|(longest, _)| length > *longest) {
                    best = Some((length, (text, route.service.to_string())));
                }
            }
        }
        best.map(|(_, found)| found)
    }

    /// Is there a policy of which both sides match?
    fn has_policy(self, verb: Verb, who: &Who, service: &str) -> bool {
        for policy in self.model.policies.values() {
            if policy.verb == verb && self.is_for_service(policy, service) && self.is_for(policy, who) {
                return true;
            }
        }
        false
    }

    fn is_for_service(self, policy: &ServicePolicy, name: &str) -> bool {
        let Some(service) = self.model.services.values().find(|it| same(it.name.as_str(), name)) else {
            return false;
        };
        for role in &policy.service_roles {
            match role {
                Role::All => return true,
                Role::Entity(entity) if same(entity.as_str(), name) => return true,
                Role::Entity(_) | Role::Attribute(_) => {}
            }
        }
        let has: Vec<&str> = service.attributes.iter().map(|it| it.as_str()).collect();
        by_attributes(policy.semantic, &policy.service_roles, &has)
    }

    fn is_for(self, policy: &ServicePolicy, who: &Who) -> bool {
        let (name, attributes) = match who {
            Who::Public => ("public", Vec::new()),
            Who::Identity(name) => {
                match self.model.identities.values().find(|it| same(it.name.as_str(), name.as_str())) {
                    Some(identity) if !identity.disabled => (name.as_str(), identity.attributes.clone()),
                    _ => return false,
                }
            }
            Who::Token(name) => match self.token(who) {
                Some(token) if !token.disabled => (name.as_str(), token.attributes.clone()),
                _ => return false,
            },
        };
        // Where an identity and a token share a name, it means the identity; `public` always means the public.
        let is_an_identity = self.model.identities.values().any(|it| same(it.name.as_str(), name));
        let is_meant = match who {
            Who::Public => true,
            Who::Identity(_) => !same(name, "public"),
            Who::Token(_) => !same(name, "public") && !is_an_identity,
        };
        for role in &policy.identity_roles {
            match role {
                Role::All if *who != Who::Public => return true,
                Role::Entity(entity) if is_meant && same(entity.as_str(), name) => return true,
                Role::All | Role::Entity(_) | Role::Attribute(_) => {}
            }
        }
        let has: Vec<&str> = attributes.iter().map(|it| it.as_str()).collect();
        by_attributes(policy.semantic, &policy.identity_roles, &has)
    }

    /// A token of the file takes the place of a stored one of its name.
    fn token(self, who: &Who) -> Option<&'a Token> {
        let Who::Token(name) = who else { return None };
        let of_file = self.local.tokens.iter().map(|it| &it.token);
        of_file
            .chain(self.model.tokens.values().map(|it| &**it))
            .find(|it| same(it.name.as_str(), name.as_str()))
    }
}

/// AnyOf: one of the attributes. AllOf: each of them, and there is at least one.
fn by_attributes(semantic: Semantic, roles: &[Role], has: &[&str]) -> bool {
    let (mut wanted, mut found) = (0, 0);
    for role in roles {
        if let Role::Attribute(attribute) = role {
            wanted += 1;
            if has.iter().any(|it| same(it, attribute.as_str())) {
                found += 1;
            }
        }
    }
    match semantic {
        Semantic::AnyOf => found > 0,
        Semantic::AllOf => wanted > 0 && found == wanted,
    }
}

/// Is every host of a pattern one of the limit's? Read off the text: `*.a.example` is within `*.example` and `*`.
fn is_within(pattern: &str, limit: &str) -> bool {
    match limit.strip_prefix('*') {
        Some("") => true,
        Some(end) => pattern.trim_start_matches('*').ends_with(end),
        None => pattern == limit,
    }
}
