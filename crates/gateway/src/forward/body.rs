//! Bodies on their way through: counted as they move, never buffered, and their end is the end of the flow.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::StatusCode;
use adit_proto::reason::Reason;
use adit_tunnel::stream::StreamError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::headers;
use crate::balancer::Lease;
use crate::http::guard;
use crate::http::taking::{Sending, Taking};
use crate::observe::{Record, ServiceCounters};

/// How long a body that the client holds back waits for the upstream's `100 Continue` before it is asked for anyway
/// (RFC 9110 §10.1.1: a server may omit it).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// How a request's body will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    /// There is none.
    Empty,
    /// Unasked.
    AtOnce,
    /// When the client has seen a `100 Continue`.
    HeldBack,
}

/// Interim responses an upstream may send before its answer.
const MAX_INTERIMS: u32 = 32;

/// What the two directions of a flow know of each other.
#[derive(Debug)]
pub(crate) struct Progress {
    received: AtomicU64,
    request_done: AtomicBool,
    /// Why the client's body failed; [`Reason::Done`] while it did not.
    client_failure: AtomicU16,
    held_back: AtomicBool,
    body_refused: AtomicBool,
    interims: AtomicU32,
    holder: Mutex<Option<std::task::Waker>>,
    counters: Option<ServiceCounters>,
}

impl Progress {
    pub(crate) fn new(counters: Option<ServiceCounters>, upload: Upload) -> Arc<Self> {
        Arc::new(Self {
            received: AtomicU64::new(0),
            request_done: AtomicBool::new(upload == Upload::Empty),
            client_failure: AtomicU16::new(Reason::Done.code()),
            held_back: AtomicBool::new(upload == Upload::HeldBack),
            body_refused: AtomicBool::new(false),
            interims: AtomicU32::new(0),
            holder: Mutex::new(None),
            counters,
        })
    }

    /// Bytes of the request's body so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Why the client's body failed, if it did.
    pub(crate) fn client_failure(&self) -> Option<Reason> {
        let reason = Reason::from_code(self.client_failure.load(Ordering::Relaxed));
        (reason != Reason::Done).then_some(reason)
    }

    /// The head of the upstream's response is here. With a success the body may still be wanted; anything else, sent
    /// instead of a `100 Continue`, refuses a body that is held back, and it is not asked for any more.
    pub(crate) fn answered(&self, status: StatusCode) {
        let refuses = !status.is_success() && !status.is_informational();
        if refuses && self.held_back.load(Ordering::Acquire) {
            self.body_refused.store(true, Ordering::Release);
        } else {
            self.go_on();
        }
    }

    /// Counts an interim response; whether there were too many.
    pub(crate) fn is_over_interims(&self) -> bool {
        self.interims.fetch_add(1, Ordering::Relaxed) >= MAX_INTERIMS
    }

    /// The upstream refused the body unread.
    pub(crate) fn is_body_refused(&self) -> bool {
        self.body_refused.load(Ordering::Acquire)
    }

    /// The upstream wants the body.
    pub(crate) fn go_on(&self) {
        if self.held_back.swap(false, Ordering::AcqRel)
            && let Some(waker) = self.holder.lock().take()
        {
            waker.wake();
        }
    }
}

/// The client's body towards the upstream.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: Option<Source>,
    hold: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    progress: Arc<Progress>,
    /// Times the client of an HTTP/2 stream; the guard does it for HTTP/1.x.
    sending: Option<Sending>,
}

impl RequestBody {
    pub(crate) const fn empty() -> Self {
        Self { source: None, hold: None }
    }

    pub(crate) fn incoming(incoming: Incoming, progress: Arc<Progress>) -> Self {
        Self { source: Some(Source { incoming, progress, sending: Sending::current() }), hold: None }
    }

    /// Takes the client's body back out of a request that was never sent.
    pub(crate) fn into_incoming(self) -> Option<Incoming> {
        self.source.map(|source| source.incoming)
    }

    /// A client that sent `Expect: 100-continue` sends its body once it is asked to, and asking is polling it.
    fn poll_hold(hold: &mut Option<Pin<Box<Sleep>>>, progress: &Progress, cx: &mut Context<'_>) -> Poll<()> {
        if !progress.held_back.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *progress.holder.lock() = Some(cx.waker().clone());
        if !progress.held_back.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let sleep = hold.get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
        ready!(sleep.as_mut().poll(cx));
        if progress.is_body_refused() {
            // The stream is reset when the response is complete.
            return Poll::Pending;
        }
        progress.held_back.store(false, Ordering::Release);
        Poll::Ready(())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { source, hold } = &mut *self;
        let Some(Source { incoming, progress, sending }) = source else { return Poll::Ready(None) };
        ready!(Self::poll_hold(hold, progress, cx));
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        if let Some(sending) = sending {
            sending.polled(polled.is_pending());
        }
        let polled = ready!(polled).map(|frame| frame.map(cleaned));
        match &polled {
            None => progress.request_done.store(true, Ordering::Release),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let len = data.len() as u64;
                    progress.received.fetch_add(len, Ordering::Relaxed);
                    if let Some(counters) = &progress.counters {
                        counters.bytes_in(len);
                    }
                }
                if incoming.is_end_stream() {
                    progress.request_done.store(true, Ordering::Release);
                }
            }
            Some(Err(error)) => progress.client_failure.store(client_reason(error).code(), Ordering::Relaxed),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(|source| source.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or_else(|| SizeHint::with_exact(0), |source| source.incoming.size_hint())
    }
}

