//! Resources in few words, for tests of who may do what.

use std::sync::Arc;

use adit_control::model::{
    Credential, Identity, Limits, Model, Role, Route, SecretText, Semantic, Service, ServicePolicy, Token,
    TokenSecret, Verb,
};
use adit_proto::name::Name;

/// Resources that grow word by word: `Rights::new().service("db").dial("@db", "@ops")`.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// What they come to.
    pub model: Model,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Rights {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A service.
    #[must_use]
    pub fn service(mut self, service: &str) -> Self {
        let service = Service { name: name(service), attributes: Vec::new(), configs: Vec::new() };
        self.model.services.insert(service.name.clone(), Arc::new(service));
        self
    }

    /// Without this service.
    #[must_use]
    pub fn without_service(mut self, service: &str) -> Self {
        self.model.services.remove(service);
        self
    }

    /// An identity.
    #[must_use]
    pub fn identity(mut self, identity: &str) -> Self {
        let name = name(identity);
        let identity =
            Identity { name, attributes: Vec::new(), admin: false, metrics: false, disabled: false };
        self.model.identities.insert(identity.name.clone(), Arc::new(identity));
        self
    }

    /// A certificate that an identity holds.
    #[must_use]
    pub fn holds(mut self, identity: &str, credential: Credential) -> Self {
        Arc::make_mut(self.model.credentials.entry(name(identity)).or_default()).push(credential);
        self
    }

    /// A token with one secret, whose agents may offer nothing without a policy.
    #[must_use]
    pub fn token(mut self, token: &str, secret: &str) -> Self {
        let limits = Limits { services: Some(Vec::new()), ..Limits::default() };
        let name = name(token);
        let token = Token {
            name: name.clone(),
            attributes: Vec::new(),
            limits,
            admin: false,
            metrics: false,
            disabled: false,
        };
        self.model.tokens.insert(name, Arc::new(token.clone()));
        let token = token.name.as_str().to_owned();
        self.secret(&token, secret, None)
    }

    /// One more secret of a token.
    #[must_use]
    pub fn secret(mut self, token: &str, secret: &str, not_after: Option<u64>) -> Self {
        let secret = SecretText::new(secret.to_owned());
        let id = self.model.secrets.get(token).map_or(0, |held| held.len()).to_string();
        let secret = TokenSecret { id, secret, issued_at: 0, not_after };
        Arc::make_mut(self.model.secrets.entry(name(token)).or_default()).push(secret);
        self
    }

    /// Keeps a token or identity out.
    #[must_use]
    pub fn disable(mut self, who: &str) -> Self {
        if let Some(token) = self.model.tokens.get_mut(who) {
            Arc::make_mut(token).disabled = true;
        }
        if let Some(identity) = self.model.identities.get_mut(who) {
            Arc::make_mut(identity).disabled = true;
        }
        self
    }

    fn policy(mut self, verb: Verb, service: &str, identity: &str) -> Self {
        let role = |text: &str| text.parse::<Role>().unwrap();
        let name = name(&format!("p{}", self.model.policies.len()));
        let (service_roles, identity_roles) = (vec![role(service)], vec![role(identity)]);
        let policy = ServicePolicy {
            name: name.clone(),
            verb,
            semantic: Semantic::AnyOf,
            service_roles,
            identity_roles,
        };
        self.model.policies.insert(name, Arc::new(policy));
        self
    }

    /// A policy to reach.
    #[must_use]
    pub fn dial(self, service: &str, identity: &str) -> Self {
        self.policy(Verb::Dial, service, identity)
    }

    /// A policy to offer.
    #[must_use]
    pub fn bind(self, service: &str, identity: &str) -> Self {
        self.policy(Verb::Bind, service, identity)
    }

    /// Without the policies of one kind.
    #[must_use]
    pub fn without(mut self, verb: Verb) -> Self {
        self.model.policies.retain(|_, policy| policy.verb != verb);
        self
    }

    /// A route from these hosts or ports.
    #[must_use]
    pub fn route(mut self, from: &[&str], service: &str) -> Self {
        let (ports, hosts): (Vec<&str>, Vec<&str>) =
            from.iter().partition(|text| text.parse::<u16>().is_ok());
        let route = Route {
            name: name(&format!("r{}", self.model.routes.len())),
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            service: name(service),
        };
        let _none_before = self.model.routes.insert(route.name.clone(), Arc::new(route));
        self
    }
}
