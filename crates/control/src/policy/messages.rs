//! What a refusal says. Worked out only where somebody reads it.

use adit_proto::name::Name;
use adit_proto::names::ServiceName;

use super::Who;
use crate::explain::Finding;
use crate::model::{PUBLIC, Verb};
use crate::snapshot::Snapshot;

/// Why somebody may not reach a service.
pub(super) fn dial(snapshot: &Snapshot, who: &Who, service: &ServiceName) -> String {
    match (snapshot.claimed(service), who) {
        (Some(name), Who::Public) => format!(
            "no Dial policy lets the public reach service {name}; allow it with: adit edge create service-policy \
             \"{name}.dial.{PUBLIC}\" Dial --service-roles \"@{name}\" --identity-roles \"@{PUBLIC}\""
        ),
        (Some(name), _) => if_there(service, refusal(snapshot, Verb::Dial, who, name)),
        (None, _) => format!("{who} can dial services by name only, not {service}"),
    }
}

/// Why somebody may not offer something.
pub(super) fn offer(snapshot: &Snapshot, who: &Who, offered: &ServiceName) -> String {
    match (snapshot.claimed(offered), snapshot.member(who), who) {
        (_, None, _) => format!("{who} does not exist"),
        (_, Some(member), _) if member.is_disabled => format!("{who} is disabled"),
        (Some(name), ..) => {
            let text = refusal(snapshot, Verb::Bind, who, name);
            match offered {
                ServiceName::Named(_) => if_there(offered, text),
                _ => format!("a route leads from {offered} to service {name}, and {text}"),
            }
        }
        (None, _, Who::Token(_)) => format!("the limits of {who} do not cover {offered}"),
        (None, ..) => format!(
            "{who} may not offer {offered}: identities offer services, and no route leads from {offered} to one; \
             offer the service by its name, or add a route: adit edge create route"
        ),
    }
}

/// Who asks for a service by its name has no business to know whether there is one; who made it may have deleted it.
fn if_there(service: &ServiceName, text: String) -> String {
    match service {
        ServiceName::Named(name) => {
            format!("{text}   or, if there is no such service: adit edge create service \"{name}\"")
        }
        _ => text,
    }
}

fn refusal(snapshot: &Snapshot, verb: Verb, who: &Who, service: &Name) -> String {
    match who.name() {
        Some(name) => Finding::new(snapshot, verb, snapshot.index(who), service).refusal(name),
        None => format!("no {verb} policy lets the public do that with service {service}"),
    }
}
