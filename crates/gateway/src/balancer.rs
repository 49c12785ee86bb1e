//! Picks an endpoint and gives out an HTTP connection to its upstream: an idle one if there is one, else a new
//! stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_control::Permit;
use adit_proto::handshake::Offer;
use adit_proto::header::StreamHeader;
use adit_proto::names::{InstanceId, ServiceName};
use adit_proto::reason::Reason;
use adit_tunnel::session::{Session, Stream};
use adit_tunnel::stream::Watch;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::flow::DataPlane;
use crate::forward::body::RequestBody;
use crate::grants::Grant;
use crate::live::Live;
use crate::sessions::Service;

/// An idle connection older than this is not used for a request that must not be sent twice: upstreams close idle
/// connections after some seconds, and such a request could cross the close.
const FRESH: Duration = Duration::from_secs(2);
/// Largest head of an upstream's response, in bytes.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;

/// What a stream is opened for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errand<'a> {
    /// The right it rests on.
    pub(crate) grant: &'a Grant,
    /// Who connected, for the agent's log.
    pub(crate) client: Option<SocketAddr>,
    /// How long the agent may take to connect to the upstream.
    pub(crate) connect_timeout: Duration,
}

/// One live offer of a service by one session.
#[derive(Debug)]
pub(crate) struct Endpoint {
    session: Session,
    /// As it was offered; what it is served as may be another.
    offered: ServiceName,
    /// Tells it from the other offers of its session.
    number: u32,
    pub(crate) instance: InstanceId,
    /// What stands behind it, for the log.
    pub(crate) upstream: Arc<str>,
    idle: Mutex<Vec<Idle>>,
    live: Arc<Live>,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    watch: Watch,
    since: Instant,
}

impl Endpoint {
    pub(crate) fn new(
        session: Session,
        offer: &Offer,
        number: u32,
        instance: InstanceId,
        live: Arc<Live>,
    ) -> Self {
        Self {
            session,
            offered: offer.service.clone(),
            number,
            instance,
            upstream: offer.upstream.as_str().into(),
            idle: Mutex::default(),
            live,
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && self.session.is_open()
    }

    /// Takes no more requests; idle streams are closed.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        drop(std::mem::take(&mut *self.idle.lock()));
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self, max_idle: Duration) {
        let mut idle = self.idle.lock();
        let (keep, old): (Vec<_>, Vec<_>) =
            idle.drain(..).partition(|idle| idle.since.elapsed() < max_idle && !idle.sender.is_closed());
        *idle = keep;
        idle.shrink_to(64);
        drop(idle);
        drop(old);
    }

    /// The most recently used connection that can take a request now.
    fn take_idle(self: &Arc<Self>, max_age: Option<Duration>) -> Option<Lease> {
        let mut dead = Vec::new();
        let mut idle = self.idle.lock();
        let mut at = idle.len();
        let mut found = None;
        while at > 0 {
            at -= 1;
            if idle[at].sender.is_closed() {
                dead.push(idle.swap_remove(at));
            } else if max_age.is_some_and(|max| idle[at].since.elapsed() > max) {
                break;
            } else if idle[at].sender.is_ready() {
                found = Some(idle.remove(at));
                break;
            }
        }
        drop(idle);
        drop(dead);
        let Idle { sender, watch, since: _ } = found?;
        Some(Lease { endpoint: Arc::clone(self), sender, watch, is_reused: true, is_reusable: true })
    }

    /// Opens a stream and leaves it as it is. Waits for nothing.
    ///
    /// # Errors
    /// Why the session takes no new streams.
    pub(crate) fn open_stream(&self, errand: &Errand<'_>) -> Result<Stream, Reason> {
        let header = StreamHeader {
            service: self.offered.clone(),
            client_addr: errand.client,
            connect_timeout: errand.connect_timeout,
        };
        self.session.open_tagged(&header, errand.grant.tag(self.number).into())
    }

    /// Opens a stream and speaks HTTP/1.1 on it. Waits for nothing: the request travels behind the open.
    async fn open(self: &Arc<Self>, errand: &Errand<'_>, plane: &DataPlane) -> Result<Lease, Reason> {
        let stream = self.open_stream(errand)?;
        let watch = stream.watch();
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_RESPONSE_HEAD)
            .max_headers(100)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_closed| watch.end().unwrap_or(Reason::UpstreamClosed))?;
        plane.scope.spawn("upstream connection", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended early");
            }
        });
        Ok(Lease { endpoint: Arc::clone(self), sender, watch, is_reused: false, is_reusable: true })
    }
}

/// An HTTP connection to an upstream, for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) watch: Watch,
    /// It has served a request before, so its upstream may be about to close it.
    pub(crate) is_reused: bool,
    /// It may serve another request when this one is done.
    pub(crate) is_reusable: bool,
}

impl Lease {
    /// The request and its response are complete: somebody else may use the connection.
    pub(crate) fn give_back(self) {
        let Self { endpoint, sender, watch, is_reused: _, is_reusable } = self;
        if !is_reusable || sender.is_closed() || !endpoint.is_open() {
            return;
        }
        let max_idle = endpoint.live.limits().max_idle_streams;
        let mut idle = endpoint.idle.lock();
        if idle.len() < max_idle {
            idle.push(Idle { sender, watch, since: Instant::now() });
        }
    }
}

/// Which connections will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Any: the request may be sent again if the connection turns out to be stale.
    Any,
    /// New, or used a moment ago.
    Fresh,
    /// New.
    New,
}

/// Picks an endpoint round robin and a connection to it. When no agent is there, waits for one to come back.
///
/// # Errors
/// Why no endpoint took the stream; [`Reason::NoAgent`] when there is none.
pub(crate) async fn lease(
    service: &Service,
    permit: &Permit,
    wanted: Wanted,
    errand: &Errand<'_>,
    plane: &DataPlane,
) -> Result<Lease, Reason> {
    debug_assert_eq!(permit.service(), &service.name, "a permit is for one service");
    let deadline = Instant::now() + plane.live.limits().agent_wait;
    loop {
        let mut refused = Reason::NoAgent;
        for endpoint in service.endpoints().filter(|endpoint| endpoint.is_open()) {
            let idle = match wanted {
                Wanted::Any => endpoint.take_idle(None),
                Wanted::Fresh => endpoint.take_idle(Some(FRESH)),
                Wanted::New => None,
            };
            if let Some(lease) = idle {
                return Ok(lease);
            }
            match endpoint.open(errand, plane).await {
                Ok(lease) => return Ok(lease),
                Err(reason) => refused = reason,
            }
        }
        // An agent that overloads or drains is not gone, but there is nothing else to try either.
        if !service.wait_for_endpoint(deadline).await || Instant::now() >= deadline {
            return Err(refused);
        }
        if refused != Reason::NoAgent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
