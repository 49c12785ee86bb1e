//! A session: one authenticated association of an agent and a gateway, and the streams in it.
//!
//! [`Session`] is the handle both roles use. A session has one or more *lanes*, each a connection of its own with
//! one task, its driver, that moves its bytes: a lane that is lost takes only its own streams along, and one that is
//! full or stalled is passed by.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use adit_proto::header::StreamHeader;
use adit_proto::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::keepalive::Patience;
pub use crate::mux::Side;
use crate::scope::Scope;
pub use crate::stream::{Stream, StreamError};
pub(crate) use lane::Lane;
use lane::{LaneGuard, Lanes};

mod driver;
mod lane;
#[cfg(test)]
mod tests;

/// A lane that has no byte stream yet. Dropping it closes the lane, and the session with its last one.
#[derive(Debug)]
pub struct Beginning {
    guard: LaneGuard,
}

impl Beginning {
    /// Moves the lane's bytes from now on, in `scope`, until it is closed by either side.
    pub fn start<IO>(self, io: IO, scope: &Scope)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        scope.spawn("session", self.run(io));
    }

    /// Moves the lane's bytes until it is closed by either side. Not cancel safe: dropping this closes the lane.
    pub async fn run<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let patience = match self.guard.side() {
            Side::Gateway => Patience::GATEWAY,
            Side::Agent => Patience::AGENT,
        };
        driver::drive(io, patience, self.guard).await;
    }
}

/// A handle on a session; clones are the same session.
#[derive(Debug, Clone)]
pub struct Session {
    lanes: Arc<Lanes>,
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
        let lanes = Arc::new(Lanes::new(side));
        let guard = lanes.first(prelude);
        (Self { lanes }, Beginning { guard })
    }

    /// A further lane for this session, whose first bytes are `prelude`, and what starts it.
    ///
    /// # Errors
    /// Why there can be none: the session is closed or being drained, or has as many as it may.
    pub fn add_lane(&self, prelude: &[u8]) -> Result<Beginning, Reason> {
        self.lanes.add(prelude).map(|guard| Beginning { guard })
    }

    /// Lanes that stand.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.count()
    }

    /// Waits until a lane carries several streams, or the session has ended. Cancel safe.
    pub async fn shared(&self) {
        let is_shared = |lanes: &Lanes| lanes.end().is_some() || !lanes.all(|mux| mux.streams() < 2);
        self.wait_for(|lanes| is_shared(lanes).then_some(())).await;
    }

    /// Waits until fewer lanes than this stand, or the session has ended. Cancel safe.
    pub async fn lanes_below(&self, count: usize) {
        self.wait_for(|lanes| (lanes.count() < count || lanes.end().is_some()).then_some(())).await;
    }

    /// Lets an agent open streams as well. Without it, one that does breaks the protocol.
    pub fn take_opens(&self) {
        self.lanes.take_opens();
    }

    /// Opens a stream without waiting for anything; bytes may be written at once and travel right behind.
    ///
    /// # Errors
    /// Why the session takes no new streams: it is closed, the peer is draining, or it is full.
    pub fn open(&self, header: &StreamHeader) -> Result<Stream, Reason> {
        self.open_tagged(header, 0)
    }

    /// As [`Self::open`], for a stream that [`Self::reset_tagged`] is to find. A tag is any number but 0.
    ///
    /// # Errors
    /// As there.
    pub fn open_tagged(&self, header: &StreamHeader, tag: u64) -> Result<Stream, Reason> {
        self.lanes.open(header, tag).map(|(lane, id)| Stream::new(lane, id))
    }

    /// Resets every stream that was opened with a tag that is meant and has not ended; how many there were.
    pub fn reset_tagged(&self, is_meant: impl Fn(u64) -> bool, reason: Reason) -> usize {
        self.lanes.reset_tagged(&is_meant, reason)
    }

    /// The next stream the peer opens on a lane that this worker moves; `None` once the session is closed. One waiter
    /// on each worker. Cancel safe.
    pub async fn accept(&self) -> Option<(StreamHeader, Stream)> {
        let (lane, id, header) = poll_fn(|cx| self.lanes.poll_accept(cx.waker())).await?;
        Some((header, Stream::new(lane, id)))
    }

    /// Ends the session and every stream in it, now, and tells the peer why. Does not wait.
    pub fn close(&self, reason: Reason) {
        self.lanes.close(reason);
    }

    /// Announces that this side takes no new streams, and waits until the last one has ended and the peer has seen
    /// all of it, or the session is closed. Cancel safe: the announcement stays.
    pub async fn drain(&self, reason: Reason) {
        self.lanes.each(|_, mux| mux.go_away(reason));
        // What the peer opened before it saw that is on its way; a transport that ended now would swallow it.
        self.settle().await;
        self.wait_for(|lanes| lanes.all(|mux| mux.streams() == 0).then_some(())).await;
        self.settle().await;
    }

    /// Waits until the peer has seen all that was said here so far, or the session is closed. A peer that does not
    /// answer is dead before long, and its session closed. Cancel safe.
    async fn settle(&self) {
        let marks = self.lanes.each(|lane, mux| (Arc::clone(lane), mux.mark()));
        let is_seen = |(lane, mark): &(Arc<Lane>, u64)| {
            lane.with(|mux, _| mux.is_marked(*mark) || mux.closed().is_some())
        };
        self.wait_for(|_| marks.iter().all(is_seen).then_some(())).await;
    }

    /// Asks for a sign of life now. A peer that gives none is dead within 4 s, and the session closed.
    pub fn probe(&self) {
        self.lanes.each(|_, mux| mux.mark());
    }

    /// Announces that this side wants the session to end, without waiting and without ending anything.
    pub fn announce(&self, reason: Reason) {
        self.lanes.each(|_, mux| mux.go_away(reason));
    }

    /// Whether either side has announced the session's end.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.lanes.each(|_, mux| mux.is_leaving()).contains(&true)
    }

    /// Waits until the session has ended, and says why. Cancel safe.
    pub async fn closed(&self) -> Reason {
        self.wait_for(Lanes::end).await
    }

    /// Waits until the peer announces that it takes no new streams, or the session has ended. Cancel safe.
    pub async fn draining(&self) -> Reason {
        self.wait_for(|lanes| lanes.leaving().or_else(|| lanes.end())).await
    }

    /// Waits until `look` finds what it looks for.
    async fn wait_for<T>(&self, look: impl Fn(&Lanes) -> Option<T>) -> T {
        poll_fn(|cx| {
            // In this order, or a change in between would be missed.
            self.lanes.watch(cx.waker());
            look(&self.lanes).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Why the session has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<Reason> {
        self.lanes.end()
    }

    /// Whether a stream could be opened now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lanes.is_open()
    }

    /// Streams open now.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.lanes.each(|_, mux| mux.streams()).into_iter().sum()
    }

    /// Round trip time of the last answered probe.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.lanes.each(|_, mux| mux.rtt()).into_iter().flatten().min()
    }
}
