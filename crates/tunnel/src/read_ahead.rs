//! Reads what a busy socket holds in one go. The TLS library asks for a few kilobytes at a time; each time would be a
//! system call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes read at once while a socket is busy.
const BUSY: usize = 128 * 1024;
/// Quiet reads in a row before the buffer is given back.
const QUIET_READS: u32 = 32;
/// A read of at most this many bytes is a quiet one.
const QUIET: usize = 4 * 1024;

/// A socket that is read ahead of demand while it is busy. An idle one holds no buffer.
#[derive(Debug)]
pub struct ReadAhead<IO> {
    io: IO,
    buffer: BytesMut,
    /// The last read brought all that was asked for: there is more where it came from.
    is_busy: bool,
    quiet: u32,
}

impl<IO> ReadAhead<IO> {
    /// Reads ahead of `io`.
    pub fn new(io: IO) -> Self {
        Self { io, buffer: BytesMut::new(), is_busy: false, quiet: 0 }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.buffer.is_empty() {
            if !this.is_busy {
                let (before, wanted) = (buf.filled().len(), buf.remaining());
                std::task::ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                this.is_busy = buf.filled().len() - before == wanted;
                return Poll::Ready(Ok(()));
            }
            this.buffer.reserve(BUSY);
            match poll_read_buf(Pin::new(&mut this.io), cx, &mut (&mut this.buffer)) {
                Poll::Ready(Ok(n)) => {
                    this.quiet = if n > QUIET { 0 } else { this.quiet + 1 };
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if this.quiet >= QUIET_READS {
                        (this.buffer, this.is_busy, this.quiet) = (BytesMut::new(), false, 0);
                    }
                    return Poll::Pending;
                }
            }
        }
        let n = this.buffer.len().min(buf.remaining());
        buf.put_slice(&this.buffer[..n]);
        this.buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

crate::forward_writes!(ReadAhead);
