//! Commands that would change the answer.

use adit_proto::limits::MAX_NAME;
use adit_proto::name::Name;
use adit_proto::names::{HostPattern, ServiceName};

use super::finding::{Finding, Near};
use super::{EndpointView, Fix, Place, Question};
use crate::model::Verb;
use crate::policy::Who;
use crate::snapshot::{Member, Snapshot};

/// The verb in a sentence.
pub(super) const fn act(verb: Verb) -> &'static str {
    match verb {
        Verb::Dial => "dial",
        Verb::Bind => "bind",
    }
}

pub(super) fn create_identity(name: &Name) -> Fix {
    Fix {
        what: format!("create the identity, and enroll it with {name}.jwt"),
        command: format!("adit edge create identity \"{name}\" -o \"{name}.jwt\""),
    }
}

pub(super) fn create_service(name: &Name) -> Fix {
    Fix { what: "create the service".to_owned(), command: format!("adit edge create service \"{name}\"") }
}

pub(super) fn enable(who: &Who) -> Fix {
    let (kind, name) = match who {
        Who::Token(name) => ("token", name.as_str()),
        Who::Identity(name) => ("identity", name.as_str()),
        Who::Public => ("identity", ""),
    };
    Fix {
        what: format!("let {who} in again"),
        command: format!("adit edge update {kind} \"{name}\" --disabled=false"),
    }
}

/// A policy for exactly this, with a name that is free.
pub(super) fn policy(snapshot: &Snapshot, verb: Verb, who: &Name, service: &Name) -> Fix {
    let plain = format!("{service}.{}.{who}", act(verb));
    let plain = if plain.len() + 4 > MAX_NAME { format!("{}.{}", act(verb), who) } else { plain };
    let is_taken = |name: &str| name.parse().is_ok_and(|name| snapshot.has_policy(&name));
    let numbered = (2..1000).map(|number| format!("{plain}-{number}"));
    let name = std::iter::once(plain.clone()).chain(numbered).find(|name| !is_taken(name)).unwrap_or(plain);
    let what = match verb {
        Verb::Dial => format!("let {who} dial {service}"),
        Verb::Bind => format!("let {who} offer {service}"),
    };
    let command = format!(
        "adit edge create service-policy \"{name}\" {verb} --service-roles \"@{service}\" --identity-roles \"@{who}\""
    );
    Fix { what, command }
}

/// The attribute that is all that is missing.
pub(super) fn attribute(near: &Near<'_>, member: &Member, finding: &Finding<'_>) -> Option<Fix> {
    let &[lacking] = &near.lacking[..] else { return None };
    let (kind, name, has) = if near.by_service {
        let kind = if matches!(member.who, Who::Token(_)) { "token" } else { "identity" };
        (kind, member.who.name()?, member.attributes())
    } else {
        let service = &finding.reachable?.service;
        ("service", &service.name, &service.attributes[..])
    };
    let all: Vec<&str> = has.iter().chain([lacking]).map(Name::as_str).collect();
    Some(Fix {
        what: format!("give {kind} {name} #{lacking}, with all that policies give to #{lacking}"),
        command: format!("adit edge update {kind} \"{name}\" -a \"{}\"", all.join(",")),
    })
}

/// Somebody who offers it: whoever may, or a policy that lets somebody.
pub(super) fn offer(snapshot: &Snapshot, service: &Name) -> Vec<Fix> {
    let binders = snapshot.binders(service);
    let identities: Vec<&Name> = binders.iter().filter_map(|who| identity(who)).collect();
    let Some(first) = identities.first().copied() else {
        return match binders.first() {
            Some(Who::Token(token)) => {
                vec![start(&format!("an agent of token {token}"), "token: file:TOKEN-FILE", service)]
            }
            _ => {
                let placeholder = format!(
                    "adit edge create service-policy \"{service}.bind\" Bind --service-roles \"@{service}\" \
                     --identity-roles \"@AGENT\""
                );
                let what =
                    "nobody may offer it: let the identity AGENT do so, then start its agent".to_owned();
                vec![Fix { what, command: placeholder }]
            }
        };
    };
    let shown: Vec<&str> = identities.iter().take(3).map(|name| name.as_str()).collect();
    let more = identities.len().saturating_sub(shown.len());
    let mut who = shown.join(" or ");
    if more > 0 {
        who = format!("{who} or {more} more");
    }
    vec![start(&format!("an agent of {who}"), &format!("identity: {first}.json"), service)]
}

