//! The compiled, immutable view that every decision reads exactly once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use adit_proto::name::Name;
use adit_proto::names::{HostPattern, Hostname, ServiceName};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::{
    Credential, Identity, InterceptV1, Limits, Model, SecretText, Service, ServicePolicy, Timestamp, Token,
    Verb,
};
use crate::near::near;
use crate::policy::Who;
use sets::Permitted;

use bits::Bits;
pub use rules::{Local, LocalToken, Rules};

mod bits;
mod compile;
mod reach;
mod rules;
mod sets;

/// Counts published snapshots; a higher one is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// That of a gateway's first snapshot.
    pub const FIRST: Self = Self(1);

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// One consistent view.
#[derive(Debug)]
pub struct Snapshot {
    generation: Generation,
    rules: Rules,
    /// Everybody that policies can select; the public is the first.
    members: Vec<Member>,
    identities: HashMap<Name, usize>,
    tokens: HashMap<Name, usize>,
    services: HashMap<Name, Reachable>,
    /// In the order of their names.
    policies: Vec<Arc<ServicePolicy>>,
    routes: Routes,
    secrets: Secrets,
    /// What services take for themselves where a dialing side is, by service.
    intercepts: Vec<(Name, InterceptV1)>,
}

/// Where the public is in [`Snapshot::members`].
pub(crate) const PUBLIC_INDEX: usize = 0;

/// Somebody that policies can select.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) who: Who,
    pub(crate) is_admin: bool,
    pub(crate) reads_metrics: bool,
    pub(crate) is_disabled: bool,
    source: Source,
}

/// The resource that somebody is. It is shared with the model.
#[derive(Debug)]
enum Source {
    Public,
    /// With the certificates that it holds.
    Identity(Arc<Identity>, Option<Arc<Vec<Credential>>>),
    Token(Arc<Token>),
}

impl Member {
    const PUBLIC: Self = Self {
        who: Who::Public,
        is_admin: false,
        reads_metrics: false,
        is_disabled: false,
        source: Source::Public,
    };

    pub(crate) fn attributes(&self) -> &[Name] {
        match &self.source {
            Source::Public => &[],
            Source::Identity(it, _) => &it.attributes,
            Source::Token(it) => &it.attributes,
        }
    }

    /// What it may offer without a policy; `None` for identities, which may offer nothing without one.
    pub(crate) fn limits(&self) -> Option<&Limits> {
        match &self.source {
            Source::Token(it) => Some(&it.limits),
            Source::Public | Source::Identity(..) => None,
        }
    }

    fn credentials(&self) -> &[Credential] {
        match &self.source {
            Source::Identity(_, Some(held)) => held,
            Source::Public | Source::Identity(_, None) | Source::Token(_) => &[],
        }
    }
}

/// A service, and who may reach and offer it.
#[derive(Debug)]
pub(crate) struct Reachable {
    pub(crate) service: Arc<Service>,
    dial: Permitted,
    bind: Permitted,
}

impl Reachable {
    pub(crate) const fn permitted(&self, verb: Verb) -> &Permitted {
        match verb {
            Verb::Dial => &self.dial,
            Verb::Bind => &self.bind,
        }
    }
}

/// Which hosts and ports lead to which service.
#[derive(Debug, Default)]
struct Routes {
    exact: HashMap<Box<str>, (HostPattern, Name)>,
    /// By the domain that everything is below.
    suffix: HashMap<Box<str>, (HostPattern, Name)>,
    any: Option<(HostPattern, Name)>,
    ports: BTreeMap<u16, Name>,
}

/// The secrets of tokens.
#[derive(Debug, Default)]
struct Secrets {
    /// Those of a token stand together.
    all: Vec<TokenEntry>,
    of: HashMap<Name, Range<usize>>,
}

/// One secret that opens a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// The token's name.
    pub name: Name,
    /// The secret.
    pub secret: SecretText,
    /// When it ends; `None`: with its token.
    pub not_after: Option<Timestamp>,
    /// Whether it may change resources.
    pub admin: bool,
}

impl Snapshot {
    /// Which one this is.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The rules in it.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The route that a host takes, of all that match the most specific one: the host itself, then the longest domain,
    /// then `*`.
    #[must_use]
    pub fn route_for_host(&self, host: &Hostname) -> Option<(&HostPattern, &Name)> {
        let Routes { exact, suffix, any, .. } = &self.routes;
        let below = || {
            let mut rest = host.as_str();
            std::iter::from_fn(move || {
                rest = rest.split_once('.')?.1;
                Some(rest)
            })
            .find_map(|domain| suffix.get(domain))
        };
        let route = exact.get(host.as_str()).or_else(below).or(any.as_ref())?;
        Some((&route.0, &route.1))
    }

