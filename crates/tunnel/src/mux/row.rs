//! One stream: what it has received, what either side may send, and who waits for it.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};

use super::writing::{FIRST_READ, QUANTUM};
use super::{Gone, INITIAL_WINDOW};

/// Payloads from here on are handed to the reader without a copy.
const LARGE: usize = 16 * 1024;
/// Least credit worth a frame of its own, in windows that allow for it.
const SMALLEST_GRANT: u32 = 64 * 1024;
/// Room for small payloads that pile up.
const SMALL_PIECES: usize = 4 * 1024;

/// One stream's row.
#[derive(Debug)]
pub(super) struct Row {
    /// What has arrived and was not taken, in pieces: a backlog is neither moved nor merged.
    pub(super) recv: VecDeque<BytesMut>,
    /// Credit the peer has left.
    pub(super) recv_credit: u32,
    /// Size of the window that credit is refilled to.
    pub(super) recv_window: u32,
    /// Bytes the reader has taken and the peer has not been told about.
    pub(super) taken: u32,
    /// When the window was last looked at, and the credit returned since: how fast is it used up?
    pub(super) looked_at: Duration,
    pub(super) returned: u32,
    pub(super) send_credit: u32,
    /// Bytes put into the round numbered `round`.
    pub(super) in_round: usize,
    pub(super) round: u64,
    /// Room for the next read from a source.
    pub(super) next_read: usize,
    pub(super) opened: bool,
    pub(super) local_fin: bool,
    pub(super) remote_fin: bool,
    pub(super) gone: Option<Gone>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) opener: Option<Waker>,
    /// The round whose end it waits for, if that is the present one.
    pub(super) waits_in: u64,
    /// Bytes that have arrived in all.
    pub(super) received: u64,
    /// What whoever opened it calls it, together with others; 0: nothing.
    pub(super) tag: u64,
}

impl Row {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            recv: VecDeque::new(),
            recv_credit: INITIAL_WINDOW,
            recv_window: INITIAL_WINDOW,
            taken: 0,
            looked_at: now,
            returned: 0,
            send_credit: INITIAL_WINDOW,
            in_round: 0,
            round: 0,
            next_read: FIRST_READ,
            opened: false,
            local_fin: false,
            remote_fin: false,
            gone: None,
            reader: None,
            writer: None,
            opener: None,
            waits_in: 0,
            received: 0,
            tag: 0,
        }
    }

    /// Stores the first `len` bytes of `input`.
    pub(super) fn receive(&mut self, input: &mut BytesMut, len: usize) {
        self.received += len as u64;
        // Shared with the read buffer, not copied: a reader that waits for it is about to pass it on, and little else
        // keeps that buffer alive beside something large.
        if len >= LARGE || (self.recv.is_empty() && self.reader.is_some() && len > 0) {
            self.recv.push_back(input.split_to(len));
            return;
        }
        if let Some(last) = self.recv.back_mut().filter(|last| last.capacity() - last.len() >= len) {
            last.extend_from_slice(&input[..len]);
        } else if len > 0 {
            // A second small piece in a row is likely followed by a third.
            let room = if self.recv.is_empty() { len } else { len.max(SMALL_PIECES) };
            let mut piece = BytesMut::with_capacity(room);
            piece.extend_from_slice(&input[..len]);
            self.recv.push_back(piece);
        }
        input.advance(len);
    }

    /// Bytes taken for which credit is returned: half of a small window, so that grants are few; an eighth of a large
    /// one, because a sender gets across no more than the window less what waits to be granted.
    pub(super) fn grant_from(&self) -> u32 {
        (self.recv_window / 8).max(SMALLEST_GRANT).min(self.recv_window / 2)
    }

    /// Whether the window is what limits the sender, as far as can be told when this much credit returns. A sender that
    /// waits for credit gets a window across in a round trip; one that has a whole window taken in less than two spends
    /// its time waiting. Looked at once in half a window.
    pub(super) fn is_limit(&mut self, credit: u32, now: Duration, rtt: Option<Duration>) -> bool {
        self.returned = self.returned.saturating_add(credit);
        if self.returned < self.recv_window / 2 {
            return false;
        }
        let took = now.saturating_sub(self.looked_at);
        let returned = std::mem::take(&mut self.returned);
        self.looked_at = now;
        rtt.is_some_and(|rtt| took * (self.recv_window / 2) < rtt * returned)
    }

    /// Notes that a read from a source has brought so much.
    pub(super) const fn read(&mut self, len: usize) {
        if len >= self.next_read {
            self.next_read = if len >= QUANTUM / 2 { QUANTUM } else { len * 2 };
        } else if len < self.next_read / 4 && self.next_read > FIRST_READ {
            self.next_read /= 2;
        }
    }

    pub(super) fn wake_all(&mut self, wake: &mut Vec<Waker>) {
        wake.extend(self.reader.take());
        wake.extend(self.writer.take());
        wake.extend(self.opener.take());
    }
}
