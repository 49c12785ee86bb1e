//! Why somebody may or may not reach or offer a service, with who offers it now.

use std::time::SystemTime;

use adit_control::explain::{EndpointView, ProbeView, Question, explain as explained};
use adit_control::model::Verb;
use adit_proto::name::Name;
use adit_proto::names::ServiceName;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::answer::json;
use super::asked::{Wanted, name};
use super::problem::Problem;

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
    let question = Question {
        verb,
        identity: name(&asked.identity)?,
        service: asked.service.as_deref().map(name).transpose()?,
        to: to.transpose()?,
    };
    let snapshot = api.snapshots.current();
    let endpoints = endpoints(&api, &question.services(&snapshot));
    Ok(json(StatusCode::OK, &explained(&snapshot, &question, &endpoints)))
}

/// A host and a port.
fn place(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!bare.is_empty()).then(|| (bare.to_owned(), port))
}

/// Who offers these services now.
fn endpoints(api: &Api, services: &[Name]) -> Vec<EndpointView> {
    let mut found = Vec::new();
    for agent in api.sessions.list() {
        let since = agent.since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let last_probe = agent.last_canary().map(|(age, ok)| ProbeView { age_seconds: age.as_secs(), ok });
        for (service, upstream) in agent.served() {
            let ServiceName::Named(service) = service else { continue };
            if services.contains(&service) {
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
        assert_eq!(place("a.example:80"), Some(("a.example".to_owned(), 80)));
        assert_eq!(place("[::1]:80"), Some(("::1".to_owned(), 80)));
        for text in ["a", ":80", "a:0", "a:x", "a:70000"] {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
