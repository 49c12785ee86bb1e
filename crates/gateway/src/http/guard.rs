//! The strict check in front of the HTTP/1.x library, as a wrapper around the client's connection.
//!
//! The library reads through [`Guard`], which hands out only what [`scan::Scanner`] has released; so the library
//! never sees a head that a laxer or another reading could split at another place. The guard also keeps the
//! connection's timeouts, answers what the library must not see, and lets a handler send interim responses.
//!
//! Bytes are read straight into the library's buffer and judged there; only what may not go on yet is copied
//! out again. An idle connection therefore holds no buffer of its own.

mod answer;
mod handle;
pub(super) mod rest;
mod scan;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_proto::reason::Reason;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use answer::Farewell;
use handle::Shared;
use scan::{Place, Scanner, Verdict};

pub(crate) use handle::GuardHandle;
pub(crate) use scan::{Limits, Refusal, strict};

#[cfg(test)]
mod tests;

/// Bytes kept while it is open whether they belong to another protocol; then the client is not read any more.
const MAX_WITHHELD: usize = 64 * 1024;
/// The first byte of the first request must come this long after the accept, however long later pauses may be: a
/// connection that never asked for anything is not a client that will soon ask again.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// Largest single read while there are bytes that wait.
const READ_STEP: usize = 8 * 1024;

/// What is the same for all connections of a listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// How much a head may hold. The library's own limits must not be lower.
    pub(crate) limits: Limits,
    /// From the first byte of a head to its last.
    pub(crate) header_timeout: Duration,
    /// From the accept, or from the end of a response, to the first byte of the next head; not longer than
    /// [`FIRST_REQUEST`] for the first one.
    pub(crate) idle_timeout: Duration,
    /// How long a body that is waited for, a body that nobody reads, or a response that waits to be taken may stand
    /// still.
    pub(crate) stall_timeout: Duration,
    /// The whole response to a refused head, with `Connection: close`.
    pub(crate) answer: fn(Refusal) -> Bytes,
}

/// A connection that can be ended so that nobody takes its end for the end of a message.
pub(crate) trait Abort {
    /// Makes the close that follows a reset. What was not delivered yet is lost.
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "a connection cannot be reset");
        }
    }
}

impl Abort for TlsStream<TcpStream> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

/// Called when a head is refused or timed out, at most once for a connection, before the answer is written.
pub(crate) type OnRefusal = Box<dyn FnOnce(&Refusal) + Send>;

/// What is waited for, each with its own timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The first byte of a head.
    Idle,
    /// The rest of a head.
    Head,
    /// The next part of a body.
    Body,
}

/// Why no more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed its side.
    Client,
    /// No request came in time.
    Idle,
    /// A head was refused; the answer waits until the library has sent all earlier responses.
    Head(Refusal),
    /// As [`End::Head`], and the answer is on its way. The library finds the end of the stream behind it.
    Answered(Refusal),
    /// A body was refused.
    Body(Refusal),
}

/// A client's connection that lets only well-formed HTTP/1.x through.
///
/// Made for the server side of one HTTP/1 library connection, which must not have `half_close` or
/// `pipeline_flush` set, and whose handler must call [`GuardHandle::request_done`] once for each request.
///
/// What reads find: bytes; the end of the stream when the client closed, was idle for too long, or had a head
/// refused; [`io::ErrorKind::InvalidData`] with a [`Refusal`] inside for a malformed body;
/// [`io::ErrorKind::TimedOut`] for a body, and from writes for a response, that stands still.
///
/// Cancel safe: nothing is lost when a caller stops polling. Dropping it closes the connection without answer.
pub(crate) struct Guard<IO> {
    io: IO,
    /// That of [`Abort`], kept so that a drop can call it.
    abort: fn(&IO),
    settings: Arc<Settings>,
    scanner: Scanner,
    shared: Arc<Shared>,
    on_refusal: Option<OnRefusal>,
    /// Bytes that were read and not handed out.
    held: BytesMut,
    /// So many of the first `held` bytes may be handed out.
    approved: usize,
    /// Whether `held` has bytes the scanner has not judged.
    unjudged: bool,
    end: Option<End>,
    /// Requests handed out.
    released: u64,
    waiting: Option<(Wait, Instant)>,
    /// It was said that the library may go until the next request.
    is_at_rest: bool,
    /// When a byte last moved in either direction, as long as the library has not come back for more of the request.
    unread: Option<Instant>,
    alarm: Alarm,
    output: Output,
    farewell: Farewell,
}

