//! Whether an HTTP/2 client finishes what it begins. The library waits for the rest of a frame, and for the rest of a
//! header block, for as long as the connection lives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::PREFACE;
use super::guard::Alarm;

/// Bytes in front of each frame (RFC 9113 §4.1).
const FRAME_HEADER: usize = 9;
/// Frame types that matter here (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// The flag of a frame that ends its header block.
const END_HEADERS: u8 = 4;

/// What has begun and is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfinished {
    /// What a client sends in one go: the preface with its settings, a header block, any frame but the one below.
    Head,
    /// A part of a body, which may come as slowly as a body may.
    Data,
}

/// Where in the client's frames its last byte stood. Judges nothing: that is the library's to do.
#[derive(Debug)]
struct Frames {
    /// Bytes of the preface that are to come.
    preface: usize,
    /// No frame is complete yet. The first one belongs to the preface (RFC 9113 §3.4).
    is_first: bool,
    header: [u8; FRAME_HEADER],
    /// How much of `header` is filled.
    filled: usize,
    /// Bytes of the payload that are to come, when `header` is full.
    payload: usize,
    /// A header block was begun and not ended.
    in_block: bool,
    /// Goes up with everything that is finished.
    finished: u64,
}

impl Frames {
    const fn new() -> Self {
        Self {
            preface: PREFACE.len(),
            is_first: true,
            header: [0; FRAME_HEADER],
            filled: 0,
            payload: 0,
            in_block: false,
            finished: 0,
        }
    }

    fn came(&mut self, mut bytes: &[u8]) {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        bytes = bytes.get(skipped..).unwrap_or_default();
        while let Some(byte) = bytes.first() {
            if let Some(next) = self.header.get_mut(self.filled) {
                *next = *byte;
                self.filled += 1;
                bytes = bytes.get(1..).unwrap_or_default();
                if self.filled == FRAME_HEADER {
                    let [high, middle, low, ..] = self.header;
                    self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                }
            } else {
                let taken = self.payload.min(bytes.len());
                self.payload -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
            }
            if self.filled == FRAME_HEADER && self.payload == 0 {
                self.end_frame();
            }
        }
    }

    fn end_frame(&mut self) {
        let [_, _, _, kind, flags, ..] = self.header;
        self.filled = 0;
        self.is_first = false;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
        }
        if !self.in_block {
            self.finished += 1;
        }
    }

    const fn unfinished(&self) -> Option<Unfinished> {
        let [_, _, _, kind, ..] = self.header;
        if self.is_first || self.in_block {
            return Some(Unfinished::Head);
        }
        match self.filled {
            0 => None,
            FRAME_HEADER if kind == DATA => Some(Unfinished::Data),
            _ => Some(Unfinished::Head),
        }
    }
}

/// A client's connection whose reads fail when something stays unfinished for too long.
#[derive(Debug)]
pub(super) struct Watched<IO> {
    io: IO,
    frames: Frames,
    /// For everything but parts of bodies, from the first byte to the last.
    header_timeout: Duration,
    /// For parts of bodies, from byte to byte.
    stall_timeout: Duration,
    since: Instant,
    alarm: Alarm,
}

impl<IO> Watched<IO> {
    /// Watches `io`, whose next byte is the first one of the preface.
    pub(super) fn new(io: IO, header_timeout: Duration, stall_timeout: Duration) -> Self {
        Self {
            io,
            frames: Frames::new(),
            header_timeout,
            stall_timeout,
            since: Instant::now(),
            alarm: Alarm::default(),
        }
    }

    fn came(&mut self, bytes: &[u8]) {
        let (was, finished) = (self.frames.unfinished(), self.frames.finished);
        self.frames.came(bytes);
        let is_same = was == Some(Unfinished::Head) && finished == self.frames.finished;
        if !is_same {
            self.since = Instant::now();
        }
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timeout = match self.frames.unfinished() {
            None => return Poll::Pending,
            Some(Unfinished::Head) => self.header_timeout,
            Some(Unfinished::Data) => self.stall_timeout,
        };
        let deadline = self.since + timeout;
        if Instant::now() >= deadline {
            let what = "the client did not finish what it began";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
        }
        self.alarm.arm(cx, deadline);
        Poll::Pending
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_pending() {
            return this.poll_timeout(cx);
        }
        this.came(buf.filled().get(before..).unwrap_or_default());
        read
    }
}

adit_tunnel::forward_writes!(Watched);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
    const STALL_TIMEOUT: Duration = Duration::from_secs(60);
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

    /// After how many seconds a client is cut that sends this and then nothing; `None` when it is not.
    async fn cut_after(pieces: &[&[u8]]) -> Option<u64> {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut watched = Watched::new(server, HEADER_TIMEOUT, STALL_TIMEOUT);
        let start = Instant::now();
        let mut buf = [0; 64];
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            let mut left = piece.len();
            while left > 0 {
                left -= watched.read(&mut buf[..left.min(7)]).await.unwrap();
            }
        }
        let end = tokio::time::timeout(Duration::from_secs(1000), watched.read(&mut buf)).await;
        let error = end.ok()?.expect_err("the client does not close");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        Some(start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_begun_has_to_be_finished() {
        let headers = [0, 0, 1, HEADERS, 0, 0, 0, 0, 1, 0x82];
        let ended = [0, 0, 1, HEADERS, END_HEADERS, 0, 0, 0, 1, 0x82];
        let continued = [0, 0, 0, CONTINUATION, 0, 0, 0, 0, 1];
        let done = [0, 0, 0, CONTINUATION, END_HEADERS, 0, 0, 0, 1];
        let data = [0, 0, 2, DATA, 0, 0, 0, 0, 1];
        let head = Some(HEADER_TIMEOUT.as_secs());
        let rows: [(&[&[u8]], Option<u64>); 9] = [
            (&[], head),
            (&[PREFACE], head),
            (&[PREFACE, &SETTINGS[..5]], head),
            (&[PREFACE, &SETTINGS], None),
            (&[PREFACE, &SETTINGS, &headers[..4]], head),
            (&[PREFACE, &SETTINGS, &headers, &continued], head),
            (&[PREFACE, &SETTINGS, &headers, &continued, &done], None),
            (&[PREFACE, &SETTINGS, &ended, &data, b"x"], Some(STALL_TIMEOUT.as_secs())),
            (&[PREFACE, &SETTINGS, &ended, &data, b"xy"], None),
        ];
        for (pieces, after) in rows {
            assert_eq!(cut_after(pieces).await, after, "{pieces:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_block_is_not_prolonged_by_more_of_it() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut watched = Watched::new(server, HEADER_TIMEOUT, STALL_TIMEOUT);
        client.write_all(PREFACE).await.unwrap();
        client.write_all(&SETTINGS).await.unwrap();
        let mut buf = [0; 64];
        assert_eq!(watched.read(&mut buf).await.unwrap(), PREFACE.len() + SETTINGS.len());
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let start = Instant::now();
        client.write_all(&[0, 0, 0, HEADERS, 0, 0, 0, 0, 1]).await.unwrap();
        let error = loop {
            match watched.read(&mut buf).await {
                Ok(_) => {
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    if start.elapsed() < HEADER_TIMEOUT {
                        client.write_all(&[0, 0, 0, CONTINUATION, 0, 0, 0, 0, 1]).await.unwrap();
                    }
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 12);
    }
}