/// A trailer section without what it must not bring; anything else as it is.
fn cleaned(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.into_trailers().map_or_else(
        |data| data,
        |mut fields| {
            headers::clean_trailers(&mut fields);
            Frame::trailers(fields)
        },
    )
}

/// Why a client's body ended early.
fn client_reason(error: &hyper::Error) -> Reason {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if let Some(refused) = io.get_ref().and_then(|e| e.downcast_ref::<guard::Refusal>()) {
                return refused.reason;
            }
            if io.kind() == io::ErrorKind::TimedOut {
                return Reason::RequestTimeout;
            }
        }
        next = error.source();
    }
    if error.is_parse() { Reason::BadRequest } else { Reason::ClientGone }
}

/// A response's body towards the client.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    None,
    Page { page: Option<Bytes>, record: Box<Record> },
    Upstream(Box<Upstream>),
}

#[derive(Debug)]
struct Upstream {
    incoming: Incoming,
    /// Given back when the exchange is complete, reset when it is not.
    lease: Option<Lease>,
    progress: Arc<Progress>,
    /// For HTTP/2.
    taking: Option<Arc<Taking>>,
    record: Record,
}

/// Why a response's body was cut; the client sees a connection that ends early, never a body that looks complete.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut: {0}")]
pub(crate) struct Cut(Reason);

impl ResponseBody {
    /// Nothing at all; whoever made the response keeps the record.
    pub(crate) const fn none() -> Self {
        Self { kind: Kind::None }
    }

    /// A page of the gateway's own.
    pub(crate) fn page(page: Bytes, record: Record) -> Self {
        Self { kind: Kind::Page { page: Some(page), record: Box::new(record) } }
    }

    /// What the upstream sends.
    pub(crate) fn upstream(
        incoming: Incoming,
        lease: Lease,
        progress: Arc<Progress>,
        record: Record,
    ) -> Self {
        let taking = Taking::current();
        let mut upstream = Box::new(Upstream { incoming, lease: Some(lease), progress, taking, record });
        if upstream.incoming.is_end_stream() {
            upstream.complete();
        }
        Self { kind: Kind::Upstream(upstream) }
    }
}

impl Upstream {
    /// Every byte of the response has been handed on.
    fn complete(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        self.record.completed();
        self.record.bytes_in(self.progress.bytes());
        // A connection whose request is still being sent cannot take another one; dropping it resets the stream.
        let is_done = self.progress.request_done.load(Ordering::Acquire);
        if is_done && !self.progress.is_body_refused() {
            lease.give_back();
        } else {
            lease.watch.reset(Reason::Cancelled);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.record.bytes_in(self.progress.bytes());
            lease.watch.reset(Reason::ClientGone);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let upstream = match &mut self.kind {
            Kind::None => return Poll::Ready(None),
            Kind::Page { page, record } => {
                let page = page.take();
                record.bytes_out(page.as_ref().map_or(0, |page| page.len() as u64));
                return Poll::Ready(page.map(|page| Ok(Frame::data(page))));
            }
            Kind::Upstream(upstream) => upstream,
        };
        if let Some(taking) = &upstream.taking {
            taking.asked();
        }
        match ready!(Pin::new(&mut upstream.incoming).poll_frame(cx)) {
            None => {
                upstream.complete();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    upstream.record.bytes_out(data.len() as u64);
                }
                if let Some(taking) = &upstream.taking {
                    taking.handed();
                }
                if upstream.incoming.is_end_stream() {
                    upstream.complete();
                }
                Poll::Ready(Some(Ok(cleaned(frame))))
            }
            Some(Err(error)) => {
                let ended = upstream.lease.as_ref().and_then(|lease| lease.watch.end());
                let reason = match ended.or_else(|| StreamError::find(&error).map(|end| end.reason)) {
                    Some(Reason::Cancelled | Reason::Done) | None => Reason::UpstreamClosed,
                    Some(reason) => reason,
                };
                upstream.record.cut(reason);
                if let Some(lease) = upstream.lease.take() {
                    lease.watch.reset(reason);
                }
                Poll::Ready(Some(Err(Cut(reason))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::None => true,
            Kind::Page { page, .. } => page.is_none(),
            Kind::Upstream(upstream) => upstream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::None => SizeHint::with_exact(0),
            Kind::Page { page, .. } => {
                SizeHint::with_exact(page.as_ref().map_or(0, |page| page.len() as u64))
            }
            Kind::Upstream(upstream) => upstream.incoming.size_hint(),
        }
    }
}