/// The write side.
#[derive(Debug, Default)]
struct Output {
    /// The library has written since it last flushed, so it may be in the middle of a response.
    unflushed: bool,
    /// How many requests were done when the library last flushed.
    done_at_flush: u64,
    /// The interim response that is being written.
    interim: Option<Bytes>,
    /// When the client stopped taking bytes.
    stalled: Option<Instant>,
}

impl<IO> std::fmt::Debug for Guard<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("place", &self.scanner.place())
            .field("held", &self.held.len())
            .field("end", &self.end)
            .field("released", &self.released)
            .finish_non_exhaustive()
    }
}

impl<IO> Drop for Guard<IO> {
    fn drop(&mut self) {
        // The waker keeps the connection's task alive, and that task may keep the handle.
        self.shared.forget_waker();
        if self.ends_in_doubt() {
            (self.abort)(&self.io);
        }
    }
}

impl<IO> Guard<IO> {
    /// Wraps `io`, whose next byte is the first one of a head. The idle timeout runs from the first read.
    pub(crate) fn new(io: IO, settings: Arc<Settings>, on_refusal: OnRefusal) -> (Self, GuardHandle)
    where
        IO: Abort,
    {
        let shared = Arc::new(Shared::default());
        let handle = GuardHandle::new(Arc::clone(&shared));
        let guard = Self {
            io,
            abort: IO::abort,
            scanner: Scanner::new(settings.limits),
            settings,
            shared,
            on_refusal: Some(on_refusal),
            held: BytesMut::new(),
            approved: 0,
            unjudged: false,
            end: None,
            released: 0,
            waiting: None,
            is_at_rest: false,
            unread: None,
            alarm: Alarm::default(),
            output: Output::default(),
            farewell: Farewell::default(),
        };
        (guard, handle)
    }

    /// Requests handed out whose responses are not complete.
    fn in_flight(&self) -> u64 {
        self.released.saturating_sub(self.shared.done())
    }

    /// Whether the end of the stream could be taken for the end of a response that is not complete: to HTTP/1.0 a
    /// response without a length ends with its connection (RFC 9112 §8), so that only a reset tells.
    ///
    /// Other clients see from the length or the last chunk that something is missing, and get what is on its way.
    fn ends_in_doubt(&self) -> bool {
        self.scanner.has_seen_http10()
            && !matches!(self.farewell, Farewell::Done)
            && (self.shared.is_cut() || self.in_flight() > 0)
    }

    /// The library has got bytes and is to come back for more.
    fn handed_out(&mut self, cx: &mut Context<'_>) {
        // Behind a request that is whole in the library's buffer another one may wait for its turn, as long as the
        // response before it takes; that is no reason to doubt the client.
        let is_awaited = match self.scanner.place() {
            Place::Body => true,
            Place::Head => self.in_flight() <= 1,
            Place::AwaitUpgrade | Place::Upgraded | Place::Refused => false,
        };
        self.is_at_rest = false;
        self.unread = is_awaited.then(Instant::now);
        if let Some(since) = self.unread {
            self.alarm.arm(cx, since + self.settings.stall_timeout);
        }
    }

    /// Fails when the library has left the rest of a request unread for too long while the response stands still
    /// too. Nothing else would tell that the client has gone: its end waits behind bytes that nobody reads.
    fn check_unread(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(since) = self.unread else { return Ok(()) };
        let deadline = since + self.settings.stall_timeout;
        if Instant::now() >= deadline {
            return Err(timed_out("nobody read the body of the request"));
        }
        self.alarm.arm(cx, deadline);
        Ok(())
    }

