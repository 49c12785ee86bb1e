//! Streams in one connection, as a state machine: frames in, frames out, no socket, no task, no clock.
//!
//! # How writing works
//! There is one buffer of frames that are ready for the wire, and no buffer per stream: a stream writes straight
//! into it, so an idle stream costs a table row. The driver takes the whole buffer at once (a *round*), which is
//! what turns the small writes of many streams into few TLS records and system calls. In one round a stream may
//! put [`writing::QUANTUM`] bytes; whoever wants more waits, in order, for the next round. So a bulk stream delays a
//! small one by at most one round.
//!
//! # How reading works
//! The receiver grants credit; a sender never has more bytes under way than it was granted, and credit returns
//! when the reader has taken a part of the window, small enough that the sender need not wait for it. A reader that
//! takes a whole window faster than two round trips has the window doubled, up to [`limits::MAX_WINDOW`] a stream,
//! [`GROWTH_BUDGET`] a lane, and a bound for the process, of which each lane has its part.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Poll, Waker, ready};
use std::time::Duration;

use adit_proto::frame::{self, FrameHeader, Kind};
use adit_proto::header::StreamHeader;
use adit_proto::limits;
use adit_proto::reason::Reason;
use bytes::{BufMut as _, Bytes, BytesMut};

mod arriving;
mod budget;
mod round_trip;
mod row;
#[cfg(test)]
mod tests;
mod writing;

use budget::BUDGET;
use round_trip::RoundTrip;
use row::Row;
pub(crate) use writing::{Filled, Round};

/// Data leaves room up to here for control frames; a round beyond it belongs to a peer that does not read.
const BACKED_UP: usize = 2 * writing::ROUND_FULL;
/// Window bytes, over the initial ones, that all streams of a lane may grow by together.
const GROWTH_BUDGET: u32 = 64 * 1024 * 1024;
/// Window a stream starts with. Half of what the protocol allows a sender to assume would be a violation, so both
/// ends use the protocol's number.
const INITIAL_WINDOW: u32 = limits::INITIAL_WINDOW;

/// Which end of the session this is; decides the numbers of the streams it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Opens odd streams.
    Gateway,
    /// Opens even streams.
    Agent,
}

/// How a stream stands, for those who only watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The peer reset it, or the session ended.
    Remote(Reason),
    /// It was reset on this side.
    Local(Reason),
}

impl Gone {
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Remote(reason) | Self::Local(reason) => reason,
        }
    }
}

/// The peer broke the protocol; the session ends with [`Reason::ProtocolError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("malformed frame: {0}")]
    Malformed(#[from] adit_proto::DecodeError),
    #[error("{0:?} frame on a stream that was never opened")]
    UnknownStream(Kind),
    #[error("stream {0} opened out of order")]
    StreamOrder(u32),
    #[error("stream {0} was sent more than its credit")]
    Credit(u32),
    #[error("stream {0} sent after its end")]
    AfterFin(u32),
    #[error("a {0:?} frame that has no place here")]
    Unexpected(Kind),
}

/// Stream ids are small and dense; a table keyed by them needs no hashing worth the name.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only u32 keys are hashed");
    }
    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Set in the payload of a probe that is a mark; the rest counts them. No time since a session's start is that long.
const MARK: u64 = 1 << 63;

/// All streams of one connection.
#[derive(Debug)]
pub(crate) struct Mux {
    side: Side,
    /// Whether the peer may open streams. A gateway does, an agent only where it was granted.
    takes_opens: bool,
    rows: HashMap<u32, Row, BuildHasherDefault<IdHasher>>,
    next_id: u32,
    last_peer_id: u32,
    out: Round,
    round: u64,
    waiting: VecDeque<u32>,
    accepted: VecDeque<(u32, StreamHeader)>,
    /// What has not arrived yet of a frame with data.
    arriving: Option<FrameHeader>,
    acceptor: Option<Waker>,
    grown: u32,
    rtt: RoundTrip,
    now: Duration,
    /// Why this side takes no new streams, if it does not.
    goaway_sent: Option<Reason>,
    goaway_received: Option<Reason>,
    closed: Option<Reason>,
    /// Woken when there is something to write, or the session was closed from this side.
    driver: Option<Waker>,
    /// Woken when a second stream comes, the last one ends or the session closes.
    watchers: Vec<Waker>,
    pongs: u32,
    /// Marks sent, and the last one that came back.
    marks: (u64, u64),
    /// The round holds something a living peer answers before long: an open, or data.
    asks: bool,
    /// The peer leaves an answer due.
    is_late: bool,
}

