//! Where a client would connect to, and what it comes to there.

use std::fmt;

use adit_proto::name::Name;
use adit_proto::names::{HostPattern, ServiceName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{EndpointView, Explanation, Question, fix};
use crate::model::{PUBLIC, Verb};
use crate::near::near;
use crate::policy::authorize_offer;
use crate::snapshot::Snapshot;

/// A host and a port, and what the gateway's public listeners have for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What a public listener takes it for now; `None` when nothing answers there.
    pub door: Option<Door>,
    /// The ports of the gateway's own HTTP listeners.
    pub http_ports: Vec<u16>,
    /// The port that agents and operators connect to.
    pub control_port: Option<u16>,
    /// Why the port of its own, which a route leads from, is not served.
    pub unserved: Option<String>,
}

impl Place {
    /// A place as clients dial it, about which no listener has been asked.
    #[must_use]
    pub const fn new(host: String, port: u16) -> Self {
        Self { host, port, door: None, http_ports: Vec::new(), control_port: None, unserved: None }
    }

    /// The service of the route that leads from here.
    pub(super) const fn routed(&self) -> Option<&Name> {
        match &self.door {
            Some(Door::Route(_, service)) => Some(service),
            Some(Door::Offer(_)) | None => None,
        }
    }

    /// By which of its configs or routes a service is reached here.
    pub(super) fn via(&self, snapshot: &Snapshot, question: &Question, service: &Name) -> Option<Via> {
        let is_public = question.identity == *PUBLIC;
        if !is_public && snapshot.intercepting(&self.host, self.port).contains(service) {
            return Some(Via { way: Way::Intercept, claim: None });
        }
        match &self.door {
            Some(Door::Route(claim, to)) if to == service => Some(Via::new(Way::Route, claim)),
            _ => None,
        }
    }

    /// Whether this is where agents and operators connect, and no client of a service.
    pub(super) fn is_control(&self) -> bool {
        self.control_port == Some(self.port)
    }

    /// What there is to know about the listener behind a host or a port.
    fn listener_note(&self) -> Option<String> {
        if let Some(why) = &self.unserved {
            return Some(format!("nothing listens there: {why}"));
        }
        let by_host =
            matches!(&self.door, Some(Door::Route(by, _) | Door::Offer(by)) if by.tcp_port().is_none());
        if !by_host || self.http_ports.contains(&self.port) {
            return None;
        }
        let ports: Vec<String> = self.http_ports.iter().map(ToString::to_string).collect();
        Some(match &ports[..] {
            [] => "this gateway has no HTTP listener, so that no host leads anywhere".to_owned(),
            _ => format!(
                "the gateway itself listens for HTTP on port {}; something in front of it has to lead port {} there",
                ports.join(" and "),
                self.port
            ),
        })
    }

    /// What a client of the gateway's listeners should know, whatever the policies say.
    pub(super) fn notes(
        &self,
        snapshot: &Snapshot,
        question: &Question,
        service: Option<&Name>,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        if question.verb == Verb::Bind || self.door.is_none() {
            return notes;
        }
        let is_public = question.identity == *PUBLIC;
        let by_listener = service.is_none_or(|service| {
            self.via(snapshot, question, service).is_some_and(|via| via.way != Way::Intercept)
        });
        if !by_listener {
            return notes;
        }
        if !is_public {
            notes.push(match service {
                Some(service) => format!(
                    "who connects there without an agent is `public`, whoever it is (--identity public explains \
                     that); {} dials the service by its name: adit dial {service}",
                    question.identity
                ),
                None => "who connects there is `public`, whoever it is".to_owned(),
            });
        }
        // A service's own finding has said it of the public already.
        if service.is_none() && !snapshot.rules().allow.is_empty() {
            notes.push("clients still need an address that the gateway's rules allow".to_owned());
        }
        notes.extend(self.listener_note());
        notes
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a public listener takes a host and port for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// A route for these hosts or this port leads to the service.
    Route(ServiceName, Name),
    /// Agents offer these hosts or this port themselves, and no route claims it.
    Offer(ServiceName),
}

/// How a host and port comes to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// By the service's intercept.v1 config: for identities that dial through an agent.
    Intercept,
    /// By a route: for clients of the gateway's public listeners.
    Route,
    /// By an offer of an agent that no route claims: for clients of the gateway's public listeners.
    Offer,
}

/// A way, with the hosts or the port as a route or an agent has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Via {
    /// Which way.
    pub way: Way,
    /// `app.example.com`, `*.example.com` or `port 5432`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

impl Via {
    fn new(way: Way, claim: &ServiceName) -> Self {
        Self { way, claim: Some(shown(claim)) }
    }

