//! How a guarded connection ends: the answer to a refused head, and the time the client gets to read it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::scan::Place;
use super::{End, Guard};

/// Bytes read and thrown away behind the answer to a refused request.
const LINGER_BYTES: usize = 64 * 1024;
/// Bytes of a well-formed body read and thrown away behind a response that did not wait for it.
const LINGER_BODY_BYTES: usize = 1024 * 1024;
/// How long that takes at most.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How far the shutdown has come.
#[derive(Debug, Default)]
pub(super) enum Farewell {
    #[default]
    Begin,
    Answer(Bytes),
    CloseWrite,
    /// So many bytes are still read, until then.
    Linger(usize, Instant),
    Done,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Guard<IO> {
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.farewell, Farewell::Begin) && self.ends_in_doubt() {
            // The close that follows is a reset.
            return Poll::Ready(Ok(()));
        }
        loop {
            match &mut self.farewell {
                Farewell::Begin => {
                    self.farewell = match self.end {
                        // Not for a head that is only refused: when the library shuts down before the answer's
                        // turn, it has sent a `Connection: close`, and what stands behind the request with
                        // that response has no answer (RFC 9112 9.6).
                        Some(End::Answered(refusal)) => Farewell::Answer((self.settings.answer)(refusal)),
                        _ => Farewell::CloseWrite,
                    };
                }
                Farewell::Answer(answer) if answer.is_empty() => {
                    ready!(self.poll_timed(cx, |io, cx| io.poll_flush(cx)))?;
                    self.farewell = Farewell::CloseWrite;
                }
                Farewell::Answer(answer) => {
                    let rest = answer.clone();
                    let count = ready!(self.poll_timed(cx, |io, cx| io.poll_write(cx, &rest)))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    if let Farewell::Answer(answer) = &mut self.farewell {
                        answer.advance(count);
                    }
                }
                Farewell::CloseWrite => {
                    ready!(self.poll_timed(cx, |io, cx| io.poll_shutdown(cx)))?;
                    self.farewell = match self.linger_bytes() {
                        0 => Farewell::Done,
                        left => Farewell::Linger(left, Instant::now() + LINGER_TIME),
                    };
                }
                Farewell::Linger(left, until) => {
                    let (left, until) = (*left, *until);
                    ready!(self.poll_linger(cx, left, until));
                }
                Farewell::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// How much of what the client is still sending is read. A close with unread bytes is a reset, and a reset
    /// may reach the client before it has read the response (RFC 9112 9.6).
    fn linger_bytes(&self) -> usize {
        match self.end {
            Some(End::Client | End::Idle) => 0,
            Some(End::Head(_) | End::Answered(_) | End::Body(_)) => LINGER_BYTES,
            None if self.scanner.place() == Place::Body => LINGER_BODY_BYTES,
            None if !self.held.is_empty() && self.scanner.place() == Place::Head => LINGER_BYTES,
            None => 0,
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, left: usize, until: Instant) -> Poll<()> {
        let mut bin = [0; 4096];
        let mut bin = ReadBuf::new(&mut bin);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut bin);
        if read.is_pending() && Instant::now() < until {
            self.alarm.arm(cx, until);
            return Poll::Pending;
        }
        let left = left.saturating_sub(bin.filled().len());
        let goes_on = matches!(read, Poll::Ready(Ok(()))) && !bin.filled().is_empty() && left > 0;
        self.farewell = if goes_on { Farewell::Linger(left, until) } else { Farewell::Done };
        Poll::Ready(())
    }
}
