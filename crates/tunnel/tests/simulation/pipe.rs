//! A link between two machines: in order and without loss until it is cut, as TCP is, and otherwise as bad as one
//! likes: slow, narrow, stuck, dead in one direction or both, cut under one end only.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::random::Random;

/// Bytes that travel together.
const SEGMENT: usize = 8 * 1024;
/// What an end with a buffer of its own takes before it has to flush.
const STAGE: usize = 16 * 1024;

/// How a link is when nothing is wrong with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) latency: Duration,
    pub(crate) jitter: Duration,
    /// Bytes a second.
    pub(crate) bandwidth: u64,
    /// Bytes one direction holds between the writer and the reader.
    pub(crate) buffer: usize,
    /// Whether reads and writes move only parts of what they could.
    pub(crate) piecemeal: bool,
    /// Whether written bytes stay with the writer until it flushes, as TLS may do.
    pub(crate) staged: bool,
}

/// One direction.
#[derive(Debug)]
struct Way {
    weather: Weather,
    random: Random,
    under_way: VecDeque<(Instant, Bytes)>,
    held: usize,
    free_at: Instant,
    last_at: Instant,
    /// Nothing arrives any longer; what was written waits.
    is_blocked: bool,
    /// The writer has ended it.
    is_ended: bool,
    /// The reader is gone.
    is_unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// When the reader last got bytes.
    heard: Instant,
    /// The reader wants to know the next time it gets bytes.
    carried: u64,
}

impl Way {
    fn new(weather: Weather, random: Random) -> Self {
        let now = Instant::now();
        Self {
            weather,
            random,
            under_way: VecDeque::new(),
            held: 0,
            free_at: now,
            last_at: now,
            is_blocked: false,
            is_ended: false,
            is_unread: false,
            reader: None,
            writer: None,
            heard: now,
            carried: 0,
        }
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn accept(&mut self, bytes: &[u8]) -> usize {
        let room = self.weather.buffer.saturating_sub(self.held).min(SEGMENT).min(bytes.len());
        let n = if self.weather.piecemeal && room > 1 && self.random.chance(40) {
            self.random.len(1, room)
        } else {
            room
        };
        if n == 0 {
            return 0;
        }
        let takes = Duration::from_micros(n as u64 * 1_000_000 / self.weather.bandwidth);
        self.free_at = self.free_at.max(Instant::now()) + takes;
        let jitter = u64::try_from(self.weather.jitter.as_micros()).unwrap();
        let late = Duration::from_micros(self.random.below(jitter + 1));
        self.last_at = self.last_at.max(self.free_at + self.weather.latency + late);
        self.under_way.push_back((self.last_at, Bytes::copy_from_slice(&bytes[..n])));
        self.held += n;
        self.reader.take().into_iter().for_each(Waker::wake);
        n
    }
}

#[derive(Debug)]
struct State {
    ways: [Way; 2],
    /// What an end is told instead of anything else.
    broken: [Option<ErrorKind>; 2],
    /// Once something gets through again, both ends learn that the link is no more.
    is_forgotten: bool,
}

/// What the storm does to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes either way.
    BlackHole,
    /// Nothing passes from this end (0 or 1) to the other.
    OneWay(usize),
    /// Both ends hear that the connection was reset; what was under way is lost.
    Cut,
    /// Only this end hears it. The other one hears nothing any more.
    HalfOpen(usize),
    /// This end's direction ends in the middle of whatever it carries.
    Truncate(usize),
}

/// A link, for whoever decides about its weather.
#[derive(Debug, Clone)]
pub(crate) struct Link(Arc<Mutex<State>>);

impl Link {
    /// A link and its two ends: number 0 and number 1.
    pub(crate) fn new(weather: Weather, random: &mut Random) -> (Self, End, End) {
        let ways = [0, 1].map(|_| Way::new(weather, random.fork()));
        let link = Self(Arc::new(Mutex::new(State { ways, broken: [None; 2], is_forgotten: false })));
        let end = |side| End { link: link.clone(), side, timer: None, staged: BytesMut::new() };
        let ends = (end(0), end(1));
        (link, ends.0, ends.1)
    }

    pub(crate) fn strike(&self, fault: Fault) {
        let mut state = self.0.lock();
        match fault {
            Fault::BlackHole => state.ways.iter_mut().for_each(|way| way.is_blocked = true),
            Fault::OneWay(from) => state.ways[from].is_blocked = true,
            Fault::Cut => state.cut([true, true]),
            Fault::HalfOpen(side) => {
                state.ways.iter_mut().for_each(|way| way.is_blocked = true);
                state.is_forgotten = true;
                state.cut([side == 0, side == 1]);
            }
            Fault::Truncate(from) => {
                let way = &mut state.ways[from];
                let keep = way.random.len(0, way.under_way.len());
                way.under_way.truncate(keep);
                if let Some((_, last)) = way.under_way.back_mut() {
                    let keep = way.random.len(1, last.len());
                    last.truncate(keep);
                }
                way.is_ended = true;
                way.wake();
            }
        }
    }

