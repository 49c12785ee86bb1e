//! One byte stream inside a session.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use adit_proto::reason::Reason;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::mux::{Filled, Gone};
use crate::session::Lane;

/// A stream was ended by a reset or with its session. Travels inside [`io::Error`]; find it again with
/// [`StreamError::find`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stream ended: {reason}")]
pub struct StreamError {
    /// Why.
    pub reason: Reason,
}

impl StreamError {
    /// Looks for a stream's end among an error's sources.
    #[must_use]
    pub fn find(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            if let Some(found) = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
                .and_then(|e| e.downcast_ref::<Self>())
            {
                return Some(*found);
            }
            next = error.source();
        }
        None
    }
}

impl From<Gone> for io::Error {
    fn from(gone: Gone) -> Self {
        Self::new(io::ErrorKind::ConnectionReset, StreamError { reason: gone.reason() })
    }
}

/// A byte stream to the other end of a session. Dropping it before both directions have ended resets it.
#[derive(Debug)]
pub struct Stream {
    handle: Arc<Handle>,
    /// Received and not yet read by this stream's user.
    pending: BytesMut,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Even if somebody still watches: without its stream nothing more can be read or written.
        self.reset(Reason::Cancelled);
    }
}

/// Keeps the stream's row: it lives as long as the stream or any watcher of it.
#[derive(Debug)]
struct Handle {
    lane: Arc<Lane>,
    id: u32,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.lane.with(|mux, wake| mux.release(self.id, wake));
    }
}

/// Looks at a stream that somebody else owns, and can end it. Keeps the stream's row alive, not the stream.
#[derive(Debug, Clone)]
pub struct Watch {
    handle: Arc<Handle>,
}

impl Watch {
    /// Whether the peer has confirmed that the upstream is connected. Until then nothing has reached it.
    #[must_use]
    pub fn is_opened(&self) -> bool {
        self.handle.lane.with(|mux, _| mux.is_opened(self.handle.id))
    }

    /// Waits until the upstream is connected or the stream has ended. One waiter at a time. Cancel safe.
    pub async fn opened(&self) {
        poll_fn(|cx| self.handle.lane.with(|mux, _| mux.poll_opened(self.handle.id, cx.waker()))).await;
    }

    /// Bytes it has received in all.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.handle.lane.with(|mux, _| mux.received(self.handle.id))
    }

    /// How the stream was ended, if it was reset or its session has ended.
    #[must_use]
    pub fn end(&self) -> Option<Reason> {
        self.handle.lane.with(|mux, _| mux.gone(self.handle.id)).map(Gone::reason)
    }

    /// Ends both directions at once.
    pub fn reset(&self, reason: Reason) {
        self.handle.lane.with(|mux, wake| mux.reset(self.handle.id, reason, wake));
    }
}

impl Stream {
    pub(crate) fn new(lane: Arc<Lane>, id: u32) -> Self {
        Self { handle: Arc::new(Handle { lane, id }), pending: BytesMut::new() }
    }

    /// The stream's number in its session, for logs.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.handle.id
    }

    /// A handle to look at the stream with.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { handle: Arc::clone(&self.handle) }
    }

    /// Tells the opener that the upstream is connected.
    pub fn confirm(&self) {
        self.handle.lane.with(|mux, _| mux.confirm(self.handle.id));
    }

    /// Ends both directions at once; what the peer has not read yet is lost.
    pub fn reset(&self, reason: Reason) {
        self.handle.lane.with(|mux, wake| mux.reset(self.handle.id, reason, wake));
    }

    /// Waits until the stream is reset or its session ends; the end of what the peer sends is neither. For whoever does
    /// not read meanwhile. Cancel safe.
    pub async fn gone(&self) {
        poll_fn(|cx| self.poll_gone(cx).map(drop)).await;
    }

    /// The next bytes as they arrived; `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// [`StreamError`] inside an [`io::Error`] when the stream was reset or its session ended.
    pub async fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_read_chunk(cx)).await
    }

    /// Puts bytes back in front of what is read next; for whoever read further than it should have.
    pub fn unread(&mut self, bytes: &[u8]) {
        let rest = std::mem::replace(&mut self.pending, BytesMut::from(bytes));
        self.pending.extend_from_slice(&rest);
    }

    /// Poll form of [`Stream::read_chunk`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.pending.is_empty() {
            ready!(self.poll_pending(cx))?;
        }
        let chunk = std::mem::take(&mut self.pending).freeze();
        Poll::Ready(Ok((!chunk.is_empty()).then_some(chunk)))
    }

    /// Adds what has arrived to `pieces`, up to a bound; nothing at the end of the stream.
    pub(crate) fn poll_read_chunks(
        &mut self,
        cx: &Context<'_>,
        pieces: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<()>> {
        if !self.pending.is_empty() {
            pieces.push_back(std::mem::take(&mut self.pending).freeze());
            return Poll::Ready(Ok(()));
        }
        let read = self.handle.lane.with(|mux, _| mux.poll_read_pieces(self.handle.id, cx.waker(), pieces));
        Poll::Ready(ready!(read).map_err(io::Error::from))
    }

    /// Waits until the stream is reset or its session ends; for whoever has read to the end of its input or cannot
    /// read on.
    pub(crate) fn poll_gone(&self, cx: &Context<'_>) -> Poll<Reason> {
        self.handle.lane.with(|mux, _| mux.poll_gone(self.handle.id, cx.waker())).map(Gone::reason)
    }

    fn poll_pending(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.pending = ready!(self.handle.lane.with(|mux, _| mux.poll_read(self.handle.id, cx.waker())))?;
        Poll::Ready(Ok(()))
    }

    /// Reads from `source` straight into what leaves next, as much as the stream may put there now.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &self,
        source: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Filled>> {
        let filled = ready!(self.handle.lane.with(|mux, _| mux.poll_fill(self.handle.id, source, cx)));
        Poll::Ready(filled.map_err(io::Error::from))
    }

    fn poll_write_slices(&self, cx: &Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.handle.lane.with(|mux, _| mux.poll_write(self.handle.id, bufs, cx.waker())) {
            Poll::Ready(Err(Gone::Local(Reason::Done))) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Ready(result) => Poll::Ready(result.map_err(io::Error::from)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.pending.is_empty() {
            ready!(self.poll_pending(cx))?;
        }
        let n = self.pending.len().min(buf.remaining());
        buf.put_slice(&self.pending[..n]);
        self.pending.advance(n);
        if self.pending.is_empty() {
            // Gives the memory back; an idle stream holds none.
            self.pending = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Written bytes are with the session already; there is nothing to wait for.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends this direction; the other one goes on.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.handle.lane.with(|mux, _| mux.finish(self.handle.id));
        Poll::Ready(Ok(()))
    }
}
