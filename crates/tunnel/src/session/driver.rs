//! The one task of a session: reads until nothing is left, then writes everything that is ready in one go.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_proto::reason::Reason;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

use super::lane::LaneGuard;
use crate::keepalive::{Action, Keepalive, Patience};
use crate::mux::Violation;
use crate::workers;

/// Room for one read. Four TLS records, so that a busy session decrypts several per system call.
const READ_SIZE: usize = 64 * 1024;
/// Room left in the buffer with which another read is worth it: one TLS record.
const LEAST_ROOM: usize = 16 * 1024;
/// Reads in a row before it is the writer's turn again.
const READS_PER_TURN: usize = 8;
/// A read or a round of fewer bytes than this is small.
const SMALL: usize = 4 * 1024;
/// After so many small ones in a row, large buffers are given back to the allocator.
const QUIET: u32 = 32;
/// How long the last bytes of a closed session may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);

struct Driver<IO> {
    io: IO,
    guard: LaneGuard,
    input: BytesMut,
    /// The round on its way out.
    output: BytesMut,
    /// Bytes of `output` that are out.
    written: usize,
    /// Small rounds and reads in a row; after some, large buffers are given back.
    quiet: u32,
    needs_flush: bool,
    /// There is something to write, and everybody else who is ready has had a turn to add to it.
    gathered: bool,
    keepalive: Keepalive,
    started: Instant,
}

/// Why the driver stopped.
enum End {
    /// Somebody on this side closed the session.
    Closed,
    /// The peer is gone, or does not keep to the protocol.
    Lost(Reason),
}

