//! The sending half: whose bytes go into a round, and how many.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use adit_proto::frame::{self, FrameHeader, HEADER_LEN, Kind};
use adit_proto::limits;
use adit_proto::reason::Reason;
use bytes::{BufMut as _, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::{Gone, Mux, replace_waker};

/// Bytes one stream may put into a round.
pub(crate) const QUANTUM: usize = 64 * 1024;
/// A round takes no more data frames beyond this size; control frames always fit.
pub(super) const ROUND_FULL: usize = 256 * 1024;
/// Room for the first read from a source. One that fills its room gets twice as much the next time.
pub(super) const FIRST_READ: usize = 4 * 1024;

/// What [`Mux::take_round`] hands to the driver, and gets back empty for reuse.
pub(crate) type Round = BytesMut;

/// How [`Mux::poll_fill`] went.
#[derive(Debug)]
pub(crate) enum Filled {
    /// So many bytes are in the round.
    Bytes(usize),
    /// The source has ended.
    End,
    /// The source has failed.
    Failed(io::Error),
}

impl Mux {
    /// Puts bytes into the current round and returns how many fitted.
    pub(crate) fn poll_write(
        &mut self,
        id: u32,
        bufs: &[IoSlice<'_>],
        waker: &Waker,
    ) -> Poll<Result<usize, Gone>> {
        let wanted = bufs.iter().map(|b| b.len()).sum::<usize>();
        let room = std::task::ready!(self.poll_room(id, wanted, waker))?;
        if room > 0 {
            put_slices(&mut self.out, id, bufs, room);
            self.put(id, room);
        }
        Poll::Ready(Ok(room))
    }

    /// Reads from `source` straight into the current round, as much as the stream may put there now.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        id: u32,
        source: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Filled, Gone>> {
        let expected = self.rows.get(&id).map_or(0, |row| row.next_read);
        let room = std::task::ready!(self.poll_room(id, expected, cx.waker()))?;
        let at = self.out.len();
        self.out.reserve(HEADER_LEN + room);
        self.out.put_bytes(0, HEADER_LEN);
        let polled = poll_read_buf(Pin::new(source), cx, &mut (&mut self.out).limit(room));
        let Poll::Ready(Ok(len @ 1..)) = polled else {
            self.out.truncate(at);
            return polled.map(|read| Ok(read.map_or_else(Filled::Failed, |_zero| Filled::End)));
        };
        let mut header = [0; HEADER_LEN];
        FrameHeader { kind: Kind::Data, stream: id, len }.encode(&mut header.as_mut_slice());
        self.out[at..at + HEADER_LEN].copy_from_slice(&header);
        self.put(id, len);
        if let Some(row) = self.rows.get_mut(&id) {
            row.read(len);
        }
        Poll::Ready(Ok(Filled::Bytes(len)))
    }

    /// How many of `wanted` bytes the stream may put into the current round. Waits while that is none.
    fn poll_room(&mut self, id: u32, wanted: usize, waker: &Waker) -> Poll<Result<usize, Gone>> {
        let Some(row) = self.rows.get_mut(&id) else {
            return Poll::Ready(Err(Gone::Local(Reason::Cancelled)));
        };
        if let Some(gone) = row.gone {
            return Poll::Ready(Err(gone));
        }
        if row.local_fin {
            return Poll::Ready(Err(Gone::Local(Reason::Done)));
        }
        let wanted = wanted.min(limits::MAX_DATA_PAYLOAD);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        if row.round != self.round {
            row.round = self.round;
            row.in_round = 0;
        }
        let room = if self.out.len() >= ROUND_FULL { 0 } else { QUANTUM - row.in_round };
        let credit = usize::try_from(row.send_credit).unwrap_or(usize::MAX);
        let n = wanted.min(room).min(credit);
        if n == 0 {
            replace_waker(&mut row.writer, waker);
            if credit > 0 && row.waits_in != self.round {
                row.waits_in = self.round;
                self.waiting.push_back(id);
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(n))
    }

    /// Accounts for `n` bytes of a stream that are in the round now.
    fn put(&mut self, id: u32, n: usize) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.in_round += n;
            row.send_credit -= u32::try_from(n).unwrap_or(u32::MAX);
        }
        self.asks = true;
        self.wake_driver();
    }

    /// Ends this side's direction. What was written before arrives first.
    pub(crate) fn finish(&mut self, id: u32) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        if row.local_fin || row.gone.is_some() {
            return;
        }
        row.local_fin = true;
        frame::put(&mut self.out, Kind::Fin, id, &[]);
        self.wake_driver();
    }

    /// Takes what is ready for the wire, leaving `spare` (emptied) in its place, and starts the next round.
    pub(crate) fn take_round(&mut self, spare: Round, wake: &mut Vec<Waker>) -> Round {
        debug_assert!(spare.is_empty());
        self.round += 1;
        for id in self.waiting.drain(..) {
            if let Some(row) = self.rows.get_mut(&id) {
                wake.extend(row.writer.take());
            }
        }
        std::mem::replace(&mut self.out, spare)
    }
}

/// Appends one frame with the first `n` bytes of `bufs`.
fn put_slices(out: &mut BytesMut, id: u32, bufs: &[IoSlice<'_>], n: usize) {
    out.reserve(HEADER_LEN + n);
    FrameHeader { kind: Kind::Data, stream: id, len: n }.encode(out);
    let mut left = n;
    for buf in bufs {
        let part = buf.len().min(left);
        out.put_slice(&buf[..part]);
        left -= part;
        if left == 0 {
            break;
        }
    }
}
