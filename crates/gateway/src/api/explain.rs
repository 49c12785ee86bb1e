//! Why somebody may or may not reach or offer a service, with who offers it now.

use std::time::SystemTime;

use adit_control::Snapshot;
use adit_control::explain::{Door, EndpointView, Place, ProbeView, Question, explain as explained};
use adit_control::model::Verb;
use adit_proto::names::{Hostname, ServiceName};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::answer::json;
use super::asked::{Wanted, name};
use super::problem::Problem;
use crate::router::{Claimant, claimant};
use crate::sessions::Sessions;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    verb: String,
    identity: String,
    service: Option<String>,
    to: Option<String>,
}

pub(super) async fn explain(
    State(api): State<Api>,
    Wanted(asked): Wanted<Asked>,
) -> Result<Response<Body>, Problem> {
    let bad = |what: String| Problem::bad_request("bad_query", what);
    let verb: Verb = asked.verb.parse().map_err(|why| bad(format!("verb: {why}")))?;
    let invalid = |what: String| {
        let next = "name a service, or where a client would connect to: to=host:port";
        Problem::client("invalid", 422, what, next)
    };
    if asked.service.is_none() && asked.to.is_none() {
        return Err(invalid("one of service and to is needed".to_owned()));
    }
    let to = asked.to.as_deref();
    let to = to.map(|to| place(to).ok_or_else(|| invalid(format!("to: `{to}` is no host:port"))));
    let snapshot = api.snapshots.current();
    let to = to.transpose()?.map(|place| found(&api, &snapshot, place));
    let question = Question {
        verb,
        identity: name(&asked.identity)?,
        service: asked.service.as_deref().map(name).transpose()?,
        to,
    };
    let endpoints = endpoints(&api, &snapshot, &question);
    Ok(json(StatusCode::OK, &explained(&snapshot, &question, &endpoints)))
}

/// A host and a port.
fn place(text: &str) -> Option<Place> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!bare.is_empty()).then(|| Place::new(bare.to_owned(), port))
}

/// The place with what the public listeners have for it now.
fn found(api: &Api, snapshot: &Snapshot, place: Place) -> Place {
    let host = || {
        let host: Hostname =
            if place.host.contains(':') { format!("[{}]", place.host).parse() } else { place.host.parse() }
                .ok()?;
        Some(match claimant(Some(&host), snapshot, &api.sessions)? {
            Claimant::Route(hosts, service) => Door::Route(ServiceName::Host(hosts.clone()), service.clone()),
            Claimant::Offer(service) => Door::Offer(service.name.clone()),
        })
    };
    let by_port = ServiceName::Tcp(place.port);
    let (http_ports, control) = (api.about.live.http_ports(), api.about.control_port);
    // Where both have the same number, on different addresses, the listener is what clients mean.
    let control_port = (!http_ports.contains(&control)).then_some(control);
    let door = match snapshot.route_for_port(place.port) {
        _ if control_port == Some(place.port) => None,
        Some(service) => Some(Door::Route(by_port, service.clone())),
        // It is bound while somebody offers it.
        None if api.sessions.at_port(place.port).is_some_and(|it| it.is_held()) => Some(Door::Offer(by_port)),
        None => host(),
    };
    let is_port = matches!(&door, Some(Door::Route(ServiceName::Tcp(_), _)));
    let unserved = api.ports.unserved(place.port).filter(|_| is_port);
    Place { door, http_ports, control_port, unserved, ..place }
}

/// Who offers what is asked about now.
fn endpoints(api: &Api, snapshot: &Snapshot, question: &Question) -> Vec<EndpointView> {
    let named = question.services(snapshot).into_iter().map(ServiceName::Named);
    let direct = question.to.as_ref().and_then(|place| match &place.door {
        Some(Door::Offer(claim)) => Some(claim.clone()),
        Some(Door::Route(..)) | None => None,
    });
    endpoints_of(&api.sessions, &named.chain(direct).collect::<Vec<_>>())
}

/// Who offers any of these now.
pub(super) fn endpoints_of(sessions: &Sessions, wanted: &[ServiceName]) -> Vec<EndpointView> {
    let mut found = Vec::new();
    for agent in sessions.list() {
        let since = agent.since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let last_probe = agent.last_canary().map(|(age, ok)| ProbeView { age_seconds: age.as_secs(), ok });
        for (service, upstream) in agent.served() {
            if wanted.contains(&service) {
                let service = match service {
                    ServiceName::Named(name) => name.to_string(),
                    other => other.to_string(),
                };
                let shown = if agent.hostname.is_empty() {
                    agent.instance.to_string()
                } else {
                    agent.hostname.clone()
                };
                let identity = agent.identity().to_owned();
                found.push(EndpointView { service, agent: shown, identity, upstream, since, last_probe });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_and_a_port() {
        assert_eq!(place("a.example:80"), Some(Place::new("a.example".to_owned(), 80)));
        assert_eq!(place("[::1]:80"), Some(Place::new("::1".to_owned(), 80)));
        for text in ["a", ":80", "a:0", "a:x", "a:70000"] {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
