//! What one resource shows beside its item: who has it in use now, and who may.

use std::time::SystemTime;

use adit_control::Who;
use adit_control::explain::{PolicyView, permitting};
use adit_control::model::{Kind, Verb, rfc3339};
use adit_proto::name::Name;
use adit_proto::names::ServiceName;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::Api;
use super::explain::endpoints_of;
use crate::sessions::AgentSession;

/// A session of an identity or a token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionView {
    /// The running process: 32 hexadecimal digits, `clientID` of `/status`.
    id: String,
    /// What its machine calls itself; empty when it does not say.
    hostname: String,
    /// Where it connected from.
    remote: String,
    /// Since when.
    #[schema(format = DateTime)]
    since: String,
    /// What carries it: `tls`, `websocket` or `quic`.
    transport: String,
    /// Its release.
    release: String,
    /// What it offers and may offer.
    offers: Vec<OfferView>,
}

/// What a session offers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OfferView {
    /// `@name`, hosts, or `tcp:port`.
    service: String,
    /// What stands behind it.
    upstream: String,
}

impl SessionView {
    fn of(agent: &AgentSession) -> Self {
        let since = agent.since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let offers = agent.offers().into_iter();
        Self {
            id: agent.instance.to_string(),
            hostname: agent.hostname.clone(),
            remote: crate::status::canonical(agent.remote).to_string(),
            since: rfc3339(since),
            transport: agent.carrier.transport.to_owned(),
            release: agent.release.clone(),
            offers: offers
                .map(|offer| OfferView { service: offer.service.to_string(), upstream: offer.upstream })
                .collect(),
        }
    }
}

/// Adds it.
pub(super) fn add(api: &Api, kind: Kind, name: &Name, fields: &mut Map<String, Value>) {
    match kind {
        Kind::Identity | Kind::Token => {
            let is_theirs = |agent: &AgentSession| match (&agent.who, kind) {
                (Who::Identity(who), Kind::Identity) | (Who::Token(who), Kind::Token) => who == name,
                _ => false,
            };
            let all = api.sessions.list();
            let theirs: Vec<SessionView> =
                all.iter().filter(|it| is_theirs(it)).map(|it| SessionView::of(it)).collect();
            fields.insert("sessions".to_owned(), json!(theirs));
        }
        Kind::Service => {
            let snapshot = api.snapshots.current();
            let permitting = |verb| -> Vec<PolicyView> { permitting(&snapshot, verb, name) };
            fields.insert("dial_policies".to_owned(), json!(permitting(Verb::Dial)));
            fields.insert("bind_policies".to_owned(), json!(permitting(Verb::Bind)));
            let endpoints = endpoints_of(&api.sessions, &[ServiceName::Named(name.clone())]);
            fields.insert("endpoints".to_owned(), json!(endpoints));
        }
        Kind::Config | Kind::ServicePolicy | Kind::Route => {}
    }
}