const fn identity(who: &Who) -> Option<&Name> {
    match who {
        Who::Identity(name) => Some(name),
        Who::Public | Who::Token(_) => None,
    }
}

fn start(who: &str, credential: &str, service: &Name) -> Fix {
    Fix {
        what: format!(
            "start {who}, with `{credential}` and `services: [{{service: {service}, upstream: …}}]` in agent.yaml"
        ),
        command: "adit agent -f agent.yaml".to_owned(),
    }
}

/// A route from here to a service; `None` where none can lead from.
pub(super) fn route(snapshot: &Snapshot, place: &Place, service: Option<&Name>) -> Option<Fix> {
    // A listener of the gateway's own tells hosts apart, and so does whatever stands in front of it.
    let is_own = place.http_ports.contains(&place.port);
    let by_host = is_own || matches!(place.port, 80 | 443);
    let host = place.host.parse().ok().filter(|_| by_host && !place.is_control());
    let claim = match host {
        Some(host) => ServiceName::Host(HostPattern::Exact(host)),
        None if is_own || place.is_control() => return None,
        None => ServiceName::Tcp(place.port),
    };
    let service = service.map_or("SERVICE", Name::as_str);
    Some(Fix {
        what: format!("have a route lead clients from there to service {service}"),
        command: route_command(&free_service(snapshot, &claim), &claim, service),
    })
}

fn route_command(name: &str, claim: &ServiceName, service: &str) -> String {
    let claim = match claim.tcp_port() {
        Some(port) => format!("--ports {port}"),
        None => format!("--hosts \"{claim}\""),
    };
    format!("adit edge create route \"{name}\" {claim} --service \"{service}\"")
}

/// A name for the service behind hosts or a port, which no service has yet.
fn free_service(snapshot: &Snapshot, claim: &ServiceName) -> String {
    let plain = match claim {
        ServiceName::Host(HostPattern::Exact(host)) => host.to_string(),
        ServiceName::Host(HostPattern::Suffix(domain)) => domain.to_string(),
        ServiceName::Tcp(port) => format!("tcp-{port}"),
        _ => "web".to_owned(),
    };
    let plain = if plain.parse::<Name>().is_ok() { plain } else { "web".to_owned() };
    let is_free = |name: &String| name.parse().is_ok_and(|name: Name| snapshot.service(&name).is_none());
    let numbered = (2..1000).map(|number| format!("{plain}-{number}"));
    std::iter::once(plain.clone()).chain(numbered).find(is_free).unwrap_or(plain)
}

/// What agents offer themselves becomes a service of which policies decide. The route comes last: until then everything
/// is as it was.
pub(super) fn claim(
    snapshot: &Snapshot,
    question: &Question,
    claim: &ServiceName,
    endpoints: &[EndpointView],
) -> Vec<Fix> {
    let name = free_service(snapshot, claim);
    let Ok(service) = name.parse::<Name>() else { return Vec::new() };
    let mut fixes = vec![Fix {
        what: "to have policies decide, make it a service (one after another)".to_owned(),
        ..create_service(&service)
    }];
    let mut agents: Vec<Name> = endpoints.iter().filter_map(|it| it.identity.parse().ok()).collect();
    agents.sort();
    agents.dedup();
    fixes.extend(agents.iter().take(3).map(|agent| policy(snapshot, Verb::Bind, agent, &service)));
    fixes.push(policy(snapshot, Verb::Dial, &question.identity, &service));
    fixes.push(Fix {
        what: "from here on, whom no policy lets dial it is refused".to_owned(),
        command: route_command(&name, claim, &name),
    });
    fixes
}
