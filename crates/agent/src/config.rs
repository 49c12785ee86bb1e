//! What an agent is told to do, as the types it uses. Reading files and flags into this is the command line's job.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::name::Name;
use adit_proto::names::{Destination, ServiceName};
use adit_telemetry::logs::LineWriter;
use adit_tunnel::identity::LiveIdentity;
use adit_tunnel::proof::TokenKey;
use adit_tunnel::proxy::Egress;

/// An agent's whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gateways' control ports; at least one. A session is kept to each.
    pub gateways: Vec<GatewayUrl>,
    /// A session to each address that a gateway's name resolves to, instead of to whichever answers first.
    pub each_address: bool,
    /// Through which proxy the gateways are reached, if any.
    pub egress: Egress,
    /// What the agent shows to the gateways.
    pub credential: Credential,
    /// How the gateway's certificate is checked.
    pub verify: Verify,
    /// What is offered; none only where something is forwarded.
    pub services: Vec<Service>,
    /// What is forwarded the other way round.
    pub forwards: Vec<Forward>,
    /// Whether services are dialled with [`Agent::dial`](crate::Agent::dial), beside what `forwards` says.
    pub dials: bool,
    /// Where the agent's own `/metrics`, `/healthz` and `/ready` listen; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Where the process's own log goes, so that its drops are counted.
    pub process_log: Option<LineWriter>,
    /// How long open streams may go on after a drain was asked for.
    pub drain_timeout: Duration,
    /// The commit this was built from, for metrics.
    pub revision: &'static str,
}

/// What an agent shows.
#[derive(Debug, Clone)]
pub enum Credential {
    /// It proves a shared token.
    Token(TokenKey),
    /// It shows the certificate of an identity, and renews it. The gateway has to show a certificate of the identity's
    /// authorities or of the system's, whatever `verify` says.
    Identity(Arc<LiveIdentity>),
}

/// One address here whose connections lead to the gateway and from there on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Address to bind.
    pub listen: SocketAddr,
    /// What its connections reach.
    pub to: To,
}

/// What the gateway joins a connection to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// An address on its side. It has to allow that.
    Address(Destination),
    /// A service by its name, wherever it is offered.
    Service(Name),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(destination) => destination.fmt(f),
            Self::Service(name) => write!(f, "@{name}"),
        }
    }
}

impl From<To> for ServiceName {
    fn from(to: To) -> Self {
        match to {
            To::Address(destination) => Self::Dial(destination),
            To::Service(name) => Self::Named(name),
        }
    }
}

/// One offered service.
#[derive(Debug, Clone)]
pub struct Service {
    /// What it is reached by.
    pub name: ServiceName,
    /// What stands behind it.
    pub upstream: Upstream,
}

impl Service {
    /// Whether the upstream can serve what the name brings: HTTP requests, or bare connections.
    ///
    /// # Errors
    /// Which upstreams can.
    pub fn check(&self) -> Result<(), UrlError> {
        match (&self.name, &self.upstream) {
            (ServiceName::Tcp(_), Upstream::Tcp { .. } | Upstream::Unix(_)) => Ok(()),
            (ServiceName::Tcp(port), other) => Err(UrlError(format!(
                "{other} cannot stand behind port {port}: connections to a port need tcp://host:port or unix:/path"
            ))),
            (ServiceName::Host(hosts), Upstream::Tcp { host, port }) => Err(UrlError(format!(
                "tcp://{host}:{port} cannot stand behind the host {hosts}: requests need an upstream that speaks \
                 HTTP, such as http://{host}:{port}"
            ))),
            (ServiceName::Host(_) | ServiceName::Named(_), _) => Ok(()),
            (ServiceName::Dial(to), _) => {
                Err(UrlError(format!("{to} is not what a service can be reached by")))
            }
        }
    }
}