    /// Whether there is something of a request that was not handed out, or the answer to its refusal.
    fn has_begun(&self) -> bool {
        match self.end {
            None => self.scanner.place() == Place::Head && self.held.len() > self.approved,
            Some(End::Head(_) | End::Answered(_)) => true,
            Some(End::Client | End::Idle | End::Body(_)) => false,
        }
    }

    fn refuse_head(&mut self, refusal: Refusal) {
        self.scanner.refuse(refusal);
        self.end = Some(End::Head(refusal));
        self.waiting = None;
        self.held = BytesMut::new();
        if let Some(on_refusal) = self.on_refusal.take() {
            on_refusal(&refusal);
        }
    }

    /// How many of `bytes`, which start at the first byte not released, may go on; all the way to a refusal.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut approved = 0;
        while let Some(rest) = bytes.get(approved..).filter(|rest| !rest.is_empty()) {
            let at_head = self.scanner.place() == Place::Head;
            match self.scanner.scan(rest) {
                Verdict::Release(count) => {
                    approved += count;
                    self.released += u64::from(at_head);
                    self.waiting = None;
                }
                Verdict::NeedMore => break,
                Verdict::Refuse(refusal) => {
                    if self.scanner.refused_in_body() {
                        self.end = Some(End::Body(refusal));
                    } else {
                        self.refuse_head(refusal);
                    }
                    break;
                }
            }
        }
        let open_body = if self.scanner.place() == Place::Body { self.released } else { 0 };
        self.shared.set_open_body(open_body);
        approved
    }

    fn judge_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.unjudged = false;
        self.approved = self.judge(&held);
        self.held = held;
        if self.end.is_some() {
            self.held.truncate(self.approved);
        }
    }

    /// Judges what was read to the end of `buf`, takes back what may not go on, and says how much stays.
    fn judge_read(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> usize {
        let fresh = buf.filled().get(before..).unwrap_or_default();
        let approved = self.judge(fresh);
        if self.end.is_none()
            && let Some(rest) = fresh.get(approved..)
        {
            self.held.extend_from_slice(rest);
        }
        buf.set_filled(before + approved);
        approved
    }

    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.approved.min(buf.remaining());
        let Some(bytes) = self.held.get(..count) else { return };
        buf.put_slice(bytes);
        self.held.advance(count);
        self.approved -= count;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Acts on what the handler said about the upgrade that is waited for.
    fn settle_upgrade(&mut self) {
        if self.scanner.place() != Place::AwaitUpgrade {
            return;
        }
        self.shared.wake_when_done();
        if self.shared.is_upgraded(self.released) {
            self.scanner.upgraded();
        } else {
            if self.in_flight() > 0 {
                return;
            }
            self.scanner.response_done();
        }
        self.unjudged = !self.held.is_empty();
    }

    /// Whether the library has passed on every byte of every response that is done, so that the end of the
    /// stream cannot cut one off.
    fn responses_are_out(&self) -> bool {
        let done = self.shared.done();
        self.released <= done && !self.output.unflushed && self.output.done_at_flush == done
    }

    fn idle_timeout(&self) -> Duration {
        let timeout = self.settings.idle_timeout;
        if self.released == 0 { timeout.min(FIRST_REQUEST) } else { timeout }
    }

    /// Keeps the timeout of what a read waits for. `Ready` means that `end` was set.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (wait, timeout) = match self.scanner.place() {
            Place::Head if !self.held.is_empty() => (Wait::Head, self.settings.header_timeout),
            Place::Head if self.responses_are_out() => (Wait::Idle, self.idle_timeout()),
            Place::Body => (Wait::Body, self.settings.stall_timeout),
            Place::Head | Place::AwaitUpgrade | Place::Upgraded | Place::Refused => {
                self.waiting = None;
                self.keep_looking(cx);
                return Poll::Pending;
            }
        };
        let since = match self.waiting {
            Some((waited, since)) if waited == wait => since,
            _ => Instant::now(),
        };
        self.waiting = Some((wait, since));
        let deadline = since + timeout;
        let rest = if wait == Wait::Idle { self.rests_at(since) } else { None };
        let next = rest.map_or(deadline, |rest| rest.min(deadline));
        if !self.alarm.is_due() || Instant::now() < next {
            self.alarm.arm(cx, next);
            return Poll::Pending;
        }
        if rest.is_some() {
            self.come_to_rest();
        }
        if Instant::now() < deadline {
            self.alarm.arm(cx, deadline);
            return Poll::Pending;
        }
        match wait {
            Wait::Idle => self.end = Some(End::Idle),
            Wait::Head => self.refuse_head(Refusal {
                reason: Reason::RequestTimeout,
                detail: "The head of the request did not arrive in time.",
            }),
            Wait::Body => return Poll::Ready(Err(timed_out("the body of the request made no progress"))),
        }
        Poll::Ready(Ok(()))
    }

    /// Sees to it that a connection without a timeout is looked at again, should the end of its last response
    /// have been told too late for any other wake-up.
    fn keep_looking(&mut self, cx: &mut Context<'_>) {
        if self.scanner.place() != Place::Upgraded && self.alarm.is_due() {
            self.alarm.arm(cx, Instant::now() + self.settings.idle_timeout);
        }
    }

    /// The alarm and the handle wake the task that polls. After an upgrade that may be another one.
    fn meet_task(&mut self, cx: &Context<'_>) {
        if self.shared.register(cx.waker()) {
            self.alarm.forget();
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Guard<IO> {
    fn poll_guarded_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.approved > 0 {
                self.hand_out(buf);
                self.handed_out(cx);
                return Poll::Ready(Ok(()));
            }
            match self.end {
                None => {}
                Some(End::Client | End::Idle) => return Poll::Ready(Ok(())),
                Some(End::Body(refusal)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
                }
                Some(End::Head(refusal)) => {
                    self.shared.wake_when_done();
                    if !self.responses_are_out() {
                        self.keep_looking(cx);
                        return Poll::Pending;
                    }
                    self.end = Some(End::Answered(refusal));
                    continue;
                }
                // Not left to the library's shutdown: after a request with an Upgrade field that was declined
                // it gives its connection away instead of shutting it down.
                Some(End::Answered(_)) => return self.poll_farewell(cx),
            }
            self.settle_upgrade();
            if self.unjudged {
                self.judge_held();
                continue;
            }
            if ready!(self.poll_fill(cx, buf))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads once. `true` means that `buf` has got bytes, `false` that the state has changed.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if self.held.len() >= MAX_WITHHELD && self.scanner.place() == Place::AwaitUpgrade {
            return self.poll_timeout(cx).map_ok(|()| false);
        }
        let io = Pin::new(&mut self.io);
        if self.held.is_empty() {
            let before = buf.filled().len();
            if io.poll_read(cx, buf)?.is_pending() {
                return self.poll_timeout(cx).map_ok(|()| false);
            }
            if buf.filled().len() > before {
                let has_bytes = self.judge_read(buf, before) > 0;
                if has_bytes {
                    self.handed_out(cx);
                }
                return Poll::Ready(Ok(has_bytes));
            }
        } else {
            // The unused part of the library's buffer is only borrowed here: `buf` itself stays empty.
            let mut part = buf.take(READ_STEP);
            if io.poll_read(cx, &mut part)?.is_pending() {
                return self.poll_timeout(cx).map_ok(|()| false);
            }
            if !part.filled().is_empty() {
                self.held.extend_from_slice(part.filled());
                self.unjudged = true;
                return Poll::Ready(Ok(false));
            }
        }
        self.end = Some(End::Client);
        Poll::Ready(Ok(false))
    }

    /// Runs a write-like operation under the stall timeout.
    fn poll_timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(Pin<&mut IO>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let outcome = operation(Pin::new(&mut self.io), cx);
        if outcome.is_ready() {
            self.output.stalled = None;
            return outcome;
        }
        let now = Instant::now();
        let deadline = *self.output.stalled.get_or_insert(now) + self.settings.stall_timeout;
        if now >= deadline {
            return Poll::Ready(Err(timed_out("the client took no bytes of the response")));
        }
        self.alarm.arm(cx, deadline);
        Poll::Pending
    }

    /// Writes the interim responses that wait, unless the library may be in the middle of a response.
    ///
    /// An interim response that was begun is always finished first, because then the library's bytes wait.
    fn poll_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wrote = false;
        while !self.output.unflushed {
            let waiting = self.output.interim.take().or_else(|| self.shared.next_interim());
            let Some(mut interim) = waiting else { break };
            while !interim.is_empty() {
                match self.poll_timed(cx, |io, cx| io.poll_write(cx, &interim)) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => interim.advance(count),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.output.interim = Some(interim);
                        return Poll::Pending;
                    }
                }
            }
            wrote = true;
        }
        if wrote { self.poll_timed(cx, |io, cx| io.poll_flush(cx)) } else { Poll::Ready(Ok(())) }
    }

    fn poll_library_write(
        &mut self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(Pin<&mut IO>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.output.unflushed {
            ready!(self.poll_interims(cx))?;
            self.output.unflushed = true;
        }
        let written = self.poll_timed(cx, operation);
        if written.is_ready() {
            // A client that takes the response is there, and one that is not will make a write fail.
            self.unread = self.unread.map(|_| Instant::now());
        }
        written
    }

    fn poll_library_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The library flushes whenever its task is woken, also while it does not read.
        self.check_unread(cx)?;
        // It does so only when it has passed on every byte of its own.
        let done = self.shared.done();
        ready!(self.poll_timed(cx, |io, cx| io.poll_flush(cx)))?;
        let was_out = self.responses_are_out();
        self.output.unflushed = false;
        self.output.done_at_flush = done;
        if !was_out && self.responses_are_out() {
            self.after_last_response(cx);
        }
        self.poll_interims(cx)
    }

    /// The library does not read again by itself after a read that was pending, so this is where what waited
    /// for the end of a response goes on.
    fn after_last_response(&mut self, cx: &mut Context<'_>) {
        if self.end.is_some() {
            cx.waker().wake_by_ref();
        } else if self.waiting.is_none() && self.scanner.place() == Place::Head {
            let now = Instant::now();
            self.waiting = Some((Wait::Idle, now));
            self.alarm.arm(cx, now + self.settings.idle_timeout.min(rest::REST));
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // The library has come back: from here on the timeouts are those of what it waits for.
        this.unread = None;
        // One task may read an upgraded connection and another one write it. Then the alarm is the writer's.
        if this.scanner.place() != Place::Upgraded {
            this.meet_task(cx);
            if let Poll::Ready(Err(error)) = this.poll_interims(cx) {
                return Poll::Ready(Err(error));
            }
        }
        let read = this.poll_guarded_read(cx, buf);
        this.shared.set_begun(this.has_begun());
        read
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_library_write(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_library_write(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.meet_task(cx);
        this.poll_library_flush(cx)
    }

    /// Closes the write side, and behind a request that was not read to its end reads a little longer, so that
    /// the client finds the response and not a reset.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_farewell(cx)
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// One timer for all deadlines of a connection.
///
/// It is set to the earliest deadline of the moment and left alone when that deadline goes away; when it rings,
/// whoever waits looks at its real deadline and arms it again. So a request costs no timer operation.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Whether it has rung, or was never set: only then a deadline it was armed for can have passed.
    pub(super) fn is_due(&self) -> bool {
        self.sleep.as_ref().is_none_or(|sleep| sleep.is_elapsed())
    }

    /// Wakes the task at `deadline` or before.
    pub(super) fn arm(&mut self, cx: &mut Context<'_>, deadline: Instant) {
        let sleep = match &mut self.sleep {
            Some(sleep) if !sleep.is_elapsed() && sleep.deadline() <= deadline => return,
            Some(sleep) => {
                sleep.as_mut().reset(deadline);
                sleep
            }
            None => self.sleep.insert(Box::pin(sleep_until(deadline))),
        };
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Is unset, because it would wake a task that does not poll any more.
    fn forget(&mut self) {
        self.sleep = None;
    }
}
