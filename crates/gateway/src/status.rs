//! What `/status` says: a projection of the live state, in the shape tools of this kind have long had.

use std::net::SocketAddr;
use std::time::SystemTime;

use adit_proto::handshake::Offer;
use adit_proto::names::ServiceName;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::live::Live;
use crate::sessions::AgentSession;

/// The mode of a gateway that has HTTP listeners.
const HTTP: &str = "http";
/// The mode of a gateway that has none.
const TCP: &str = "tcp";

/// What this gateway is for now.
pub(crate) fn mode(live: &Live) -> &'static str {
    if live.has_http() { HTTP } else { TCP }
}

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
    /// `http`, or `tcp` when there is no HTTP listener.
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
    /// `host=upstream`, `*=upstream` for a catch-all, `tcp:port=upstream` for a TCP service. In mode `tcp` an
    /// upstream alone, with its public port in front where that is another one: `localhost:5432`, `2222=localhost:22`.
    pub upstreams: Vec<String>,
    /// What carries its session: `tls`, `websocket` or `quic`.
    pub transport: String,
    /// Who it is.
    #[serde(default)]
    pub identity: String,
    /// How that is known: `certificate`, or `token` for the built-in identity of a token.
    #[serde(default)]
    pub identity_kind: String,
    /// What it offers and nobody reaches: hosts, where the gateway has no HTTP listener.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
}

/// RFC 3339 in UTC.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

impl Client {
    pub(crate) fn of(agent: &AgentSession, mode: &str) -> Self {
        let show = if mode == TCP { in_tcp_mode } else { in_http_mode };
        let offers = agent.offers();
        let hosts =
            offers.iter().filter(|offer| mode == TCP && matches!(offer.service, ServiceName::Host(_)));
        let unreachable = hosts.map(|offer| offer.service.to_string()).collect();
        Self {
            client_id: agent.instance.to_string(),
            remote_addr: canonical(agent.remote).to_string(),
            since: rfc3339(agent.since),
            upstreams: offers.iter().map(show).collect(),
            transport: agent.carrier.transport.to_owned(),
            identity: agent.identity().to_owned(),
            identity_kind: agent.identity_kind().to_owned(),
            unreachable,
        }
    }
}

fn in_http_mode(offer: &Offer) -> String {
    let upstream = offer.upstream.strip_prefix("tcp://").unwrap_or(&offer.upstream);
    format!("{}={upstream}", offer.service)
}

fn in_tcp_mode(offer: &Offer) -> String {
    let upstream = offer.upstream.strip_prefix("tcp://").unwrap_or(&offer.upstream);
    match offer.service.tcp_port() {
        Some(port) if upstream.ends_with(&format!(":{port}")) => upstream.to_owned(),
        Some(port) => format!("{port}={upstream}"),
        None => in_http_mode(offer),
    }
}

/// An IPv4 agent on a dual-stack listener is shown as what it is.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_written_as_each_mode_has_them() {
        let offer = |service: &str, upstream: &str| Offer {
            service: service.parse().unwrap(),
            upstream: upstream.to_owned(),
        };
        let same = offer("tcp:8001", "tcp://localhost:8001");
        let other = offer("tcp:2222", "tcp://localhost:22");
        assert_eq!(
            (in_tcp_mode(&same), in_tcp_mode(&other)),
            ("localhost:8001".into(), "2222=localhost:22".into())
        );
        assert_eq!(in_tcp_mode(&offer("tcp:5", "unix:/run/a.sock")), "5=unix:/run/a.sock");
        assert_eq!(in_http_mode(&same), "tcp:8001=localhost:8001");
        assert_eq!(in_http_mode(&offer("*", "http://h:1")), "*=http://h:1");
    }
}