/// Moves a lane's bytes until it ends, then tells every stream. The guard closes the lane even when this task is
/// cancelled before it first runs.
pub(super) async fn drive<IO>(io: IO, patience: Patience, guard: LaneGuard)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut driver = Driver {
        io,
        guard,
        input: BytesMut::new(),
        output: BytesMut::new(),
        written: 0,
        // Until it has carried something, a session holds no large buffer.
        quiet: QUIET,
        needs_flush: false,
        gathered: false,
        keepalive: Keepalive::new(patience),
        started: Instant::now(),
    };
    // The first probe measures the round trip, which is what windows grow by.
    driver.guard.lane.with(|mux, _| mux.probe());
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    let end = poll_fn(|cx| driver.poll(cx, timer.as_mut())).await;
    match end {
        End::Lost(reason) => driver.guard.lane.with(|mux, wake| mux.close(reason, wake)),
        End::Closed => {
            // Resets and the like that are still queued reach the peer if it listens at all.
            let farewell = poll_fn(|cx| driver.poll_farewell(cx));
            drop(tokio::time::timeout(FAREWELL, farewell).await);
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<End> {
        loop {
            let more_to_read = match self.poll_input(cx) {
                Ok(more) => more,
                Err(reason) => return Poll::Ready(End::Lost(reason)),
            };
            // Then nobody waits for input.
            let was_backed_up = self.guard.lane.with(|mux, _| mux.is_backed_up());
            if self.poll_gather(cx).is_pending() {
                return Poll::Pending;
            }
            if let Err(error) = self.poll_output(cx) {
                tracing::debug!(%error, "session lost while writing");
                return Poll::Ready(End::Lost(Reason::AgentLost));
            }
            if self.guard.lane.with(|mux, _| mux.closed()).is_some() {
                return Poll::Ready(End::Closed);
            }
            if more_to_read || was_backed_up && !self.guard.lane.with(|mux, _| mux.is_backed_up()) {
                // A peer that never pauses must not keep this worker from its other tasks.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if ready!(self.poll_timer(cx, timer.as_mut())) {
                return Poll::Ready(End::Lost(Reason::SessionTimeout));
            }
        }
    }

    /// Ready(true): the peer is dead. Ready(false): a probe was queued. Pending: the timer is set.
    fn poll_timer(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<bool> {
        loop {
            let now = self.now();
            match self.keepalive.poll(now) {
                Action::Dead => return Poll::Ready(true),
                Action::Probe => {
                    if self.keepalive.is_waiting() {
                        // What is wrong with this lane may be wrong with the others: they are asked as well.
                        self.guard.probe_others();
                    }
                    self.keepalive.probed(now);
                    self.guard.lane.with(|mux, _| {
                        mux.set_now(now);
                        mux.set_late(true);
                        mux.probe();
                    });
                    return Poll::Ready(false);
                }
                Action::WaitUntil(then) => {
                    let deadline = workers::together(self.started + then, self.keepalive.grain());
                    // Moving a timer is not free, and traffic moves the deadline all the time: a timer that fires
                    // early just looks again.
                    if timer.is_elapsed() || timer.deadline() > deadline {
                        timer.as_mut().reset(deadline);
                    }
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }

    /// Reads and feeds until nothing is left. Ok(true): there may be more.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<bool, Reason> {
        for _ in 0..READS_PER_TURN {
            if self.guard.lane.with(|mux, _| mux.is_backed_up()) {
                return Ok(false);
            }
            match self.poll_fill(cx) {
                Poll::Pending => {
                    if self.input.is_empty() && self.is_quiet() {
                        self.input = BytesMut::new();
                    }
                    return Ok(false);
                }
                // A transport that was ended properly has brought everything; what was announced holds.
                Poll::Ready(Ok(0)) => {
                    let announced = self.guard.lane.with(|mux, _| mux.draining());
                    return Err(announced.unwrap_or(Reason::AgentLost));
                }
                Poll::Ready(Ok(n)) => {
                    self.note_size(n);
                    let now = self.now();
                    self.keepalive.heard(now, n);
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "session lost while reading");
                    return Err(Reason::AgentLost);
                }
            }
            let now = self.now();
            let fed = self.guard.lane.with(|mux, wake| {
                mux.set_now(now);
                mux.set_late(false);
                mux.feed(&mut self.input, wake)
            });
            fed.map_err(|violation: Violation| {
                tracing::warn!(%violation, "the peer broke the session protocol");
                Reason::ProtocolError
            })?;
        }
        Ok(true)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_quiet() {
            self.input.reserve(SMALL);
        } else if self.input.capacity() - self.input.len() < LEAST_ROOM {
            self.input.reserve(READ_SIZE);
        }
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)
    }

    /// Before a round is taken, yields once: tasks that are ready now add their frames to it, and one system call
    /// and one TLS record carry them all. When nobody is ready this costs nothing but a second look.
    fn poll_gather(&mut self, cx: &Context<'_>) -> Poll<()> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered || self.written < self.output.len() || !self.guard.lane.with(|mux, _| mux.has_output()) {
            return Poll::Ready(());
        }
        self.gathered = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes until there is nothing more to write or the transport takes no more.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            while self.written < self.output.len() {
                match Pin::new(&mut self.io).poll_write(cx, &self.output[self.written..]) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(n)) => {
                        self.written += n;
                        self.needs_flush = true;
                    }
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => {
                        // What is stuck waits for the peer as much as what is out.
                        let now = self.now();
                        self.keepalive.sent(now);
                        self.guard.lane.with(|mux, _| mux.set_driver(cx.waker()));
                        return Ok(());
                    }
                }
            }
            // The emptied buffer takes the place of the next round's: two buffers serve for ever.
            let mut spare = if self.is_quiet() { BytesMut::new() } else { std::mem::take(&mut self.output) };
            spare.clear();
            self.written = 0;
            let round = self.guard.lane.with(|mux, wake| {
                if mux.has_output() {
                    return Ok((mux.take_asks(), mux.take_round(spare, wake)));
                }
                mux.set_driver(cx.waker());
                Err(spare)
            });
            match round {
                Ok((asks, round)) => {
                    self.note_size(round.len());
                    self.output = round;
                    self.keepalive.said();
                    if asks {
                        let now = self.now();
                        self.keepalive.sent(now);
                    }
                }
                Err(spare) => {
                    self.output = spare;
                    return self.poll_flush(cx);
                }
            }
        }
    }

    /// Notes how much moved in one go.
    const fn note_size(&mut self, bytes: usize) {
        self.quiet = if bytes >= SMALL { 0 } else { self.quiet.saturating_add(1) };
    }

    /// Whether large buffers have been of no use for a while.
    const fn is_quiet(&self) -> bool {
        self.quiet >= QUIET
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.needs_flush {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(result) => {
                    self.needs_flush = false;
                    return result;
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// After a close from this side: writes what is queued, ends the transport, and reads until the peer has ended
    /// it too. A socket that is closed with something unread takes back what it was still sending.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_output(cx)?;
        if self.written < self.output.len() {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        loop {
            self.input.clear();
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
