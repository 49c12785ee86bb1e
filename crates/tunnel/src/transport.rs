//! What carries a session: TLS on TCP, bare or with WebSocket framing inside, directly or through a proxy.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use adit_proto::handshake::ALPN;
use http::HeaderValue;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_websockets::ClientBuilder;

use crate::proof::Exporter;
use crate::proxy::{Proxy, ProxyError};
use crate::read_ahead::ReadAhead;
use crate::tls::{exporter, handshake_label};

use quic::QuicIo;
pub use tcp::tune;
pub use websocket::{WebSocketIo, limits};

pub mod quic;
mod race;
mod tcp;
mod websocket;

/// The path of the WebSocket transport on the control port.
pub const CONNECT_PATH: &str = "/connect";
/// Bytes TLS may hold on their way out: a whole round of the session's, so that it leaves in one system call.
pub const SEND_BUFFER: usize = 320 * 1024;

/// What is said of a handshake when the library does not tell whether it was shortened.
pub const UNKNOWN: &str = "unknown";

/// Why a gateway could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Name resolution or TCP failed.
    #[error("cannot reach {addr}")]
    Connect {
        /// `host:port`.
        addr: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The proxy on the way could not be reached.
    #[error("cannot reach the proxy {proxy}")]
    ProxyUnreachable {
        /// The proxy, without its password.
        proxy: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The proxy on the way did not connect to the gateway.
    #[error("the proxy {proxy} did not connect to {addr}")]
    Proxy {
        /// The proxy, without its password.
        proxy: String,
        /// `host:port`.
        addr: String,
        /// What it did instead.
        #[source]
        source: ProxyError,
    },
    /// QUIC failed.
    #[error("cannot reach {addr} by QUIC")]
    Quic {
        /// `host:port`.
        addr: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// Only QUIC was allowed, and there is a proxy on the way.
    #[error("QUIC cannot go through the proxy {0}")]
    QuicProxy(String),
    /// TLS failed; most often the certificate.
    #[error("TLS with {addr} failed")]
    Tls {
        /// `host:port`.
        addr: String,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// The other end does not speak TLS.
    #[error(
        "TLS with {0} failed: what answers speaks no TLS; is it a gateway's control port (8123 by default), not a public one?"
    )]
    Cleartext(String),
    /// The host is neither a DNS name nor an address.
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(String),
    /// The other end does not take raw sessions, and nothing else was allowed.
    #[error("{0} does not speak the session protocol on TLS; is it a gateway's control port?")]
    NoSessionProtocol(String),
    /// The WebSocket upgrade was refused.
    #[error("{addr} refused the WebSocket; is it a gateway's control port?")]
    WebSocket {
        /// `host:port`.
        addr: String,
        /// What it said.
        #[source]
        source: tokio_websockets::Error,
    },
    /// It took too long.
    #[error("{addr} did not answer within {} s", .timeout.as_secs())]
    Timeout {
        /// `host:port`.
        addr: String,
        /// How long it had.
        timeout: Duration,
    },
}

/// Which framings an agent may use inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Bare when the other end agrees by ALPN, WebSocket otherwise.
    Either,
    /// Bare only.
    Bare,
    /// WebSocket only.
    WebSocket,
}

impl Framing {
    /// The ALPN names to offer for it.
    #[must_use]
    pub const fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Either => &[ALPN, b"http/1.1"],
            Self::Bare => &[ALPN],
            Self::WebSocket => &[b"http/1.1"],
        }
    }
}

/// An agent's connected transport.
#[derive(Debug)]
pub enum Transport {
    /// Frames directly in TLS.
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
    /// Frames in a stream of a QUIC connection.
    Quic(Box<QuicIo>),
    /// Frames in binary WebSocket messages in TLS.
    WebSocket(Box<WebSocketIo<TlsStream<ReadAhead<TcpStream>>>>),
}