/// What an agent connects a stream to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// `http://host:port`: cleartext TCP.
    Http {
        /// Host name or address literal (IPv6 without brackets).
        host: String,
        /// Port.
        port: u16,
    },
    /// `https://host:port`: TLS to the upstream.
    Https {
        /// Host name or address literal; also the name its certificate must bear.
        host: String,
        /// Port.
        port: u16,
        /// `false`: any certificate will do (a per-upstream opt-out).
        verify: bool,
    },
    /// `tcp://host:port`: bare connections, for a service that is reached by a port.
    Tcp {
        /// Host name or address literal (IPv6 without brackets).
        host: String,
        /// Port.
        port: u16,
    },
    /// `unix:/path`: a stream socket.
    Unix(PathBuf),
    /// `file:/path`: a directory, served by the agent itself.
    Files {
        /// The directory.
        root: PathBuf,
        /// Whether directories without an `index.html` are listed.
        browsing: bool,
    },
    /// `http_status:NNN`: a fixed answer.
    Status(u16),
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Http { host, port } => ("http", host, port),
            Self::Https { host, port, verify: _ } => ("https", host, port),
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Unix(path) => return write!(f, "unix:{}", path.display()),
            Self::Files { root, browsing: _ } => return write!(f, "file:{}", root.display()),
            Self::Status(code) => return write!(f, "http_status:{code}"),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// Why a URL or upstream is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

/// Splits `host[:port]`, with IPv6 addresses in brackets. The host comes back without brackets.
fn host_port(text: &str, default_port: Option<u16>) -> Result<(String, u16), UrlError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) =
            rest.split_once(']').ok_or_else(|| UrlError("`[` without `]` in the host".into()))?;
        inside
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_not_ipv6| UrlError(format!("`{inside}` is not an IPv6 address")))?;
        (inside, if after.is_empty() { Some("") } else { after.strip_prefix(':') })
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("")),
        }
    };
    let port = match port {
        Some("") if !text.ends_with(':') => {
            default_port.ok_or_else(|| UrlError("the port is missing".into()))?
        }
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| UrlError(format!("`{digits}` is not a port (1 to 65535)")))?,
        None => return Err(UrlError("something other than `:port` follows the host".into())),
    };
    if host.is_empty() {
        return Err(UrlError("the host is missing".into()));
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '@' | '/' | '?' | '#' | '\\'))
    {
        return Err(UrlError(format!("`{host}` is not a host name or address")));
    }
    Ok((host.to_owned(), port))
}

impl FromStr for Upstream {
    type Err = UrlError;

    /// Accepts the six forms above. A bare `host:port` or `:port` means `http://`. A path, query or user in an
    /// `http` or `https` upstream is refused: paths pass through unchanged, so there is nothing to join them to.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(UrlError("a unix upstream needs an absolute path: unix:/run/app.sock".into()));
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
            if path.is_empty() {
                return Err(UrlError("a file upstream needs a directory: file:/srv/www".into()));
            }
            return Ok(Self::Files { root: path.into(), browsing: false });
        }
        if let Some(code) = text.strip_prefix("http_status:") {
            return code
                .parse()
                .ok()
                .filter(|code| (200..=599).contains(code))
                .map(Self::Status)
                .ok_or_else(|| UrlError(format!("`{code}` is not a final status code (200 to 599)")));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let default_port = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            "tcp" => None,
            other => {
                return Err(UrlError(format!(
                    "`{other}://` is not an upstream; use http://, https://, tcp://, unix:/path, file:/path or \
                     http_status:404"
                )));
            }
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(UrlError("an upstream has no path: requests keep the path they came with".into()));
        }
        if rest.contains('@') {
            return Err(UrlError("an upstream has no user or password in it".into()));
        }
        let rest = if rest.starts_with(':') { format!("127.0.0.1{rest}") } else { rest.to_owned() };
        let (host, port) = host_port(&rest, default_port)?;
        Ok(match scheme {
            "https" => Self::Https { host, port, verify: true },
            "tcp" => Self::Tcp { host, port },
            _ => Self::Http { host, port },
        })
    }
}

/// The gateway's control port as a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUrl {
    /// Host name or address literal (IPv6 without brackets).
    pub host: String,
    /// Port, 8123 unless given.
    pub port: u16,
    /// How to speak to it.
    pub transport: Transport,
}

impl GatewayUrl {
    /// Where its control port speaks HTTP, if it does by TCP.
    pub(crate) fn renewal(&self) -> String {
        let host = &self.host;
        if host.contains(':') {
            format!("https://[{host}]:{}", self.port)
        } else {
            format!("https://{host}:{}", self.port)
        }
    }
}

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Raw TLS where the other end agrees to it (ALPN), WebSocket on the same connection where it does not, and QUIC
    /// where TCP does not get through.
    #[default]
    Auto,
    /// Raw TLS only.
    Tls,
    /// WebSocket only, for networks that pass nothing but HTTP.
    WebSocket,
    /// QUIC only, on the UDP port of the same number.
    Quic,
}

