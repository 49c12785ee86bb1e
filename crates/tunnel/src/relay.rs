//! The one byte pump: a stream on one side, a connection on the other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_proto::reason::Reason;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use crate::mux::Filled;
use crate::stream::{Stream, StreamError};

/// Pieces passed to a connection in one call.
const PIECES: usize = 16;

/// Told about every byte as it moves, not when the connection ends.
pub trait Meter {
    /// Bytes went from the stream to the connection.
    fn sent(&self, bytes: u64);
    /// Bytes went from the connection to the stream.
    fn received(&self, bytes: u64);
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes from the stream to the connection.
    pub sent: u64,
    /// Bytes from the connection to the stream.
    pub received: u64,
    /// [`Reason::Done`] when both directions ended in order.
    pub reason: Reason,
}

/// What a relay is told beside its two ends.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The reason when the connection, not the stream, fails.
    pub lost: Reason,
    /// How long nothing may move once one direction has ended; `None`: for ever. The end is
    /// [`Reason::IdleTimeout`].
    pub patience: Option<Duration>,
}

/// Copies both ways until both directions have ended or one fails. A half-close is passed on as a half-close, a
/// failure as a reset. Back-pressure is end to end: nothing is read that cannot be written on. An idle relay holds
/// no buffer. Not cancel safe: dropping it resets the stream and closes the connection.
pub async fn relay<U>(mut stream: Stream, connection: U, terms: Terms, meter: &impl Meter) -> Outcome
where
    U: AsyncRead + AsyncWrite + Unpin,
{
    let Terms { lost, patience } = terms;
    let mut pump = Pump {
        connection,
        lost,
        patience,
        onward: Onward::default(),
        back_done: false,
        moved: (0, 0),
        half_open: None,
    };
    let reason = poll_fn(|cx| pump.poll(cx, &mut stream, meter)).await;
    if reason != Reason::Done {
        stream.reset(reason);
    }
    Outcome { sent: pump.moved.0, received: pump.moved.1, reason }
}

/// As [`relay`], between two streams, of which `near` is the client's: what one session brings leaves by another. Neither
/// is read while the other is held, so that two of them may lead through the same sessions in opposite directions.
/// Not cancel safe: dropping it resets both.
pub async fn join(mut far: Stream, mut near: Stream, lost: Reason, meter: &impl Meter) -> Outcome {
    let (mut onward, mut back) = (Onward::default(), Onward::default());
    let (mut sent, mut received) = (0, 0);
    let reason = poll_fn(|cx| {
        let to_near = onward.poll(cx, &mut far, &mut near, lost, |n| {
            sent += n;
            meter.sent(n);
        });
        if let Poll::Ready(Err(reason)) = to_near {
            return Poll::Ready(reason);
        }
        let to_far = back.poll(cx, &mut near, &mut far, lost, |n| {
            received += n;
            meter.received(n);
        });
        match to_far {
            Poll::Ready(Err(reason)) => Poll::Ready(reason),
            _ if onward.done && back.done => Poll::Ready(Reason::Done),
            _ => {
                // Who is not being read has no other way to say that it is gone.
                for (stream, way) in [(&far, &onward), (&near, &back)] {
                    if (way.done || way.is_stuck())
                        && let Poll::Ready(reason) = stream.poll_gone(cx)
                    {
                        return Poll::Ready(reason);
                    }
                }
                Poll::Pending
            }
        }
    })
    .await;
    if reason != Reason::Done {
        far.reset(reason);
        near.reset(reason);
    }
    Outcome { sent, received, reason }
}

struct Pump<U> {
    connection: U,
    lost: Reason,
    patience: Option<Duration>,
    onward: Onward,
    /// Connection to stream: has ended.
    back_done: bool,
    moved: (u64, u64),
    /// Bytes moved when the timer was set, and the timer.
    half_open: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Onward {
    /// Writes as many pieces as one call takes.
    fn poll_pieces<U: AsyncWrite + Unpin>(
        &self,
        connection: &mut U,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let connection = Pin::new(connection);
        match self.pieces.front() {
            Some(first) if self.pieces.len() == 1 || !connection.is_write_vectored() => {
                connection.poll_write(cx, first)
            }
            _ => {
                let mut slices = [IoSlice::new(&[]); PIECES];
                for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                    *slice = IoSlice::new(piece);
                }
                connection.poll_write_vectored(cx, &slices[..self.pieces.len().min(PIECES)])
            }
        }
    }