impl Transport {
    /// The word for status and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::WebSocket(_) => "websocket",
            Self::Quic(_) => "quic",
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::WebSocket(io) => Pin::new(io).poll_read(cx, buf),
            Self::Quic(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Self::WebSocket(io) => Pin::new(io).poll_write(cx, buf),
            Self::Quic(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::WebSocket(io) => Pin::new(io).poll_flush(cx),
            Self::Quic(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::WebSocket(io) => Pin::new(io).poll_shutdown(cx),
            Self::Quic(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// The way to a control port.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// Host name or address literal (IPv6 without brackets).
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// The one of the host's addresses to go to; `None`: whichever answers first. Without effect through a proxy.
    pub address: Option<IpAddr>,
    /// Through this proxy, which also resolves the name; `None`: directly.
    pub proxy: Option<&'a Proxy>,
}

impl Route<'_> {
    /// TCP to the other end of the route, through the proxy if there is one. Cancel safe.
    ///
    /// # Errors
    /// [`DialError`] says which hop failed.
    pub async fn connect(&self) -> Result<TcpStream, DialError> {
        let Some(proxy) = self.proxy else {
            let address = self.address.map(|address| address.to_string());
            return tcp::connect(address.as_deref().unwrap_or(self.host), self.port)
                .await
                .map_err(|source| DialError::Connect { addr: self.addr(), source });
        };
        let mut tcp = tcp::connect(proxy.host(), proxy.port())
            .await
            .map_err(|source| DialError::ProxyUnreachable { proxy: proxy.to_string(), source })?;
        proxy.open(&mut tcp, self.host, self.port).await.map_err(|source| DialError::Proxy {
            proxy: proxy.to_string(),
            addr: self.addr(),
            source,
        })?;
        Ok(tcp)
    }

    fn addr(&self) -> String {
        authority(self.host, self.port)
    }
}

/// A connected transport over which nothing has been said yet.
#[derive(Debug)]
pub struct Dialled {
    /// The bytes.
    pub io: Transport,
    /// What proofs on it are bound to.
    pub exporter: Exporter,
    /// `full`, or `resumed` with a ticket from an earlier connection, or [`UNKNOWN`].
    pub handshake: &'static str,
}

/// Connects to a gateway's control port within `timeout`. Cancel safe: a dropped dial leaves nothing behind.
///
/// `reached` is set when TCP, and the proxy if there is one, are through: whoever is there takes its time.
///
/// # Errors
/// [`DialError`] says which step failed.
pub async fn dial(
    route: Route<'_>,
    tls: &Arc<ClientConfig>,
    framing: Framing,
    timeout: Duration,
    reached: &AtomicBool,
) -> Result<Dialled, DialError> {
    tokio::time::timeout(timeout, try_dial(route, tls, framing, reached))
        .await
        .unwrap_or_else(|_elapsed| Err(DialError::Timeout { addr: route.addr(), timeout }))
}

async fn try_dial(
    route: Route<'_>,
    tls: &Arc<ClientConfig>,
    framing: Framing,
    reached: &AtomicBool,
) -> Result<Dialled, DialError> {
    let Route { host, port, address: _, proxy: _ } = route;
    let name = ServerName::try_from(host.to_owned()).map_err(|_invalid| DialError::Name(host.to_owned()))?;
    let tcp = route.connect().await?;
    reached.store(true, Ordering::Relaxed);
    let tls_failed = |source: io::Error| match source.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            DialError::Cleartext(route.addr())
        }
        _ => DialError::Tls { addr: route.addr(), source },
    };
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, ReadAhead::new(tcp));
    let mut stream = connecting.await.map_err(tls_failed)?;
    stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER));
    let handshake = handshake_label(stream.get_ref().1);
    let exporter = exporter(stream.get_ref().1).map_err(|e| tls_failed(io::Error::other(e)))?;
    let agreed = stream.get_ref().1.alpn_protocol() == Some(ALPN);
    let io = match (agreed, framing) {
        (true, Framing::Either | Framing::Bare) => Transport::Tls(Box::new(stream)),
        (false, Framing::Bare) => return Err(DialError::NoSessionProtocol(route.addr())),
        (_, Framing::Either | Framing::WebSocket) => {
            let uri = format!("wss://{}{CONNECT_PATH}", authority(host, port));
            let refused = |source| DialError::WebSocket { addr: route.addr(), source };
            let (socket, _response) = ClientBuilder::new()
                .uri(&uri)
                .map_err(|_uri| DialError::Name(host.to_owned()))?
                .add_header(http::header::USER_AGENT, HeaderValue::from_static("adit"))
                .map_err(refused)?
                .limits(limits())
                .connect_on(stream)
                .await
                .map_err(refused)?;
            Transport::WebSocket(Box::new(WebSocketIo::new(socket)))
        }
    };
    Ok(Dialled { io, exporter, handshake })
}

/// The same by QUIC, on the UDP port of the same number. `tls` is a configuration of its own: tickets of one kind of
/// connection are not for the other.
///
/// # Errors
/// [`DialError`] says what went wrong.
pub async fn dial_quic(
    route: Route<'_>,
    tls: &Arc<ClientConfig>,
    timeout: Duration,
) -> Result<Dialled, DialError> {
    if let Some(proxy) = route.proxy {
        return Err(DialError::QuicProxy(proxy.to_string()));
    }
    let (io, exporter) = tokio::time::timeout(timeout, quic::connect(route, tls))
        .await
        .unwrap_or_else(|_elapsed| Err(DialError::Timeout { addr: route.addr(), timeout }))?;
    Ok(Dialled { io: Transport::Quic(Box::new(io)), exporter, handshake: UNKNOWN })
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