impl Transport {
    /// Whether a URL that says this leaves another choice to a flag or key.
    #[must_use]
    pub fn allows(self, asked: Self) -> bool {
        matches!(self, Self::Auto) || matches!(asked, Self::Auto) || self == asked
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Auto | Transport::WebSocket => "wss",
            Transport::Tls => "tls",
            Transport::Quic => "quic",
        };
        let host = &self.host;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{}", self.port)
        } else {
            write!(f, "{scheme}://{host}:{}", self.port)
        }
    }
}

impl FromStr for GatewayUrl {
    type Err = UrlError;

    /// `wss://host[:port][/connect]`, `tls://host[:port]` or `quic://host[:port]`; `https://` reads as `wss://`, and a bare
    /// `host[:port]` too.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("wss", text));
        let transport = match scheme {
            "wss" | "https" => Transport::Auto,
            "tls" => Transport::Tls,
            "quic" => Transport::Quic,
            "ws" | "http" => {
                return Err(UrlError(format!(
                    "`{scheme}://` would carry the session unencrypted; use wss://{rest}"
                )));
            }
            other => {
                return Err(UrlError(format!(
                    "`{other}://` is not a gateway; use wss://, tls:// or quic://"
                )));
            }
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(path, "" | "connect") {
            return Err(UrlError(format!("`/{path}` is not a path of the control port; leave it out")));
        }
        let (host, port) = host_port(authority, Some(8123))?;
        Ok(Self { host, port, transport })
    }
}

/// How the gateway's certificate is checked. The token's proof is bound to the channel in every mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Any certificate (`--auto-tls`): the gateway's proof of the token stands in for the authority.
    TokenProof,
    /// By the system's authorities.
    System,
    /// By the authorities in a PEM file only.
    Ca(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_read_back_as_written() {
        for text in [
            "http://127.0.0.1:8080",
            "https://example.com:8443",
            "http://[::1]:80",
            "unix:/run/app.sock",
            "file:/srv/www",
            "http_status:503",
            "tcp://[::1]:5432",
        ] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
        }
        assert_eq!("localhost:3000".parse::<Upstream>().unwrap().to_string(), "http://localhost:3000");
        assert_eq!(":3000".parse::<Upstream>().unwrap().to_string(), "http://127.0.0.1:3000");
        assert_eq!(
            "https://example.com/".parse::<Upstream>().unwrap().to_string(),
            "https://example.com:443"
        );
        assert_eq!("file:///srv".parse::<Upstream>().unwrap().to_string(), "file:/srv");
    }

    #[test]
    fn upstreams_that_cannot_work_are_refused() {
        for text in [
            "http://example.com/path",
            "http://user@example.com",
            "ftp://example.com",
            "http://:80x",
            "http://example.com:0",
            "http://example.com:",
            "http://[::1",
            "http://[::1]x",
            "http://",
            "unix:run/app.sock",
            "file:",
            "http_status:99",
            "http_status:101",
            "tcp://localhost",
            "tcp://localhost:0",
        ] {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_upstream_fits_the_service_or_is_refused() {
        let check = |name: &str, upstream: &str| {
            Service { name: name.parse().unwrap(), upstream: upstream.parse().unwrap() }.check().is_ok()
        };
        assert!(check("tcp:1", "tcp://h:1") && check("tcp:1", "unix:/s") && check("*", "unix:/s"));
        assert!(!check("tcp:1", "http://h:1") && !check("tcp:1", "file:/srv") && !check("*", "tcp://h:1"));
    }

    #[test]
    fn gateway_urls_have_a_default_port_and_refuse_cleartext() {
        let url: GatewayUrl = "wss://example.com".parse().unwrap();
        assert_eq!((url.port, url.transport), (8123, Transport::Auto));
        assert_eq!("wss://h:1/connect".parse::<GatewayUrl>().unwrap().to_string(), "wss://h:1");
        assert_eq!("quic://h".parse::<GatewayUrl>().unwrap().transport, Transport::Quic);
        assert_eq!("tls://[::1]:9".parse::<GatewayUrl>().unwrap().to_string(), "tls://[::1]:9");
        assert!("ws://h:1".parse::<GatewayUrl>().unwrap_err().to_string().contains("wss://h:1"));
        assert!("wss://h:1/other".parse::<GatewayUrl>().is_err());
    }
}