    /// As a sentence.
    pub(super) fn sentence(&self, to: &str, service: Option<&Name>) -> String {
        let claim = self.claim.as_deref().unwrap_or(to);
        let service = service.map(Name::as_str).unwrap_or_default();
        match self.way {
            Way::Intercept => format!("{to} is intercepted by service {service}."),
            Way::Route => format!("A route leads {claim} to service {service}."),
            Way::Offer => {
                format!("Agents offer {claim} themselves, and no route claims it: no policy is asked.")
            }
        }
    }
}

/// Hosts or a port, as people say it.
fn shown(claim: &ServiceName) -> String {
    claim.tcp_port().map_or_else(|| claim.to_string(), |port| format!("port {port}"))
}

/// What no service is found for by an intercept or a route: agents may offer it, or nobody.
pub(super) fn unclaimed(
    snapshot: &Snapshot,
    question: &Question,
    place: &Place,
    endpoints: &[EndpointView],
) -> Explanation {
    match (&place.door, question.verb) {
        (_, Verb::Bind) => offering(snapshot, question, place),
        (Some(Door::Offer(claim)), Verb::Dial) => offered(snapshot, question, place, claim, endpoints),
        (Some(Door::Route(..)) | None, Verb::Dial) => nothing(snapshot, question, place),
    }
}

/// Agents offer it: whoever comes gets it.
fn offered(
    snapshot: &Snapshot,
    question: &Question,
    place: &Place,
    claim: &ServiceName,
    endpoints: &[EndpointView],
) -> Explanation {
    let text = claim.to_string();
    let endpoints: Vec<EndpointView> = endpoints.iter().filter(|it| it.service == text).cloned().collect();
    let online = match endpoints.len() {
        0 => "but no agent offers it now".to_owned(),
        1 => "and one endpoint offers it".to_owned(),
        many => format!("and {many} endpoints offer it"),
    };
    Explanation {
        allowed: true,
        works: !endpoints.is_empty(),
        via: Some(Via::new(Way::Offer, claim)),
        notes: place.notes(snapshot, question, None),
        fixes: fix::claim(snapshot, question, claim, &endpoints),
        endpoints,
        ..Explanation::of(question, format!("everybody may reach {place}, {online}"))
    }
}

/// Whether an agent may offer the host or the port itself.
fn offering(snapshot: &Snapshot, question: &Question, place: &Place) -> Explanation {
    let host = place.host.parse().ok().map(|host| ServiceName::Host(HostPattern::Exact(host)));
    let offers: Vec<ServiceName> = host.into_iter().chain([ServiceName::Tcp(place.port)]).collect();
    let who = snapshot.named(&question.identity).and_then(|index| snapshot.at(index));
    let Some(member) = who else {
        return Explanation {
            fixes: vec![fix::create_identity(&question.identity)],
            ..Explanation::of(question, format!("there is no identity or token {}", question.identity))
        };
    };
    let decided: Vec<_> = offers.iter().map(|it| (it, authorize_offer(snapshot, &member.who, it))).collect();
    let may: Vec<String> = decided.iter().filter(|(_, it)| it.is_ok()).map(|(it, _)| shown(it)).collect();
    if !may.is_empty() {
        let verdict = format!(
            "{} may offer {}: no route claims it, and its limits allow it",
            member.who,
            may.join(" and ")
        );
        return Explanation { allowed: true, works: true, ..Explanation::of(question, verdict) };
    }
    let no = decided.into_iter().find_map(|(_, it)| it.err()).map(|denial| denial.message(snapshot));
    Explanation::of(question, no.unwrap_or_else(|| format!("{} may not offer {place}", member.who)))
}

/// Neither a config, nor a route, nor an agent has it.
fn nothing(snapshot: &Snapshot, question: &Question, place: &Place) -> Explanation {
    let is_public = question.identity == *PUBLIC;
    let verdict = if place.is_control() {
        format!("no service answers at {place}: it is the control port, where agents and operators connect")
    } else if is_public {
        format!("nothing answers at {place}: no route claims it, and no agent offers it")
    } else {
        format!(
            "nothing answers at {place}: no service intercepts it, no route claims it, and no agent offers it"
        )
    };
    let intercepting = snapshot.intercepting(&place.host, place.port);
    let mut notes: Vec<String> = Vec::new();
    if is_public {
        let only = intercepting.iter().take(3);
        notes.extend(only.map(|service| {
            format!("service {service} intercepts it, for identities that dial through an agent and not for the public")
        }));
    } else {
        let hosts = snapshot.intercepts_near(&place.host).into_iter();
        notes.extend(hosts.map(|(service, said)| format!("service {service} intercepts {said}")));
    }
    let hosts: Vec<String> = snapshot.routed_hosts().map(|(hosts, _)| hosts.to_string()).collect();
    let similar = near(&place.host, hosts.iter().map(String::as_str));
    if !similar.is_empty() {
        notes.push(format!("routes lead from {}", similar.join(", ")));
    }
    let fixes = fix::route(snapshot, place, intercepting.first()).into_iter().collect();
    Explanation { notes, fixes, ..Explanation::of(question, verdict) }
}
