//! The one place that says yes.

use std::fmt;
use std::net::IpAddr;

use adit_proto::name::Name;
use adit_proto::names::{HostPattern, ServiceName};
use adit_proto::reason::Reason;

use crate::model::{Limits, Verb};
use crate::snapshot::{Generation, PUBLIC_INDEX, Snapshot};

pub use forwarding::{DialPermit, authorize_dial};

mod forwarding;
mod messages;
pub(crate) mod roles;

/// Somebody, as far as they have shown who they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// A client of a public listener.
    Public,
    /// Whoever holds this identity's certificate.
    Identity(Name),
    /// Whoever proved this token.
    Token(Name),
}

impl Who {
    /// The name; the public has none of its own.
    #[must_use]
    pub const fn name(&self) -> Option<&Name> {
        match self {
            Self::Public => None,
            Self::Identity(name) | Self::Token(name) => Some(name),
        }
    }
}

/// As people read it: `identity dev.client`, `token default`, `the public`.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("the public"),
            Self::Identity(name) => write!(f, "identity {name}"),
            Self::Token(name) => write!(f, "token {name}"),
        }
    }
}

/// Whom a decision is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Who they are.
    pub who: Who,
    /// The client's address, as far as it can be believed. `None` when nothing that was said about it can be; it then
    /// is on no list.
    pub address: Option<IpAddr>,
}

impl Subject {
    /// A client of a public listener.
    #[must_use]
    pub const fn public(address: Option<IpAddr>) -> Self {
        Self { who: Who::Public, address }
    }
}

/// A yes. Only [`authorize`] makes one, and nothing is forwarded without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    service: ServiceName,
    generation: Generation,
}

impl Permit {
    /// What may be reached.
    #[must_use]
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The rules it was given by.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

/// A yes to an offer. Only [`authorize_offer`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindPermit {
    served_as: ServiceName,
    generation: Generation,
}

impl BindPermit {
    /// What the offer is an endpoint of: the service of the route that claims the offered host or port, else what was
    /// offered.
    #[must_use]
    pub const fn served_as(&self) -> &ServiceName {
        &self.served_as
    }

    /// The rules it was given by.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

/// A no, with its reason. The sentence that goes with it is written only where it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// What was asked for, where there is more to say than the reason.
    asked: Option<Asked>,
}

/// What was asked for, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    verb: Verb,
    who: Who,
    service: ServiceName,
}

impl Denial {
    /// One with nothing to add to its reason.
    const fn plain(reason: Reason) -> Self {
        Self { reason, asked: None }
    }

    fn not_permitted(verb: Verb, who: &Who, service: &ServiceName) -> Self {
        let asked = Asked { verb, who: who.clone(), service: service.clone() };
        Self { reason: Reason::NotPermitted, asked: Some(asked) }
    }

    /// What exactly, and what would change it: for the log, and for an agent that was refused. It names policies'
    /// subjects and services, so it is not for the public. Ask with the snapshot that said no.
    #[must_use]
    pub fn message(&self, snapshot: &Snapshot) -> String {
        match &self.asked {
            None => self.reason.explanation().to_owned(),
            Some(Asked { verb: Verb::Dial, who, service }) => messages::dial(snapshot, who, service),
            Some(Asked { verb: Verb::Bind, who, service }) => messages::offer(snapshot, who, service),
        }
    }
}