    /// The hosts that routes claim, with their services.
    pub fn routed_hosts(&self) -> impl Iterator<Item = (&HostPattern, &Name)> {
        let Routes { exact, suffix, any, .. } = &self.routes;
        exact.values().chain(suffix.values()).chain(any).map(|(hosts, service)| (hosts, service))
    }

    /// The service that a public TCP port leads to.
    #[must_use]
    pub fn route_for_port(&self, port: u16) -> Option<&Name> {
        self.routes.ports.get(&port)
    }

    /// The public TCP ports that routes claim, in order.
    pub fn routed_ports(&self) -> impl Iterator<Item = (u16, &Name)> {
        self.routes.ports.iter().map(|(port, service)| (*port, service))
    }

    /// The policies it was compiled from.
    #[must_use]
    pub fn policies(&self) -> &[Arc<ServicePolicy>] {
        &self.policies
    }

    /// Whether there is a policy of this name.
    pub(crate) fn has_policy(&self, name: &Name) -> bool {
        self.policies.binary_search_by(|policy| policy.name.cmp(name)).is_ok()
    }

    /// The secrets of all tokens that are not disabled, of the configuration file and stored ones. Whether one has
    /// ended is for the caller to see.
    #[must_use]
    pub fn tokens(&self) -> &[TokenEntry] {
        &self.secrets.all
    }

    /// Those of one token.
    #[must_use]
    pub fn secrets_of(&self, token: &Name) -> &[TokenEntry] {
        let range = self.secrets.of.get(token).cloned().unwrap_or_default();
        self.secrets.all.get(range).unwrap_or_default()
    }

    /// Whose certificate this is: `None` unless it is listed for that identity and has not ended, and the identity is
    /// not disabled. The identity's name is folded.
    #[must_use]
    pub fn credential(&self, identity: &str, serial: &str, now: Timestamp) -> Option<&Name> {
        let member = self.members.get(*self.identities.get(identity)?).filter(|it| !it.is_disabled)?;
        let is_live = |it: &Credential| it.serial == serial && now < it.not_after;
        member.who.name().filter(|_| member.credentials().iter().any(is_live))
    }

    /// Whether somebody may change resources.
    #[must_use]
    pub fn is_admin(&self, who: &Who) -> bool {
        self.member(who).is_some_and(|it| it.is_admin && !it.is_disabled)
    }

    /// Whether somebody may see who is connected and what is offered: an administrator, or a token without limits, which
    /// may offer everything anyway.
    #[must_use]
    pub fn may_look_around(&self, who: &Who) -> bool {
        let has_no_limits = |it: &Member| it.limits().is_some_and(Limits::is_everything);
        self.member(who).is_some_and(|it| !it.is_disabled && (it.is_admin || has_no_limits(it)))
    }

    /// Whether somebody may read the metrics: who may look around, and who has the right to that alone.
    #[must_use]
    pub fn may_read_metrics(&self, who: &Who) -> bool {
        let has_right = |it: &Member| it.reads_metrics && !it.is_disabled;
        self.may_look_around(who) || self.member(who).is_some_and(has_right)
    }

    /// Whether somebody is there and not disabled.
    #[must_use]
    pub fn exists(&self, who: &Who) -> bool {
        self.member(who).is_some_and(|it| !it.is_disabled)
    }

    /// The service of the route that has exactly these hosts or this port; a service's own name is its own.
    #[must_use]
    pub fn claimed<'a>(&'a self, service: &'a ServiceName) -> Option<&'a Name> {
        match service {
            ServiceName::Named(name) => Some(name),
            ServiceName::Tcp(port) => self.route_for_port(*port),
            ServiceName::Host(pattern) => self.routes.claims(pattern),
            ServiceName::Dial(_) => None,
        }
    }

    pub(crate) fn member(&self, who: &Who) -> Option<&Member> {
        self.members.get(self.index(who)?)
    }

    pub(crate) fn index(&self, who: &Who) -> Option<usize> {
        match who {
            Who::Public => Some(PUBLIC_INDEX),
            Who::Identity(name) => self.identities.get(name).copied(),
            Who::Token(name) => self.tokens.get(name).copied(),
        }
    }

