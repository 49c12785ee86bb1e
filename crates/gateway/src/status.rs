//! What `/status` says: a projection of the live state, in the shape tools of this kind have long had.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::sessions::AgentSession;

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway.
    pub info: Info,
    /// Its agents, longest connected first.
    pub clients: Vec<Client>,
}

/// The gateway itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Release.
    pub version: String,
    /// Commit it was built from.
    pub sha: String,
    /// `http`.
    pub mode: String,
    /// RFC 3339, with fraction and zone.
    pub start_time: String,
    /// The machine's name.
    pub hostname: String,
}

/// One connected agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// 32 hexadecimal digits that name the running process.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Where it connected from.
    pub remote_addr: String,
    /// Since when, RFC 3339 with fraction and zone.
    pub since: String,
    /// `host=upstream`, `*=upstream` for a catch-all.
    pub upstreams: Vec<String>,
}

/// RFC 3339 in UTC.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

impl Client {
    pub(crate) fn of(agent: &AgentSession) -> Self {
        Self {
            client_id: agent.instance.to_string(),
            remote_addr: canonical(agent.remote).to_string(),
            since: rfc3339(agent.since),
            upstreams: agent
                .offers
                .iter()
                .map(|offer| format!("{}={}", offer.service, offer.upstream))
                .collect(),
        }
    }
}

/// An IPv4 agent on a dual-stack listener is shown as what it is.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
