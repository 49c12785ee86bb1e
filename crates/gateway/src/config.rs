//! What a gateway is told to do, as the types it uses. Reading files and flags into this is the command line's job.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use adit_control::model::SecretText;
pub use adit_control::{Local, LocalToken};
use adit_proto::proxy_header::Version;
use adit_telemetry::logs::LineWriter;
use ipnet::IpNet;

/// A gateway's whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where agents, `adit status` and Prometheus connect.
    pub control: Control,
    /// Public HTTP listeners. None at all makes this a gateway for TCP services.
    pub http: Vec<HttpListener>,
    /// What agents may offer beside HTTP; `None`: no TCP service.
    pub tcp: Option<TcpServices>,
    /// Who may open a session or read the control port; at least one.
    pub tokens: Vec<LocalToken>,
    /// What is kept between runs, and how identities come to their certificates.
    pub state: State,
    /// Addresses that may use the public listeners. Empty: everyone.
    pub allow: Vec<IpNet>,
    /// Proxies in front of the gateway whose `X-Forwarded-*`, `Forwarded` and PROXY headers are believed. Empty: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether agents may have the gateway connect to addresses of its own network.
    pub client_forwarding: bool,
    /// Bounds on what clients and agents may cost.
    pub limits: Limits,
    /// Where the request log goes; `None` writes none.
    pub request_log: Option<LineWriter>,
    /// Where the process's own log goes, so that its drops are counted.
    pub process_log: Option<LineWriter>,
    /// How long open flows may go on after a drain was asked for.
    pub drain_timeout: Duration,
    /// The commit this was built from, for status and metrics.
    pub revision: &'static str,
}

impl Config {
    /// Where the authority is kept: with the rest of the state, else where the control port's certificate has it.
    pub(crate) fn authority_directory(&self) -> Option<&Path> {
        self.state.directory.as_deref().or(match &self.control.tls {
            Tls::Auto { directory, .. } => directory.as_deref(),
            Tls::Files { .. } => None,
        })
    }
}

/// What is kept between runs, and how identities come to their certificates.
#[derive(Debug, Clone)]
pub struct State {
    /// Where it is kept. `None`: resources are gone with the process; the authority is where the control port's
    /// automatic certificate has it.
    pub directory: Option<PathBuf>,
    /// The trust domain of identities; `None`: one made from the root.
    pub trust_domain: Option<String>,
    /// `https://host:port` of the control port, as those who enroll reach it. The first stands in tokens as their
    /// issuer. Empty: made from the names of the control port's certificate.
    pub advertise: Vec<String>,
    /// How long certificates of identities live.
    pub identity_life: Duration,
    /// How long an enrollment may take unless its request says otherwise.
    pub enrollment_life: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: None,
            trust_domain: None,
            advertise: Vec::new(),
            identity_life: adit_control::authority::IDENTITY_LIFE,
            enrollment_life: adit_control::enrollment::ENROLLMENT_LIFE,
        }
    }
}

/// The control port.
#[derive(Debug, Clone)]
pub struct Control {
    /// Address to bind.
    pub listen: SocketAddr,
    /// Its certificate.
    pub tls: Tls,
    /// Whether agents are served by QUIC as well, on the UDP port of the same number.
    pub quic: bool,
}

/// One public HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpListener {
    /// Address to bind.
    pub listen: SocketAddr,
    /// `Some`: HTTPS with ALPN `h2` and `http/1.1`. `None`: cleartext HTTP/1.1 and HTTP/2 by prior knowledge.
    pub tls: Option<Tls>,
    /// Every connection comes from a trusted proxy and begins with a PROXY header, before TLS.
    pub lb_proxy_protocol: bool,
}

/// TCP services. A port is bound while an agent offers it.
#[derive(Debug, Clone)]
pub struct TcpServices {
    /// Address that every offered port is bound to.
    pub listen: IpAddr,
    /// Ports that may be offered. Empty: any that can be bound.
    pub ports: Vec<RangeInclusive<u16>>,
    /// `Some`: upstreams are told who connected by a PROXY header in front of the client's first byte.
    pub proxy_protocol: Option<Version>,
    /// Every connection comes from a trusted proxy and begins with a PROXY header.
    pub lb_proxy_protocol: bool,
}

impl TcpServices {
    /// Whether a port may be offered.
    #[must_use]
    pub fn allows(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|range| range.contains(&port))
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// A self-made authority and a certificate signed by it.
    Auto {
        /// DNS names and IP addresses the certificate is valid for, beside `localhost` and loopback.
        names: Vec<String>,
        /// Where the authority and the keys are kept, so that they survive a restart. `None`: in memory only.
        directory: Option<PathBuf>,
    },
    /// PEM files: the chain, leaf first, and its private key.
    Files {
        /// Certificate chain.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
    },
}

/// Most header fields that [`Limits::max_headers`] lets a request have, whatever it says: each request makes room for as
/// many before it is read.
pub const MAX_HEADERS: usize = 10_000;
/// Largest head that [`Limits::max_header_bytes`] lets a request have, whatever it says.
pub const MAX_HEADER_BYTES: usize = 16 << 20;

/// Bounds. The defaults are meant to be right for an edge on the open internet.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Public connections at once; more wait in the kernel's accept queue.
    pub max_connections: usize,
    /// Of these, from one source address that is no trusted proxy; of IPv6, from one /64. More are reset. `None`: a
    /// quarter of them.
    pub max_connections_per_source: Option<usize>,
    /// Sessions at once.
    pub max_sessions: usize,
    /// Bytes of a request's head (request line and header fields); at most [`MAX_HEADER_BYTES`].
    pub max_header_bytes: usize,
    /// Header fields of a request; at most [`MAX_HEADERS`].
    pub max_headers: usize,
    /// A request's head must be complete this long after its first byte; so must a TLS handshake.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request on it.
    pub idle_timeout: Duration,
    /// How long a client may let a body stand still: one it sends, or one it does not read. A request also ends when
    /// its upstream leaves the rest of its body unread for so long and sends nothing either, because then nobody can
    /// tell whether the client is still there. Other silence of an upstream (events, long polls, WebSockets) is not
    /// limited.
    pub stall_timeout: Duration,
    /// How long the agent may take to connect to the upstream.
    pub connect_timeout: Duration,
    /// How long the upstream may take from the end of the request to the head of its response.
    pub response_timeout: Duration,
    /// How long a request waits for an agent of a known service to come back before it is refused with `no_agent`.
    pub agent_wait: Duration,
    /// Idle streams kept open per endpoint for the next request.
    pub max_idle_streams: usize,
    /// Failed authentications per source address and minute on the control port before further ones are told
    /// `rate_limited` and nothing else. The right token is let in from any address.
    pub max_auth_failures: u32,
}

impl Limits {
    /// How many public connections one source may have.
    pub(crate) fn per_source(&self) -> usize {
        self.max_connections_per_source.unwrap_or(self.max_connections / 4).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_connections_per_source: None,
            max_sessions: 20_000,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(300),
            agent_wait: Duration::from_secs(5),
            max_idle_streams: 1024,
            max_auth_failures: 20,
        }
    }
}