    /// Whom policies mean by a name: the public, an identity, or a token where no identity has the name.
    pub(crate) fn named(&self, name: &Name) -> Option<usize> {
        if *name == *crate::model::PUBLIC {
            return Some(PUBLIC_INDEX);
        }
        self.identities.get(name).or_else(|| self.tokens.get(name)).copied()
    }

    pub(crate) fn at(&self, index: usize) -> Option<&Member> {
        self.members.get(index)
    }

    /// The names of identities and tokens.
    pub(crate) fn member_names(&self) -> impl Iterator<Item = &Name> {
        self.members.iter().filter_map(|member| member.who.name())
    }

    /// The names of services.
    pub(crate) fn service_names(&self) -> impl Iterator<Item = &Name> {
        self.services.values().map(|it| &it.service.name)
    }

    /// Whether a route leads to a service.
    pub(crate) fn is_routed(&self, service: &Name) -> bool {
        let Routes { exact, suffix, any, ports } = &self.routes;
        let hosts = exact.values().chain(suffix.values()).chain(any).map(|(_, to)| to);
        hosts.chain(ports.values()).any(|to| to == service)
    }

    /// Who may offer a service, in order.
    pub(crate) fn binders(&self, service: &Name) -> Vec<&Who> {
        let Some(reachable) = self.service(service) else { return Vec::new() };
        let by_limits = |member: &Member| {
            !member.is_disabled && member.limits().is_some_and(|limits| limits.cover_service(service))
        };
        let may = |(index, member): &(usize, &Member)| reachable.bind.contains(*index) || by_limits(member);
        self.members.iter().enumerate().filter(may).map(|(_, member)| &member.who).collect()
    }

    /// The services that intercept a host's port, by name.
    pub(crate) fn intercepting(&self, host: &str, port: u16) -> Vec<Name> {
        let matching = self.intercepts.iter().filter(|(_, config)| config.matches(host, port));
        matching.map(|(service, _)| service.clone()).collect()
    }

    /// Services that intercept something like a host, with what they intercept; at most three.
    pub(crate) fn intercepts_near(&self, host: &str) -> Vec<(&Name, String)> {
        let mut known = Vec::new();
        for (service, config) in &self.intercepts {
            let ports: Vec<String> = config.port_ranges.iter().map(ToString::to_string).collect();
            for address in &config.addresses {
                known.push((address.to_string(), service, ports.join(",")));
            }
        }
        let names = near(host, known.iter().map(|(address, ..)| address.as_str()));
        let found = names.into_iter().filter_map(|name| known.iter().find(|(address, ..)| address == name));
        found.map(|(address, service, ports)| (*service, format!("{address}:{ports}"))).collect()
    }

    pub(crate) fn service(&self, name: &Name) -> Option<&Reachable> {
        self.services.get(name)
    }
}

impl Routes {
    fn claims(&self, pattern: &HostPattern) -> Option<&Name> {
        let route = match pattern {
            HostPattern::Exact(host) => self.exact.get(host.as_str()),
            HostPattern::Suffix(domain) => self.suffix.get(domain.as_str()),
            HostPattern::Any => self.any.as_ref(),
        };
        route.map(|(_, service)| service)
    }
}

/// Where snapshots are published and read. Reading takes no lock.
#[derive(Debug)]
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
    /// Held while one is made and published, so that a newer generation never holds older resources; says which
    /// generation was last.
    last: Mutex<Generation>,
    changes: watch::Sender<u64>,
}

impl Snapshots {
    /// Starts with these rules and no resources.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let local = Local { rules, tokens: Vec::new() };
        let first = Generation::FIRST;
        Self {
            current: ArcSwap::from_pointee(Snapshot::compile(first, &Model::default(), &local)),
            last: Mutex::new(first),
            changes: watch::Sender::new(first.number()),
        }
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Whether no newer snapshot was published than this. Cheap: for whoever asks again and again.
    #[must_use]
    pub fn is_current(&self, generation: Generation) -> bool {
        self.current.load().generation == generation
    }

    /// Compiles these resources and rules and makes them the newest snapshot.
    pub fn publish_all(&self, model: &Model, local: &Local) -> Generation {
        let mut last = self.last.lock();
        let generation = last.next();
        self.current.store(Arc::new(Snapshot::compile(generation, model, local)));
        *last = generation;
        // Under the lock too: whoever is told of a generation finds it or a newer one.
        self.changes.send_replace(generation.number());
        generation
    }

    /// Tells of each publication by its number. A receiver that is slow sees the newest only.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests;
