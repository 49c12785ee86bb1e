//! Rest: between requests that are far apart a connection needs no HTTP library, whose buffers are most of what it
//! weighs. The guard tells when that is, watches the connection meanwhile, and goes on where it was.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::{self, Parts, UpgradeableConnection};
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{End, Guard, GuardHandle};

/// How long a connection has been idle when it comes to rest. A client that loads a page or that is one of many busy
/// ones comes back sooner.
pub(super) const REST: Duration = Duration::from_millis(200);
/// How long a connection that is to leave waits for the rest of a request that has begun.
const BEGUN: Duration = Duration::from_secs(2);
/// Room for the first bytes behind a rest: most requests.
const FIRST_READ: usize = 1024;

/// Serves a connection until it ends, with a library that is there while there is something to do. When `leaving` ends,
/// the connection finishes what it carries and closes.
///
/// # Errors
/// What the library says of a connection that did not end well.
pub(in crate::http) async fn serve<IO, S, B>(
    library: &http1::Builder,
    guard: Guard<IO>,
    handle: &GuardHandle,
    service: S,
    leaving: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    for<'a> &'a S: HttpService<Incoming, ResBody = B, Error: Into<Box<dyn Error + Send + Sync>>>,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    // It goes to and fro.
    let mut guard = Box::new(guard);
    let mut leaving = pin!(leaving);
    let mut is_leaving = false;
    loop {
        // On the heap: at rest there is none.
        let mut served = Box::new(library.serve_connection(TokioIo::new(guard), &service).with_upgrades());
        if !is_leaving {
            tokio::select! {
                biased;
                ended = until_rest(&mut served, handle) => if let Some(result) = ended { return result },
                () = leaving.as_mut() => is_leaving = true,
            }
        }
        if is_leaving {
            // On the heap: most of its life a connection does not leave.
            let known = Box::pin(tokio::time::timeout(BEGUN, until_known(&mut served, handle)));
            if let Ok(Some(result)) = known.await {
                return result;
            }
            Pin::new(&mut *served).graceful_shutdown();
            return served.await;
        }
        match given_back(served) {
            Some(taken) => guard = taken,
            None => return Ok(()),
        }
        tokio::select! {
            biased;
            () = guard.stirs() => {}
            // A library knows how to take leave.
            () = leaving.as_mut() => is_leaving = true,
        }
    }
}

/// The connection behind a library that has come to rest; nothing of the library stays.
#[expect(
    clippy::boxed_local,
    reason = "moved out of its box by the caller, it would be part of every idle task"
)]
fn given_back<IO, S, B>(
    served: Box<UpgradeableConnection<TokioIo<Box<Guard<IO>>>, S>>,
) -> Option<Box<Guard<IO>>>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<Box<dyn Error + Send + Sync>>>,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let Parts { io, read_buf, .. } = served.into_parts()?;
    let mut guard = io.into_inner();
    guard.take_over(&read_buf);
    Some(guard)
}

/// Polls a library until the connection ends, or there is nothing that the client has begun and the library does not
/// know of: then there is no result. Told to leave before that, it would take the connection for an idle one and close
/// it without an answer.
async fn until_known<F: Future + Unpin>(served: &mut F, handle: &GuardHandle) -> Option<F::Output> {
    poll_fn(|cx| match Pin::new(&mut *served).poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if handle.has_begun() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Polls a library until the connection ends, or comes to rest: then there is no result.
async fn until_rest<F: Future + Unpin>(served: &mut F, handle: &GuardHandle) -> Option<F::Output> {
    let rests = handle.rests();
    poll_fn(|cx| match Pin::new(&mut *served).poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if handle.rests() > rests => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

impl<IO> Guard<IO> {
    /// Takes over from a library that has given the connection back, with what it had read and not used.
    fn take_over(&mut self, unused: &[u8]) {
        debug_assert!(unused.is_empty(), "a library that waits for a request has used up what it got");
        if !unused.is_empty() {
            self.held = unused.into();
            self.approved = unused.len();
        }
    }

    /// When an idle connection comes to rest; `None` when it has.
    pub(super) fn rests_at(&self, idle_since: Instant) -> Option<Instant> {
        (!self.is_at_rest).then(|| idle_since + REST)
    }

    /// The library waits for a request, everything it wrote is out, and it has been so for a while.
    pub(super) fn come_to_rest(&mut self) {
        self.is_at_rest = true;
        self.shared.come_to_rest();
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Guard<IO> {
    /// Waits until a library has something to do: the next request begins, the client leaves, or it was idle for too
    /// long. To be called while no library reads. Cancel safe.
    async fn stirs(&mut self) {
        poll_fn(|cx| self.poll_stirs(cx)).await;
    }

    fn poll_stirs(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.meet_task(cx);
        if self.end.is_some() || !self.held.is_empty() {
            return Poll::Ready(());
        }
        let mut room = [0; FIRST_READ];
        let mut first = ReadBuf::new(&mut room);
        match Pin::new(&mut self.io).poll_read(cx, &mut first) {
            Poll::Pending => return self.poll_timeout(cx).map(drop),
            Poll::Ready(Ok(())) if !first.filled().is_empty() => {
                self.held.extend_from_slice(first.filled());
                self.unjudged = true;
            }
            Poll::Ready(Ok(())) => self.end = Some(End::Client),
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a connection was lost at rest");
                self.end = Some(End::Client);
            }
        }
        Poll::Ready(())
    }
}
