//! A session: one authenticated association of an agent and a gateway, and the streams in it.
//!
//! [`Session`] is the handle both roles use; [X is the one task that moves its bytes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use adit_proto::header::StreamHeader;
use adit_proto::reason::Reason;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::keepalive::Patience;
use crate::mux::Mux;
pub use crate::mux::Side;
use crate::scope::Scope;
pub use crate::stream::{Stream, StreamError};

mod driver;
#[cfg(test)]
mod tests;

/// What the handles and the driver share. The lock is held for memory moves only, never across an await.
#[derive(Debug)]
pub(crate) struct Shared {
    mux: Mutex<Mux>,
}

impl Shared {
    /// Runs `f` on the streams' state and wakes whoever it says afterwards, outside the lock.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Mux, &mut Vec<Waker>) -> T) -> T {
        let mut wake = Vec::new();
        let value = f(&mut self.mux.lock(), &mut wake);
        for waker in wake {
            waker.wake();
        }
        value
    }
}

/// A session that has no byte stream yet. Dropping it closes the session.
#[derive(Debug)]
pub struct Beginning {
    side: Side,
    guard: driver::CloseOnDrop,
}

impl Beginning {
    /// Moves the session's bytes from now on, in `scope`, until it is closed by either side.
    pub fn start<IO>(self, io: IO, scope: &Scope)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let patience = match self.side {
            Side::Gateway => Patience::GATEWAY,
            Side::Agent => Patience::AGENT,
        };
        let shared = Arc::clone(&self.guard.0);
        scope.spawn("session", driver::drive(io, shared, patience, self.guard));
    }
}

/// A handle on a session; clones are the same session.
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// Starts a session over an authenticated byte stream. Its driver runs in `scope` until the session is closed
    /// by either side; dropping handles does not close it.
    #[must_use]
    pub fn start<IO>(io: IO, side: Side, scope: &Scope) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (session, beginning) = Self::prepare(side, &[]);
        beginning.start(io, scope);
        session
    }

    /// A session whose byte stream comes later, and what starts it. Streams may be opened at once; the first bytes
    /// that leave are `prelude`, which is no frame of the session.
    #[must_use]
    pub fn prepare(side: Side, prelude: &[u8]) -> (Self, Beginning) {
        let shared = Arc::new(Shared { mux: Mutex::new(Mux::new(side)) });
        shared.with(|mux, _| mux.begin_with(prelude));
        let guard = driver::CloseOnDrop(Arc::clone(&shared));
        (Self { shared }, Beginning { side, guard })
    }

    /// Opens a stream without waiting for anything; bytes may be written at once and travel right behind.
    ///
    /// # Errors
    /// Why the session takes no new streams: it is closed, the peer is draining, or it is full.
    pub fn open(&self, header: &StreamHeader) -> Result<Stream, Reason> {
        let id = self.shared.with(|mux, _| mux.open(header))?;
        Ok(Stream::new(Arc::clone(&self.shared), id))
    }

    /// The next stream the peer opens; `None` once the session is closed. Cancel safe.
    pub async fn accept(&self) -> Option<(StreamHeader, Stream)> {
        let (id, header) = poll_fn(|cx| self.shared.with(|mux, _| mux.poll_accept(cx.waker()))).await?;
        Some((header, Stream::new(Arc::clone(&self.shared), id)))
    }

    /// Ends the session and every stream in it, now, and tells the peer why. Does not wait.
    pub fn close(&self, reason: Reason) {
        self.shared.with(|mux, wake| {
            mux.go_away(reason);
            mux.close(reason, wake);
        });
    }

    /// Announces that this side takes no new streams, and waits until the last one has ended and the peer has seen
    /// all of it, or the session is closed. Cancel safe: the announcement stays.
    pub async fn drain(&self, reason: Reason) {
        self.shared.with(|mux, _| mux.go_away(reason));
        // What the peer opened before it saw that is on its way; a transport that ended now would swallow it.
        self.settle().await;
        self.wait_for(|mux| mux.streams() == 0 || mux.closed().is_some()).await;
        self.settle().await;
    }

    /// Waits until the peer has seen all that was said here so far, or the session is closed. A peer that does not
    /// answer is dead before long, and its session closed. Cancel safe.
    async fn settle(&self) {
        let mark = self.shared.with(|mux, _| mux.mark());
        self.wait_for(|mux| mux.is_marked(mark) || mux.closed().is_some()).await;
    }

    /// Asks for a sign of life now. A peer that gives none is dead within 4 s, and the session closed.
    pub fn probe(&self) {
        self.shared.with(|mux, _| mux.mark());
    }

    /// Announces that this side wants the session to end, without waiting and without ending anything.
    pub fn announce(&self, reason: Reason) {
        self.shared.with(|mux, _| mux.go_away(reason));
    }

    /// Whether either side has announced the session's end.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.shared.with(|mux, _| mux.is_leaving())
    }

    /// Waits until the session has ended, and says why. Cancel safe.
    pub async fn closed(&self) -> Reason {
        self.wait_for(|mux| mux.closed().is_some()).await;
        self.end().unwrap_or(Reason::Unknown)
    }

    /// Waits until the peer announces that it takes no new streams, or the session has ended. Cancel safe.
    pub async fn draining(&self) -> Reason {
        self.wait_for(|mux| mux.draining().is_some() || mux.closed().is_some()).await;
        self.shared.with(|mux, _| mux.draining().or_else(|| mux.closed())).unwrap_or(Reason::Unknown)
    }

    async fn wait_for(&self, holds: impl Fn(&Mux) -> bool) {
        poll_fn(|cx| {
            self.shared.with(|mux, _| {
                if holds(mux) {
                    return Poll::Ready(());
                }
                mux.watch(cx.waker());
                Poll::Pending
            })
        })
        .await;
    }

    /// Why the session has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<Reason> {
        self.shared.with(|mux, _| mux.closed())
    }

    /// Whether a stream could be opened now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.with(|mux, _| mux.closed().is_none() && mux.draining().is_none())
    }

    /// Streams open now.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.shared.with(|mux, _| mux.streams())
    }

    /// Round trip time of the last answered probe.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.with(|mux, _| mux.rtt())
    }
}
