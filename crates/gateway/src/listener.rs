//! Accepts public connections: one slot each, TLS within its time, and no spinning when the system is out of files.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_tunnel::scope::Scope;
use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::flow::Held;
use crate::http::guard::Abort as _;
use crate::http::{self, Accepted, Serving};
use crate::proxied;
use crate::server::StartError;

/// Connections the kernel holds while none is accepted.
const BACKLOG: u32 = 4096;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);

/// Binds an address for many connections. A dual-stack address takes IPv4 too, where the system allows it.
///
/// # Errors
/// What the system said.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // So that a restart need not wait for the connections of its former life.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    // Silence ends no upgraded and no TCP connection; a client that is gone has to.
    adit_tunnel::socket::keep_alive(&socket)?;
    socket.listen(BACKLOG)
}

/// Uses the socket that was handed over for this address, or binds one. Says where it is bound.
///
/// # Errors
/// [`StartError::Bind`] says what the socket is for.
pub(crate) fn bind_as(
    purpose: &'static str,
    addr: SocketAddr,
    inherited: Option<io::Result<TcpListener>>,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { purpose, addr, source };
    let listener = inherited.unwrap_or_else(|| bind(addr)).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Accepts for ever and hands each connection, with its slot, to `serve`.
pub(crate) async fn accept_all<A, F>(mut accept: A, slots: Arc<Semaphore>, mut serve: F)
where
    A: FnMut(&mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>,
    F: FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
{
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let mut slot = Some(slot);
        let accepted = poll_fn(|cx| {
            let Some(slot) = slot.take() else { return Poll::Ready(None) };
            // Let go of while nobody is there: listeners that wait would leave no slots for connections.
            accept(cx).map(|accepted| Some((accepted, slot)))
        });
        let Some((accepted, slot)) = accepted.await else { continue };
        match accepted {
            Ok((tcp, peer)) => {
                // Small answers must not wait for an acknowledgement; if it fails the connection is gone anyway.
                if tcp.set_nodelay(true).is_ok() {
                    serve(tcp, peer, slot);
                }
            }
            Err(error) => {
                drop(slot);
                // Most often out of file descriptors: what is open goes on, and trying at once would only spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What a public listener expects of a connection before HTTP begins.
#[derive(Clone)]
pub(crate) struct Face {
    pub(crate) tls: Option<TlsAcceptor>,
    /// A balancer's PROXY header comes first.
    pub(crate) lb_proxy_protocol: bool,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tls, lb_proxy_protocol) = (self.tls.is_some(), self.lb_proxy_protocol);
        f.debug_struct("Face").field("tls", &tls).field("lb_proxy_protocol", &lb_proxy_protocol).finish()
    }
}

/// Serves one public listener until it is to be drained or its scope ends.
pub(crate) async fn run(listener: TcpListener, face: Arc<ArcSwap<Face>>, serving: Arc<Serving>) {
    let slots = Arc::clone(serving.plane.live.slots());
    let connections: Scope = serving.connections.clone();
    let draining = serving.draining.clone();
    let mut take = |tcp, peer, slot| {
        // As it is now: a listener can change what it expects.
        let (face, serving) = (face.load_full(), Arc::clone(&serving));
        connections.spawn_with("public connection", tcp, move |tcp| async move {
            serve(tcp, (peer, slot), &face, &serving).await;
        });
    };
    tokio::select! {
        () = accept_all(|cx| listener.poll_accept(cx), Arc::clone(&slots), &mut take) => {}
        () = draining.cancelled() => {}
    }
    // The system has accepted these in our name; closing the listener would break them.
    tokio::task::unconstrained(accept_waiting(&listener, &slots, take)).await;
}

/// Takes the connections that wait to be accepted, as far as there are slots, and no others.
async fn accept_waiting<F>(listener: &TcpListener, slots: &Arc<Semaphore>, mut serve: F)
where
    F: FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
{
    for _ in 0..BACKLOG {
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else { return };
        let waiting = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
        let Poll::Ready(Ok((tcp, peer))) = waiting else { return };
        if tcp.set_nodelay(true).is_ok() {
            serve(tcp, peer, slot);
        }
    }
}

async fn serve(
    mut tcp: TcpStream,
    (mut peer, slot): (SocketAddr, OwnedSemaphorePermit),
    face: &Face,
    serving: &Arc<Serving>,
) {
    let timeout = serving.plane.live.limits().header_timeout;
    if face.lb_proxy_protocol {
        let snapshot = serving.plane.snapshots.current();
        match Box::pin(proxied::ends(&mut tcp, peer, snapshot.rules(), timeout)).await {
            Ok(ends) => peer = ends.map_or(peer, |ends| ends.source),
            Err(reason) => {
                serving.plane.observe.head_refused(reason, peer.ip().to_canonical());
                return tcp.abort();
            }
        }
    }
    let share = serving.plane.live.share(peer.ip(), serving.plane.snapshots.current().rules());
    let share = match share {
        Ok(share) => share,
        Err(reason) => {
            serving.plane.observe.head_refused(reason, peer.ip().to_canonical());
            return tcp.abort();
        }
    };
    let held = Held::new(slot, share, serving.plane.observe.connection());
    if let Some(tls) = face.tls.clone() {
        return Box::pin(serve_tls(tcp, (peer, held), tls, serving)).await;
    }
    let accepted = Accepted { peer, scheme: "http", is_http2: None, held };
    http::serve(tcp, accepted, serving).await;
}

async fn serve_tls(
    tcp: TcpStream,
    (peer, held): (SocketAddr, Arc<Held>),
    tls: TlsAcceptor,
    serving: &Arc<Serving>,
) {
    let timeout = serving.plane.live.limits().header_timeout;
    match tokio::time::timeout(timeout, tls.accept(tcp)).await {
        Ok(Ok(stream)) => {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let accepted = Accepted { peer, scheme: "https", is_http2: Some(is_http2), held };
            http::serve(stream, accepted, serving).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_elapsed) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}