impl Mux {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            side,
            takes_opens: side == Side::Agent,
            rows: HashMap::default(),
            next_id: if side == Side::Gateway { 1 } else { 2 },
            last_peer_id: 0,
            out: BytesMut::new(),
            round: 1,
            waiting: VecDeque::new(),
            accepted: VecDeque::new(),
            arriving: None,
            acceptor: None,
            grown: 0,
            rtt: RoundTrip::default(),
            now: Duration::ZERO,
            goaway_sent: None,
            goaway_received: None,
            closed: None,
            driver: None,
            watchers: Vec::new(),
            pongs: 0,
            marks: (0, 0),
            asks: false,
            is_late: false,
        }
    }

    // === For the session's users ===

    /// The peer may open streams from now on.
    pub(crate) const fn take_opens(&mut self) {
        self.takes_opens = true;
    }

    /// Sends this before any frame.
    pub(crate) fn begin_with(&mut self, prelude: &[u8]) {
        debug_assert!(self.out.is_empty());
        self.out.put_slice(prelude);
    }

    /// Opens a stream. Data may be written at once; the peer need not answer first.
    ///
    /// # Errors
    /// The reason why the session takes no new streams.
    pub(crate) fn open(&mut self, header: &StreamHeader, tag: u64) -> Result<u32, Reason> {
        if let Some(reason) = self.closed.or(self.goaway_received) {
            return Err(reason);
        }
        if self.rows.len() >= limits::MAX_STREAMS || self.next_id > u32::MAX - 2 {
            return Err(Reason::Overloaded);
        }
        let id = self.next_id;
        self.next_id += 2;
        let mut row = Row::new(self.now);
        row.tag = tag;
        self.rows.insert(id, row);
        let mut payload = BytesMut::with_capacity(64);
        header.encode(&mut payload);
        frame::put(&mut self.out, Kind::Open, id, &payload);
        self.asks = true;
        self.wake_driver();
        Ok(id)
    }

    /// Tells watchers when a second stream has come.
    pub(crate) fn note_sharing(&mut self, wake: &mut Vec<Waker>) {
        if self.rows.len() == 2 {
            wake.append(&mut self.watchers);
        }
    }

    /// The next stream the peer has opened; `None` once the session is closed.
    pub(crate) fn poll_accept(&mut self, waker: &Waker) -> Poll<Option<(u32, StreamHeader)>> {
        if let Some(accepted) = self.accepted.pop_front() {
            return Poll::Ready(Some(accepted));
        }
        if self.closed.is_some() {
            return Poll::Ready(None);
        }
        self.acceptor = Some(waker.clone());
        Poll::Pending
    }

    /// Takes the next piece a stream has received. An empty one is the end of the stream.
    pub(crate) fn poll_read(&mut self, id: u32, waker: &Waker) -> Poll<Result<BytesMut, Gone>> {
        ready!(self.poll_arrived(id, waker))?;
        let piece = self.rows.get_mut(&id).and_then(|row| row.recv.pop_front()).unwrap_or_default();
        self.taken(id, piece.len());
        Poll::Ready(Ok(piece))
    }

    /// Moves up to a quantum of what a stream has received to `pieces`; nothing at the end of the stream.
    pub(crate) fn poll_read_pieces(
        &mut self,
        id: u32,
        waker: &Waker,
        pieces: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), Gone>> {
        ready!(self.poll_arrived(id, waker))?;
        let mut n = 0;
        while n < writing::QUANTUM
            && let Some(piece) = self.rows.get_mut(&id).and_then(|row| row.recv.pop_front())
        {
            n += piece.len();
            pieces.push_back(piece.freeze());
        }
        self.taken(id, n);
        Poll::Ready(Ok(()))
    }

    /// Waits until there is something to read, or the end.
    fn poll_arrived(&mut self, id: u32, waker: &Waker) -> Poll<Result<(), Gone>> {
        let Some(row) = self.rows.get_mut(&id) else {
            return Poll::Ready(Err(Gone::Local(Reason::Cancelled)));
        };
        // A reset from this side has thrown away what had arrived: no end in order, even if one had come.
        let is_at_end = row.remote_fin && !matches!(row.gone, Some(Gone::Local(_)));
        if !row.recv.is_empty() || is_at_end {
            return Poll::Ready(Ok(()));
        }
        if let Some(gone) = row.gone {
            return Poll::Ready(Err(gone));
        }
        replace_waker(&mut row.reader, waker);
        Poll::Pending
    }

    /// A reader has taken `n` bytes; credit for them returns in parts of the window.
    fn taken(&mut self, id: u32, n: usize) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        row.taken += u32::try_from(n).unwrap_or(u32::MAX);
        if row.taken >= row.grant_from() && !row.remote_fin && row.gone.is_none() {
            self.grant(id);
        }
    }

    /// Waits for the end of a stream as a whole, for whoever has read to the end of its input or cannot read on.
    pub(crate) fn poll_gone(&mut self, id: u32, waker: &Waker) -> Poll<Gone> {
        let Some(row) = self.rows.get_mut(&id) else { return Poll::Ready(Gone::Local(Reason::Cancelled)) };
        if let Some(gone) = row.gone {
            return Poll::Ready(gone);
        }
        replace_waker(&mut row.reader, waker);
        Poll::Pending
    }

    /// Returns credit for what was taken, and more of it if the window turned out to be what limits the sender.
    fn grant(&mut self, id: u32) {
        let (now, rtt) = (self.now, self.rtt.least);
        let Some(row) = self.rows.get_mut(&id) else { return };
        let mut credit = std::mem::take(&mut row.taken);
        let is_limit = row.is_limit(credit, now, rtt);
        // What the lane has too much is not returned, as far as this stream has grown.
        let less = BUDGET.excess(self.grown).min(row.recv_window - INITIAL_WINDOW).min(credit / 2);
        if less > 0 {
            row.recv_window -= less;
            self.grown -= less;
            BUDGET.give_back(less);
            credit -= less;
        } else if is_limit && !self.rtt.is_stale(now) {
            let room = self.rtt.most_under_way().min(limits::MAX_WINDOW).saturating_sub(row.recv_window);
            let wanted = room.min(GROWTH_BUDGET - self.grown).min(row.recv_window);
            let more = BUDGET.take(wanted, self.grown);
            row.recv_window += more;
            self.grown += more;
            credit += more;
        }
        row.recv_credit += credit;
        frame::put(&mut self.out, Kind::Window, id, &credit.to_be_bytes());
        if is_limit && self.rtt.is_stale(now) && !self.rtt.asked {
            self.rtt.asked = true;
            // Measured at a busy moment or long ago, a round trip would only make buffers longer.
            self.probe();
        }
        self.wake_driver();
    }

    /// Tells the peer that the upstream is connected.
    pub(crate) fn confirm(&mut self, id: u32) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        if !row.opened && row.gone.is_none() {
            row.opened = true;
            frame::put(&mut self.out, Kind::Opened, id, &[]);
            self.wake_driver();
        }
    }

    /// Ends both directions at once. What the peer has not read yet is lost.
    pub(crate) fn reset(&mut self, id: u32, reason: Reason, wake: &mut Vec<Waker>) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        if row.gone.is_some() || (row.local_fin && row.remote_fin) {
            return;
        }
        row.gone = Some(Gone::Local(reason));
        row.recv = VecDeque::new();
        row.wake_all(wake);
        frame::put(&mut self.out, Kind::Reset, id, &reason.code().to_be_bytes());
        self.wake_driver();
    }

    /// Resets every stream with a tag that is meant; how many there were.
    pub(crate) fn reset_tagged(
        &mut self,
        is_meant: &impl Fn(u64) -> bool,
        reason: Reason,
        wake: &mut Vec<Waker>,
    ) -> usize {
        let is_meant = |row: &Row| row.gone.is_none() && row.tag != 0 && is_meant(row.tag);
        let meant: Vec<_> = self.rows.iter().filter(|(_, row)| is_meant(row)).map(|(id, _)| *id).collect();
        for id in &meant {
            self.reset(*id, reason, wake);
        }
        meant.len()
    }

    /// The last handle of a stream is gone: an unfinished stream is reset, and its row is freed.
    pub(crate) fn release(&mut self, id: u32, wake: &mut Vec<Waker>) {
        self.reset(id, Reason::Cancelled, wake);
        if let Some(row) = self.rows.remove(&id) {
            let grown = row.recv_window - INITIAL_WINDOW;
            self.grown -= grown;
            BUDGET.give_back(grown);
        }
        if self.rows.is_empty() {
            wake.append(&mut self.watchers);
        }
    }

    /// Whether the peer has confirmed that the upstream is connected.
    pub(crate) fn is_opened(&self, id: u32) -> bool {
        self.rows.get(&id).is_some_and(|row| row.opened)
    }

    /// Waits until the upstream is connected or the stream has ended.
    pub(crate) fn poll_opened(&mut self, id: u32, waker: &Waker) -> Poll<()> {
        match self.rows.get_mut(&id) {
            Some(row) if !row.opened && row.gone.is_none() => {
                replace_waker(&mut row.opener, waker);
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(()),
        }
    }

    /// Bytes a stream has received in all.
    pub(crate) fn received(&self, id: u32) -> u64 {
        self.rows.get(&id).map_or(0, |row| row.received)
    }

    /// How a stream was ended, if it was.
    pub(crate) fn gone(&self, id: u32) -> Option<Gone> {
        self.rows.get(&id).and_then(|row| row.gone)
    }

    /// Streams open now.
    pub(crate) fn streams(&self) -> usize {
        self.rows.len()
    }

    /// Round trip of the last answered probe.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt.last
    }

    /// Why the session is closed, if it is.
    pub(crate) const fn closed(&self) -> Option<Reason> {
        self.closed
    }

    /// Why the peer takes no new streams, if it does not.
    pub(crate) const fn draining(&self) -> Option<Reason> {
        self.goaway_received
    }

    /// Whether either side has announced the end.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.goaway_sent.is_some() || self.goaway_received.is_some()
    }

    /// Why no new streams should come, whichever side says so.
    pub(crate) fn leaving(&self) -> Option<Reason> {
        self.closed.or(self.goaway_received).or(self.goaway_sent)
    }

    /// How little a new stream would be served here: what waits to be written, in steps, so that lanes with little to
    /// do are equal; more than anything if the peer leaves an answer due, and the most if it takes no streams.
    pub(crate) fn load(&self) -> usize {
        if self.closed.is_some() || self.goaway_received.is_some() {
            usize::MAX
        } else if self.is_late {
            usize::MAX - 1
        } else {
            self.out.len() / writing::QUANTUM
        }
    }

    /// Announces that this side takes no new streams.
    pub(crate) fn go_away(&mut self, reason: Reason) {
        if self.goaway_sent.is_none() && self.closed.is_none() {
            self.goaway_sent = Some(reason);
            frame::put(&mut self.out, Kind::Goaway, 0, &reason.code().to_be_bytes());
            self.wake_driver();
        }
    }

    /// Ends the session and every stream in it. A peer that had announced its leaving is not lost: it has left.
    /// Its streams are lost all the same: what it said about them last may be lost too.
    pub(crate) fn close(&mut self, reason: Reason, wake: &mut Vec<Waker>) {
        if self.closed.is_some() {
            return;
        }
        let announced = self.goaway_received.filter(|_| reason == Reason::AgentLost);
        self.closed = Some(announced.unwrap_or(reason));
        for row in self.rows.values_mut() {
            if row.gone.is_none() && !(row.remote_fin && row.local_fin) {
                row.gone = Some(Gone::Remote(reason));
            }
            row.wake_all(wake);
        }
        // Nobody will take these any more, so nobody would release them.
        for (id, _) in self.accepted.drain(..) {
            self.rows.remove(&id);
        }
        wake.extend(self.acceptor.take());
        wake.append(&mut self.watchers);
        self.wake_driver();
    }

    /// Calls `waker` when the last stream ends, the session closes or the peer starts to drain.
    pub(crate) fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|known| known.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }

    // === For the driver ===

    /// Whether the round that is taken next asks for an answer; asking clears it.
    pub(crate) const fn take_asks(&mut self) -> bool {
        std::mem::replace(&mut self.asks, false)
    }

    /// The peer does not take what it makes us say; reading more from it would only add to that.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.out.len() > BACKED_UP
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    pub(crate) fn set_driver(&mut self, waker: &Waker) {
        replace_waker(&mut self.driver, waker);
    }

    fn wake_driver(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    /// Asks for a sign of life; the answer also measures the round trip.
    pub(crate) fn probe(&mut self) {
        let sent_at = u64::try_from(self.now.as_micros()).unwrap_or(0);
        frame::put(&mut self.out, Kind::Ping, 0, &sent_at.to_be_bytes());
    }

    /// Sends a probe behind all that was said so far. When it is back, the peer has seen all of it.
    pub(crate) fn mark(&mut self) -> u64 {
        self.marks.0 += 1;
        frame::put(&mut self.out, Kind::Ping, 0, &(MARK | self.marks.0).to_be_bytes());
        self.asks = true;
        self.wake_driver();
        self.marks.0
    }

    /// Whether this mark has come back.
    pub(crate) const fn is_marked(&self, mark: u64) -> bool {
        self.marks.1 >= mark
    }

    /// Sets the session's time. Called by the driver before it feeds frames.
    pub(crate) fn set_now(&mut self, now: Duration) {
        self.now = now;
        self.pongs = 0;
    }

    /// The peer has left something unanswered for longer than usual, or is back.
    pub(crate) const fn set_late(&mut self, is_late: bool) {
        self.is_late = is_late;
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        BUDGET.give_back(self.grown);
    }
}

/// Stores a waker, sparing the clone when it is the one already there.
fn replace_waker(slot: &mut Option<Waker>, waker: &Waker) {
    if slot.as_ref().is_none_or(|known| !known.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}
