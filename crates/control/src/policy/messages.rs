//! What a refusal says. Worked out only when something is refused.

use adit_proto::name::Name;
use adit_proto::names::ServiceName;

use super::Who;
use crate::model::{PUBLIC, Verb};
use crate::snapshot::Snapshot;

/// Why somebody may not reach a service.
pub(super) fn dial(snapshot: &Snapshot, who: &Who, service: &ServiceName) -> String {
    absent(snapshot, who).unwrap_or_else(|| match snapshot.claimed(service) {
        Some(name) => missing(snapshot, Verb::Dial, who, name),
        None => format!("{who} can dial services by name only, not {service}"),
    })
}

/// Why somebody may not offer something.
pub(super) fn offer(snapshot: &Snapshot, who: &Who, offered: &ServiceName) -> String {
    absent(snapshot, who).unwrap_or_else(|| match (snapshot.claimed(offered), who) {
        (Some(name), _) => missing(snapshot, Verb::Bind, who, name),
        (None, Who::Token(_)) => format!("the limits of {who} do not cover {offered}"),
        (None, _) => format!(
            "{who} may not offer {offered}: identities offer services, and no route leads from {offered} to one; \
             add a route, or offer the service by name"
        ),
    })
}

/// What is to be said of somebody who is not there.
fn absent(snapshot: &Snapshot, who: &Who) -> Option<String> {
    match snapshot.member(who) {
        None => Some(format!("{who} does not exist")),
        Some(member) if member.is_disabled => Some(format!("{who} is disabled")),
        Some(_) => None,
    }
}

fn missing(snapshot: &Snapshot, verb: Verb, who: &Who, service: &Name) -> String {
    let (verb_, act) = match verb {
        Verb::Dial => ("dial", "dial"),
        Verb::Bind => ("bind", "offer"),
    };
    if snapshot.service(service).is_none() {
        return format!(
            "there is no service {service}; create it with: adit edge create service \"{service}\""
        );
    }
    let id = who.name().map_or(PUBLIC, Name::as_str);
    format!(
        "no {verb} policy lets {who} {act} service {service}; allow it with: adit edge create service-policy \
         \"{service}.{verb_}.{id}\" {verb} --service-roles \"@{service}\" --identity-roles \"@{id}\""
    )
}