    /// Whatever was blocked passes again; a link that one end has forgotten is reset.
    pub(crate) fn heal(&self) {
        let mut state = self.0.lock();
        state.ways.iter_mut().for_each(|way| {
            way.is_blocked = false;
            way.wake();
        });
        if state.is_forgotten {
            state.cut([true, true]);
        }
    }

    /// When this end last got bytes.
    pub(crate) fn heard(&self, side: usize) -> Instant {
        self.0.lock().ways[1 - side].heard
    }

    /// Whether this end still exists.
    pub(crate) fn is_used(&self, side: usize) -> bool {
        !self.0.lock().ways[1 - side].is_unread
    }

    /// Bytes this end has got in all.
    pub(crate) fn carried(&self, side: usize) -> u64 {
        self.0.lock().ways[1 - side].carried
    }

    /// Ends that still exist.
    pub(crate) fn ends(&self) -> usize {
        // One reference is this one.
        Arc::strong_count(&self.0) - 1
    }
}

impl State {
    fn cut(&mut self, ends: [bool; 2]) {
        for (side, _) in ends.iter().enumerate().filter(|(_, is_cut)| **is_cut) {
            self.broken[side].get_or_insert(ErrorKind::ConnectionReset);
        }
        if ends == [true, true] {
            for way in &mut self.ways {
                way.under_way.clear();
                way.held = 0;
            }
        }
        self.ways.iter_mut().for_each(Way::wake);
    }
}

/// One end of a link: what a session is given as its transport.
#[derive(Debug)]
pub(crate) struct End {
    link: Link,
    side: usize,
    timer: Option<Pin<Box<Sleep>>>,
    staged: BytesMut,
}

impl End {
    fn push(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.link.0.lock();
        if let Some(kind) = state.broken[self.side] {
            return Poll::Ready(Err(kind.into()));
        }
        let way = &mut state.ways[self.side];
        if way.is_ended {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if way.is_unread && !way.is_blocked {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let n = way.accept(bytes);
        if n == 0 && !bytes.is_empty() {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(n))
    }

    fn push_staged(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        while !self.staged.is_empty() {
            let n = ready!(self.push(cx, &self.staged))?;
            self.staged.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let due = {
                let mut state = self.link.0.lock();
                if let Some(kind) = state.broken[self.side] {
                    return Poll::Ready(Err(kind.into()));
                }
                let way = &mut state.ways[1 - self.side];
                let now = Instant::now();
                match way.under_way.front_mut() {
                    Some((at, bytes)) if !way.is_blocked && *at <= now => {
                        let most = bytes.len().min(buf.remaining());
                        let n = if way.weather.piecemeal && most > 1 && way.random.chance(30) {
                            way.random.len(1, most)
                        } else {
                            most
                        };
                        buf.put_slice(&bytes.split_to(n));
                        if bytes.is_empty() {
                            way.under_way.pop_front();
                        }
                        way.held -= n;
                        way.heard = now;
                        way.carried += n as u64;
                        way.writer.take().into_iter().for_each(Waker::wake);
                        return Poll::Ready(Ok(()));
                    }
                    None if !way.is_blocked && way.is_ended => return Poll::Ready(Ok(())),
                    Some((at, _)) if !way.is_blocked => {
                        way.reader = Some(cx.waker().clone());
                        *at
                    }
                    _ => {
                        way.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                }
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let is_staged = self.link.0.lock().ways[self.side].weather.staged;
        if !is_staged {
            return self.push(cx, buf);
        }
        if self.staged.len() >= STAGE {
            // Room is made as the way takes bytes, however few.
            let n = ready!(self.push(cx, &self.staged))?;
            self.staged.advance(n);
        }
        let n = buf.len().min(STAGE.saturating_sub(self.staged.len()));
        self.staged.extend_from_slice(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.push_staged(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.push_staged(cx))?;
        let way = &mut self.link.0.lock().ways[self.side];
        if !std::mem::replace(&mut way.is_ended, true) {
            way.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.link.0.lock();
        // An end that goes with bytes unread resets the link, and what it had sent may be lost with it.
        let unread = &mut state.ways[1 - self.side];
        unread.is_unread = true;
        let resets = unread.held > 0 && unread.random.chance(50);
        unread.wake();
        let way = &mut state.ways[self.side];
        way.is_ended = true;
        if resets && !way.is_blocked {
            state.broken[1 - self.side].get_or_insert(ErrorKind::ConnectionReset);
        }
        state.ways[self.side].wake();
    }
}