    /// The connection has taken `n` bytes.
    fn passed(&mut self, mut n: usize) {
        while let Some(first) = self.pieces.front_mut().filter(|_| n > 0) {
            let part = first.len().min(n);
            first.advance(part);
            n -= part;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        if self.pieces.is_empty() {
            // An idle relay holds nothing.
            self.pieces = VecDeque::new();
        }
    }

    /// Moves what there is, until one of the two has to be waited for.
    fn poll<U: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        connection: &mut U,
        lost: Reason,
        mut moved: impl FnMut(u64),
    ) -> Poll<Result<(), Reason>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.pieces.is_empty() {
                let n = ready!(self.poll_pieces(connection, cx)).map_err(|e| broke(&e, lost))?;
                if n == 0 {
                    return Poll::Ready(Err(lost));
                }
                self.passed(n);
                self.unflushed = true;
                moved(n as u64);
            }
            if self.ended {
                // The other end may have closed already; its last bytes, if any, still count.
                drop(ready!(Pin::new(&mut *connection).poll_shutdown(cx)));
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            match stream.poll_read_chunks(cx, &mut self.pieces) {
                Poll::Ready(Ok(())) => self.ended = self.pieces.is_empty(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(stream_end(&error))),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *connection).poll_flush(cx)).map_err(|e| broke(&e, lost))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether it waits for the connection to take something.
    fn is_stuck(&self) -> bool {
        !self.pieces.is_empty() || self.unflushed || self.ended
    }
}

/// Stream to connection.
#[derive(Default)]
struct Onward {
    /// What the connection has not taken yet.
    pieces: VecDeque<Bytes>,
    unflushed: bool,
    ended: bool,
    done: bool,
}

impl<U: AsyncRead + AsyncWrite + Unpin> Pump<U> {
    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream, meter: &impl Meter) -> Poll<Reason> {
        let sent = |n: u64, moved: &mut u64| {
            *moved += n;
            meter.sent(n);
        };
        let Self { onward, connection, lost, moved, .. } = self;
        if let Poll::Ready(Err(reason)) =
            onward.poll(cx, stream, connection, *lost, |n| sent(n, &mut moved.0))
        {
            return Poll::Ready(reason);
        }
        if let Poll::Ready(Err(reason)) = self.poll_back(cx, stream, meter) {
            return Poll::Ready(reason);
        }
        let ended = match (self.onward.done, self.back_done) {
            (true, true) => Poll::Ready(Reason::Done),
            // Nobody reads the stream any longer, yet an upstream that says nothing must not outlive it.
            (true, false) => stream.poll_gone(cx),
            // Nor must one that takes nothing.
            (false, _) if self.onward.is_stuck() => stream.poll_gone(cx),
            (false, _) => Poll::Pending,
        };
        if ended.is_pending() { self.poll_half_open(cx) } else { ended }
    }

    /// Once one direction has ended, the other has to move.
    fn poll_half_open(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let Some(patience) = self.patience.filter(|_| self.onward.done != self.back_done) else {
            return Poll::Pending;
        };
        let moved = self.moved.0 + self.moved.1;
        let (seen, timer) =
            self.half_open.get_or_insert_with(|| (moved, Box::pin(tokio::time::sleep(patience))));
        loop {
            ready!(timer.as_mut().poll(cx));
            if *seen == moved {
                return Poll::Ready(Reason::IdleTimeout);
            }
            *seen = moved;
            timer.as_mut().reset(tokio::time::Instant::now() + patience);
        }
    }

    /// Reads from the connection straight into the session; there is no buffer between.
    fn poll_back(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        meter: &impl Meter,
    ) -> Poll<Result<(), Reason>> {
        while !self.back_done {
            match ready!(stream.poll_fill(&mut self.connection, cx)) {
                Ok(Filled::Bytes(n)) => {
                    self.moved.1 += n as u64;
                    meter.received(n as u64);
                }
                Ok(Filled::End) => {
                    ready!(Pin::new(&mut *stream).poll_shutdown(cx)).map_err(|e| stream_end(&e))?;
                    self.back_done = true;
                }
                Ok(Filled::Failed(error)) => return Poll::Ready(Err(broke(&error, self.lost))),
                Err(error) => return Poll::Ready(Err(stream_end(&error))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn broke(error: &io::Error, lost: Reason) -> Reason {
    tracing::debug!(%error, "a relayed connection failed");
    lost
}

fn stream_end(error: &io::Error) -> Reason {
    StreamError::find(error).map_or(Reason::Cancelled, |end| end.reason)
}
