//! What carries a session: TLS on TCP, bare or with WebSocket framing inside.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_proto::handshake::ALPN;
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use http::HeaderValue;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use crate::proof::Exporter;
use crate::tls::exporter;

/// The path of the WebSocket transport on the control port.
pub const CONNECT_PATH: &str = "/connect";
/// Largest WebSocket message either side sends; a larger one is refused.
const MAX_MESSAGE: usize = 1024 * 1024;
/// How long TCP may take. Short, because the kernel repeats a lost first packet ever more slowly: after an outage a
/// fresh attempt gets through sooner than an old one.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long the kernel may hold bytes the other end has not acknowledged.
#[cfg(any(target_os = "linux", target_os = "android"))]
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of one WebSocket message this side sends.
const MESSAGE: usize = 64 * 1024;

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
    /// TLS failed; most often the certificate.
    #[error("TLS with {addr} failed")]
    Tls {
        /// `host:port`.
        addr: String,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
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
    Tls(Box<TlsStream<TcpStream>>),
    /// Frames in binary WebSocket messages in TLS.
    WebSocket(Box<WebSocketIo<TlsStream<TcpStream>>>),
}

impl Transport {
    /// The word for status and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::WebSocket(_) => "websocket",
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::WebSocket(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Self::WebSocket(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::WebSocket(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::WebSocket(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Connects to a gateway's control port within `timeout`. Cancel safe: a dropped dial leaves nothing behind.
///
/// # Errors
/// [`DialError`] says which step failed.
pub async fn dial(
    host: &str,
    port: u16,
    tls: &Arc<ClientConfig>,
    framing: Framing,
    timeout: Duration,
) -> Result<(Transport, Exporter), DialError> {
    let addr = format!("{host}:{port}");
    tokio::time::timeout(timeout, try_dial(host, port, &addr, tls, framing))
        .await
        .unwrap_or_else(|_elapsed| Err(DialError::Timeout { addr, timeout }))
}

async fn try_dial(
    host: &str,
    port: u16,
    addr: &str,
    tls: &Arc<ClientConfig>,
    framing: Framing,
) -> Result<(Transport, Exporter), DialError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_invalid| DialError::Name(host.to_owned()))?;
    let connect_failed = |source| DialError::Connect { addr: addr.to_owned(), source };
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)));
    let tcp =
        connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(connect_failed)?;
    tune(&tcp).map_err(connect_failed)?;
    let tls_failed = |source| DialError::Tls { addr: addr.to_owned(), source };
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(tls_failed)?;
    let keys = exporter(stream.get_ref().1).map_err(|e| tls_failed(io::Error::other(e)))?;
    let agreed = stream.get_ref().1.alpn_protocol() == Some(ALPN);
    match (agreed, framing) {
        (true, Framing::Either | Framing::Bare) => Ok((Transport::Tls(Box::new(stream)), keys)),
        (false, Framing::Bare) => Err(DialError::NoSessionProtocol(addr.to_owned())),
        (_, Framing::Either | Framing::WebSocket) => {
            let uri = format!("wss://{}{CONNECT_PATH}", authority(host, port));
            let refused = |source| DialError::WebSocket { addr: addr.to_owned(), source };
            let (socket, _response) = ClientBuilder::new()
                .uri(&uri)
                .map_err(|_uri| DialError::Name(host.to_owned()))?
                .add_header(http::header::USER_AGENT, HeaderValue::from_static("adit"))
                .map_err(refused)?
                .limits(limits())
                .connect_on(stream)
                .await
                .map_err(refused)?;
            Ok((Transport::WebSocket(Box::new(WebSocketIo::new(socket))), keys))
        }
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Settings every TCP connection of a session needs: no delay for small writes (both ends batch themselves), and
/// the kernel's own probes and its limit on unacknowledged bytes as a second net under our own probes.
///
/// # Errors
/// What the system said.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)),
    )
}

/// The bounds on WebSocket messages, for both sides.
#[must_use]
pub fn limits() -> Limits {
    Limits::default().max_payload_len(Some(MAX_MESSAGE))
}

/// A byte stream in binary WebSocket messages.
#[derive(Debug)]
pub struct WebSocketIo<S> {
    socket: WebSocketStream<S>,
    pending: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketIo<S> {
    /// Wraps an upgraded connection.
    pub const fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, pending: Bytes::new() }
    }
}

fn broken(error: tokio_websockets::Error) -> io::Error {
    io::Error::other(error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.pending.is_empty() {
            let message = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                Some(Ok(message)) => message,
            };
            if message.is_binary() {
                self.pending = message.into_payload().into();
            } else if message.is_close() {
                return Poll::Ready(Ok(()));
            } else if message.is_text() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a text message in a session",
                )));
            }
        }
        let n = self.pending.len().min(buf.remaining());
        buf.put_slice(&self.pending.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(broken)?;
        let n = buf.len().min(MESSAGE);
        let message = Message::binary(Bytes::copy_from_slice(&buf[..n]));
        Pin::new(&mut self.socket).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(broken)
    }
}
