//! Turns one public connection into flows: HTTP/1.x behind the strict guard, HTTP/2 by ALPN or prior knowledge.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use adit_tunnel::scope::Scope;
use bytes::{Buf as _, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flow::{Connection, DataPlane, Held, carry};
use crate::forward::body::ResponseBody;
use crate::refusal::{Form, Refusal};

mod frames;
pub(crate) mod guard;
pub(crate) mod taking;

/// The first bytes of HTTP/2 (RFC 9113 §3.4); no HTTP/1.x request starts like this.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// HTTP/2 settings: what one connection may cost.
mod h2 {
    use std::time::Duration;

    /// Requests at once on one connection.
    pub(super) const MAX_STREAMS: u32 = 128;
    /// Bytes a client may send on a stream before they are consumed.
    pub(super) const STREAM_WINDOW: u32 = 128 * 1024;
    /// Bytes a client may send on a connection before they are consumed.
    pub(super) const CONNECTION_WINDOW: u32 = 1024 * 1024;
    /// Response bytes held per stream for a client that does not read.
    pub(super) const SEND_BUFFER: usize = 64 * 1024;
    /// Bytes of a request's decoded headers.
    pub(super) const MAX_HEADER_LIST: u32 = 64 * 1024;
    /// Requests a client may cancel, beside two for each one it lets complete.
    pub(super) const CANCEL_BUDGET: usize = 100;
    /// Silence after which a client is asked whether it is there.
    pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);
    /// How long its answer may take.
    pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);
}

/// What is known about a connection when it is accepted.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: &'static str,
    /// Settled by ALPN; otherwise the first bytes tell.
    pub(crate) is_http2: Option<bool>,
    pub(crate) held: Arc<Held>,
}

/// How long a drain waits for the first request of a new connection.
const LAST_CALL: Duration = Duration::from_millis(300);

/// What all connections of a gateway share.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) plane: Arc<DataPlane>,
    /// Cancelled when a drain begins: connections finish what they carry and close.
    pub(crate) draining: Scope,
    /// Owner of the connections and their tasks.
    pub(crate) connections: Scope,
}

impl Serving {
    pub(crate) fn new(plane: Arc<DataPlane>, connections: Scope) -> Self {
        Self { plane, draining: Scope::new(), connections }
    }