/// May this subject reach this service?
///
/// The public also needs an address that the rules allow. It reaches what no route claims without a policy: whoever
/// offered that was permitted to, for everybody. Everything else needs a Dial policy.
///
/// # Errors
/// [`Denial`]: [`Reason::AddressDenied`] when the rules do not allow the public's address, or allow some and this one
/// is not known; [`Reason::NotPermitted`] when no policy does.
pub fn authorize(snapshot: &Snapshot, subject: &Subject, service: &ServiceName) -> Result<Permit, Denial> {
    let rules = snapshot.rules();
    let is_public = subject.who == Who::Public;
    if is_public && !subject.address.map_or(rules.allow.is_empty(), |address| rules.allows(address)) {
        return Err(Denial::plain(Reason::AddressDenied));
    }
    let is_permitted = match service {
        ServiceName::Dial(_) => return Err(Denial::plain(Reason::ForwardingDenied)),
        ServiceName::Host(_) | ServiceName::Tcp(_) if is_public && snapshot.claimed(service).is_none() => {
            true
        }
        _ => snapshot.claimed(service).is_some_and(|name| permits(snapshot, Verb::Dial, &subject.who, name)),
    };
    if is_permitted {
        Ok(Permit { service: service.clone(), generation: snapshot.generation() })
    } else {
        Err(Denial::not_permitted(Verb::Dial, &subject.who, service))
    }
}

/// May whoever this is offer this, and as what is it served?
///
/// A host or port that a route claims is offered as the route's service, and needs what that service needs.
///
/// # Errors
/// [`Denial`] with [`Reason::NotPermitted`].
pub fn authorize_offer(snapshot: &Snapshot, who: &Who, offered: &ServiceName) -> Result<BindPermit, Denial> {
    let generation = snapshot.generation();
    let limits = snapshot.member(who).filter(|it| !it.is_disabled).and_then(|it| it.limits());
    let served_as = match snapshot.claimed(offered) {
        Some(name) => snapshot.service(name).and_then(|it| {
            let within = limits.is_some_and(|limits| limits.cover_service(name));
            let is_permitted = within || permits(snapshot, Verb::Bind, who, name);
            is_permitted.then(|| ServiceName::Named(it.service.name.clone()))
        }),
        None => limits.filter(|limits| limits.cover(offered)).map(|_| offered.clone()),
    };
    served_as
        .map(|served_as| BindPermit { served_as, generation })
        .ok_or_else(|| Denial::not_permitted(Verb::Bind, who, offered))
}

/// Whether a policy permits it.
pub(crate) fn permits(snapshot: &Snapshot, verb: Verb, who: &Who, service: &Name) -> bool {
    let index = match who {
        Who::Public => Some(PUBLIC_INDEX),
        Who::Identity(_) | Who::Token(_) => snapshot.index(who),
    };
    let Some((index, service)) = index.zip(snapshot.service(service)) else { return false };
    service.permitted(verb).contains(index)
}

impl Limits {
    /// Whether a service may be offered by its name.
    pub(crate) fn cover_service(&self, name: &Name) -> bool {
        self.is_everything() || self.services.iter().flatten().any(|it| it == name)
    }

    /// Whether hosts or a port that no route claims may be offered.
    fn cover(&self, offered: &ServiceName) -> bool {
        match offered {
            ServiceName::Named(name) => self.cover_service(name),
            ServiceName::Host(_) | ServiceName::Tcp(_) if self.is_everything() => true,
            ServiceName::Host(hosts) => self.hosts.iter().flatten().any(|limit| covers(limit, hosts)),
            ServiceName::Tcp(port) => self.ports.iter().flatten().any(|limit| limit.0.contains(port)),
            ServiceName::Dial(_) => false,
        }
    }
}

/// Whether every host of the second pattern is one of the first.
fn covers(limit: &HostPattern, hosts: &HostPattern) -> bool {
    match (limit, hosts) {
        (HostPattern::Any, _) => true,
        (_, HostPattern::Exact(host)) => limit.matches(host),
        (HostPattern::Suffix(_), HostPattern::Suffix(domain)) => limit == hosts || limit.matches(domain),
        (HostPattern::Exact(_), HostPattern::Suffix(_)) | (_, HostPattern::Any) => false,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod semantics_tests;

#[cfg(test)]
mod offer_tests;

#[cfg(test)]
mod reference;

#[cfg(test)]
pub(crate) mod agreement_tests;
