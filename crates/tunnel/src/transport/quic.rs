//! QUIC on the control port's UDP port: a session runs in the first bidirectional stream of a connection.
//!
//! This file is what both sides share and how an agent dials; `listen` is the gateway's side.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, RecvStream, SendStream, TokioRuntime, TransportConfig,
};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::race::{addresses, race};
use super::{DialError, Route};
use crate::proof::{EXPORTER_LABEL, EXPORTER_LEN, Exporter};

mod listen;
mod rate;
pub use listen::{Arriving, Listener};
use rate::ByRate;

/// Bytes of one stream, and of all together, that may be under way to this side and unread. Enough for 1 Gbit/s over
/// 100 ms; memory is only held for what has arrived. Streams of a session have their own, smaller windows inside.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
const WINDOW: u32 = 32 * 1024 * 1024;
/// What somebody may send who has proved nothing: a hello and its frame, with room to spare.
const UNPROVED_WINDOW: u32 = 128 * 1024;
/// Bytes sent and not acknowledged, which this side holds to send again.
const SEND_WINDOW: u64 = 16 * 1024 * 1024;
/// A path that carries nothing for so long is dead. The session's own probes most often know sooner.
const IDLE: Duration = Duration::from_secs(15);
/// How often an agent's connection says something into silence. It keeps mappings on the way open, and finds out that
/// the gateway was started again, which answers with a reset.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Bytes of socket buffer that are asked for; the system may give less.
const SOCKET_BUFFER: usize = 7 * 1024 * 1024;

/// Which settings apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Agent,
    Gateway,
}

fn settings(role: Role) -> Arc<TransportConfig> {
    let mut settings = TransportConfig::default();
    settings
        .stream_receive_window(STREAM_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_concurrent_uni_streams(0_u8.into())
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(ByRate));
    match role {
        Role::Agent => settings
            .receive_window(WINDOW.into())
            .max_concurrent_bidi_streams(0_u8.into())
            .keep_alive_interval(Some(KEEP_ALIVE)),
        Role::Gateway => {
            settings.receive_window(UNPROVED_WINDOW.into()).max_concurrent_bidi_streams(1_u8.into())
        }
    };
    Arc::new(settings)
}

/// A UDP socket with large buffers. A dual-stack address takes IPv4 too, where the system allows it.
fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // Some systems have no such choice; then it is what it is.
        drop(socket.set_only_v6(false));
    }
    socket.bind(&addr.into())?;
    let socket = UdpSocket::from(socket);
    let buffers = SockRef::from(&socket);
    // The system gives at most its limit (net.core.rmem_max, wmem_max), and that is fine: it only costs packets that
    // come faster than they are read.
    drop(buffers.set_recv_buffer_size(SOCKET_BUFFER));
    drop(buffers.set_send_buffer_size(SOCKET_BUFFER));
    Ok(socket)
}

fn endpoint_on(
    socket: UdpSocket,
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> io::Result<Endpoint> {
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime))
}

fn exporter(connection: &Connection) -> io::Result<Exporter> {
    let mut exporter = [0; EXPORTER_LEN];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
        .map_err(|_no_details| io::Error::other("the connection has no keying material"))?;
    Ok(exporter)
}

/// A client's TLS configuration in the form QUIC wants it.
///
/// # Errors
/// The cryptography library lacks the suite that QUIC begins with.
pub(super) fn client_config(tls: &Arc<ClientConfig>) -> io::Result<quinn::ClientConfig> {
    let crypto = QuicClientConfig::try_from(Arc::clone(tls)).map_err(io::Error::other)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(settings(Role::Agent));
    Ok(config)
}

/// Connects to the UDP port of a route. Each try has a socket of its own: what is wrong with the last path does not
/// follow. Cancel safe.
pub(super) async fn connect(
    route: Route<'_>,
    tls: &Arc<ClientConfig>,
) -> Result<(QuicIo, Exporter), DialError> {
    let failed = |source| DialError::Quic { addr: route.addr(), source };
    let config = client_config(tls).map_err(failed)?;
    let connecting = |address: SocketAddr| {
        let config = config.clone();
        async move {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let endpoint = endpoint_on(bind(any)?, EndpointConfig::default(), None)?;
            let connecting = endpoint.connect_with(config, address, route.host).map_err(io::Error::other)?;
            connecting.await.map_err(io::Error::from)
        }
    };
    let addresses = match route.address {
        Some(address) => vec![SocketAddr::new(address, route.port)],
        None => addresses(route.host, route.port).await.map_err(failed)?,
    };
    let connection = race(addresses, connecting).await.map_err(failed)?;
    let exporter = exporter(&connection).map_err(failed)?;
    let (send, recv) = connection.open_bi().await.map_err(|cause| failed(cause.into()))?;
    Ok((QuicIo::new(connection, send, recv), exporter))
}

/// How a connection is doing.
#[derive(Debug, Clone, Copy)]
pub struct PathState {
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// Packets sent so far.
    pub sent: u64,
    /// Of these, believed lost.
    pub lost: u64,
    /// Bytes that may be under way.
    pub window: u64,
}

/// Tells how a connection is doing, for as long as it lives.
#[derive(Debug, Clone)]
pub struct PathProbe(Weak<Connection>);

impl PathProbe {
    /// The state now; `None` once the connection is gone.
    #[must_use]
    pub fn state(&self) -> Option<PathState> {
        let connection = self.0.upgrade()?;
        let path = connection.stats().path;
        Some(PathState { rtt: path.rtt, sent: path.sent_packets, lost: path.lost_packets, window: path.cwnd })
    }
}

/// A byte stream in a QUIC connection of its own. Dropping it closes the connection; what was written before it was
/// shut down has arrived by then.
pub struct QuicIo {
    send: SendStream,
    recv: RecvStream,
    connection: Arc<Connection>,
    /// Waits, once the stream is finished, until the other side has all of it.
    delivered: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl QuicIo {
    fn new(connection: Connection, send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv, connection: Arc::new(connection), delivered: None }
    }

    /// What tells how the connection is doing. It does not keep it open.
    #[must_use]
    pub fn probe(&self) -> PathProbe {
        PathProbe(Arc::downgrade(&self.connection))
    }
}

impl fmt::Debug for QuicIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuicIo").field(&self.connection.remote_address()).finish()
    }
}

impl AsyncRead for QuicIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf)
    }
}

impl AsyncWrite for QuicIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let delivered = this.delivered.get_or_insert_with(|| {
            // Finished already means that somebody asked before.
            drop(this.send.finish());
            let stopped = this.send.stopped();
            Box::pin(async move { drop(stopped.await) })
        });
        ready!(delivered.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}