    /// The same for one listener, whose connections can be told to close without the others.
    pub(crate) fn of_listener(&self) -> Self {
        let draining = self.draining.child();
        Self { plane: Arc::clone(&self.plane), draining, connections: self.connections.clone() }
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve<IO>(mut io: IO, accepted: Accepted, serving: &Arc<Serving>)
where
    IO: AsyncRead + AsyncWrite + guard::Abort + Send + Unpin + 'static,
{
    let guard = serving.plane.live.guard();
    let (is_http2, first) = match accepted.is_http2 {
        Some(is_http2) => (is_http2, Bytes::new()),
        None => {
            let asked = Notify::new();
            let first_request = guard.idle_timeout.min(guard::FIRST_REQUEST);
            let sniffed = tokio::select! {
                biased;
                sniffed = tokio::time::timeout(first_request, sniff(&mut io, guard.header_timeout)) => sniffed,
                () = last_call(&serving.draining, &asked) => return,
            };
            match sniffed {
                Ok(Ok(sniffed)) => sniffed,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    };
    let io = Prefixed { first, io };
    // On the heap, each with the room it needs: a connection waits in here for most of its life.
    if is_http2 {
        Box::pin(serve_http2(io, accepted, &guard, serving)).await;
    } else {
        Box::pin(serve_http1(io, accepted, guard, serving)).await;
    }
}

/// Waits for a drain, and then a moment for the first request of a client that had connected before it. Nobody sends
/// that again when it fails; a later one that meets the end of its connection is.
async fn last_call(draining: &Scope, asked: &Notify) {
    draining.cancelled().await;
    drop(tokio::time::timeout(LAST_CALL, asked.notified()).await);
}

/// Reads just enough to tell HTTP/2 from anything else. A client that starts the preface and stops is cut off.
async fn sniff<IO: AsyncRead + Unpin>(io: &mut IO, timeout: Duration) -> io::Result<(bool, Bytes)> {
    let mut first = BytesMut::new();
    let mut deadline = None;
    loop {
        let read = io.read_buf(&mut first);
        let n = match deadline {
            None => read.await?,
            Some(deadline) => tokio::time::timeout_at(deadline, read).await??,
        };
        let seen = first.len().min(PREFACE.len());
        if n == 0 || first[..seen] != PREFACE[..seen] {
            return Ok((false, first.freeze()));
        }
        if seen == PREFACE.len() {
            return Ok((true, first.freeze()));
        }
        deadline.get_or_insert_with(|| Instant::now() + timeout);
    }
}

async fn serve_http1<IO>(
    io: Prefixed<IO>,
    accepted: Accepted,
    settings: Arc<guard::Settings>,
    serving: &Arc<Serving>,
) where
    IO: AsyncRead + AsyncWrite + guard::Abort + Send + Unpin + 'static,
{
    let Accepted { peer, scheme, is_http2: _, held } = accepted;
    let observe = serving.plane.observe.clone();
    let on_refusal =
        Box::new(move |refused: &guard::Refusal| observe.head_refused(refused.reason, peer.ip()));
    let heads = settings.limits;
    let (guarded, handle) = guard::Guard::new(io, settings, on_refusal);
    let connection = Arc::new(Connection::new(peer, scheme, Some(handle.clone())).holding(held));
    let asked = Notify::new();
    let service = service_fn(|request| {
        asked.notify_one();
        let (connection, plane) = (Arc::clone(&connection), Arc::clone(&serving.plane));
        let (handle, draining) = (handle.clone(), serving.draining.clone());
        // On the heap while there is a request, so that a connection without one does not hold its room.
        Box::pin(async move {
            let number = handle.request();
            let mut response = carry(request, &connection, &plane).await;
            // A connection that is to end may have waited for this request, and its client is told.
            if handle.is_body_open(number) || draining.is_cancelled() {
                close_behind(&mut response);
            }
            Ok::<_, Infallible>(response)
        })
    });
    let library = library(&heads);
    let leaving = last_call(&serving.draining, &asked);
    if let Err(error) = guard::rest::serve(&library, guarded, &handle, service, leaving).await {
        tracing::debug!(%peer, %error, "a public connection ended early");
    }
}

/// The HTTP/1 library behind the guard.
fn library(limits: &guard::Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The guard keeps its own, stricter ones.
        .header_read_timeout(None)
        .max_headers(limits.max_headers.saturating_add(1))
        .max_buf_size(limits.max_header_bytes.max(8192).saturating_mul(2));
    builder
}

/// Says that the connection ends with this response: because it is to, or because the response did not wait for the
/// request's body, and what is left of the body stands between it and the next request (RFC 9112 §9.3).
fn close_behind(response: &mut Response<ResponseBody>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// One request of an HTTP/2 connection, which has to keep the rules that the guard sees to in HTTP/1.x.
async fn carry_strictly(
    request: Request<Incoming>,
    connection: &Connection,
    serving: &Serving,
) -> Response<ResponseBody> {
    let plane = &serving.plane;
    match guard::strict::check(&request, &plane.live.guard().limits) {
        Ok(()) => carry(request, connection, plane).await,
        Err(refusal) => {
            let form = Form::wanted(request.headers());
            let record = plane.observe.begin(&request, connection);
            tracing::debug!(reason = %refusal.reason, detail = refusal.detail, "refused");
            Refusal::new(refusal.reason, refusal.detail).into_response(form, record)
        }
    }
}

async fn serve_http2<IO>(
    io: Prefixed<IO>,
    accepted: Accepted,
    settings: &guard::Settings,
    serving: &Arc<Serving>,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Accepted { peer, scheme, is_http2: _, held } = accepted;
    let connection = Arc::new(Connection::new(peer, scheme, None).holding(held));
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request| {
        let (connection, serving) = (Arc::clone(&connection), Arc::clone(serving));
        let active = Active::new(&activity);
        async move {
            let response = carry_strictly(request, &connection, &serving).await;
            active.completed();
            Ok::<_, Infallible>(response)
        }
    });
    let spawner = Spawner {
        scope: serving.connections.clone(),
        stall_timeout: settings.stall_timeout,
        activity: Arc::clone(&activity),
    };
    let watched = frames::Watched::new(io, settings.header_timeout, settings.stall_timeout);
    let served = http2::Builder::new(spawner)
        .timer(TokioTimer::new())
        .max_concurrent_streams(h2::MAX_STREAMS)
        .initial_stream_window_size(h2::STREAM_WINDOW)
        .initial_connection_window_size(h2::CONNECTION_WINDOW)
        .max_send_buf_size(h2::SEND_BUFFER)
        .max_header_list_size(h2::MAX_HEADER_LIST)
        .keep_alive_interval(h2::KEEP_ALIVE)
        .keep_alive_timeout(h2::KEEP_ALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(watched), service);
    let mut served = pin!(served);
    let going_on = either(serving.draining.cancelled(), activity.idle_for(settings.idle_timeout));
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = activity.abused.notified() => return activity.cut_off(peer),
        () = going_on => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                result = served.as_mut() => result,
                () = activity.abused.notified() => return activity.cut_off(peer),
                // The client was told to leave, and has no request that it could be waiting for.
                () = activity.unused_for(settings.header_timeout) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a public connection ended early");
    }
}

async fn either(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    tokio::select! {
        () = a => {}
        () = b => {}
    }
}

/// Requests on an HTTP/2 connection, to know when it has been idle, and whether its client only makes work: asking
/// and cancelling costs the client nothing and everybody behind the gateway a lot (CVE-2023-44487).
#[derive(Debug, Default)]
struct Activity {
    /// Requests whose responses are not through.
    open: AtomicUsize,
    started: AtomicUsize,
    completed: AtomicUsize,
    cancelled: AtomicUsize,
    abused: Notify,
}

impl Activity {
    /// Ends when no request was there for a whole `timeout`, or none came soon enough after the accept.
    async fn idle_for(&self, timeout: Duration) {
        let mut seen = 0;
        let mut patience = timeout.min(guard::FIRST_REQUEST);
        loop {
            tokio::time::sleep(patience).await;
            let started = self.started.load(Ordering::Relaxed);
            if started == seen && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = started;
            patience = timeout;
        }
    }

    /// Ends at the end of a `timeout` when no request is open.
    async fn unused_for(&self, timeout: Duration) {
        loop {
            tokio::time::sleep(timeout).await;
            if self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    fn cut_off(&self, peer: SocketAddr) {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        tracing::debug!(%peer, cancelled, "a client that cancels nearly everything it asks for is cut off");
    }
}

/// A stream whose response is not through.
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request under way; cancelled if it is dropped before it is completed.
struct Active {
    activity: Arc<Activity>,
    is_completed: bool,
}

impl Active {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.started.fetch_add(1, Ordering::Relaxed);
        Self { activity: Arc::clone(activity), is_completed: false }
    }
}

impl Active {
    fn completed(mut self) {
        self.is_completed = true;
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let activity = &self.activity;
        if self.is_completed {
            activity.completed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let cancelled = activity.cancelled.fetch_add(1, Ordering::Relaxed) + 1;
        let completed = activity.completed.load(Ordering::Relaxed);
        if cancelled > h2::CANCEL_BUDGET.saturating_add(completed.saturating_mul(2)) {
            activity.abused.notify_one();
        }
    }
}

/// Lets the HTTP/2 library spawn where drains can wait for it.
#[derive(Debug, Clone)]
struct Spawner {
    scope: Scope,
    stall_timeout: Duration,
    activity: Arc<Activity>,
}

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let open = Open::new(&self.activity);
        let watched = taking::watched(future, self.stall_timeout);
        self.scope.spawn("http/2 stream", async move {
            watched.await;
            drop(open);
        });
    }
}

/// A connection whose first bytes were read already.
#[derive(Debug)]
struct Prefixed<IO> {
    first: Bytes,
    io: IO,
}

impl<IO: guard::Abort> guard::Abort for Prefixed<IO> {
    fn abort(&self) {
        self.io.abort();
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..n]);
        self.first.advance(n);
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

adit_tunnel::forward_writes!(Prefixed);
