//! A body that streams pieces of one open file in constant memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

/// The most that one body holds in memory, and the most that it sends in one frame.
pub(super) const CHUNK: u64 = 64 * 1024;

/// What a body consists of, in order.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes that are sent as they are.
    Text(Bytes),
    /// A stretch of the file.
    File {
        /// Where it begins.
        start: u64,
        /// How many bytes it has.
        len: u64,
    },
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File { len, .. } => *len,
        }
    }
}

/// Sends its pieces in exactly the length they announce: a file that grew is cut off there, and one that shrank ends
/// the body with an error, because padding would pass for content.
#[derive(Debug)]
pub(super) struct FileBody {
    source: Source,
    pieces: VecDeque<Piece>,
    remaining: u64,
}

#[derive(Debug)]
enum Source {
    Idle(File),
    Reading(JoinHandle<(File, io::Result<Bytes>)>),
    Closed,
}

impl FileBody {
    pub(super) fn new(file: File, pieces: Vec<Piece>) -> Self {
        let pieces: VecDeque<Piece> = pieces.into_iter().filter(|piece| piece.len() > 0).collect();
        let remaining = pieces.iter().map(Piece::len).sum();
        Self { source: Source::Idle(file), pieces, remaining }
    }

    /// Reads the next chunk of the stretch at the front. One read is under way at a time, and none before it is
    /// asked for, so that a slow client holds one chunk.
    fn poll_chunk(&mut self, context: &mut Context<'_>, start: u64, len: u64) -> Poll<io::Result<Bytes>> {
        let mut reading = match std::mem::replace(&mut self.source, Source::Closed) {
            Source::Idle(file) => {
                let len = usize::try_from(len.min(CHUNK)).expect("a chunk fits in memory");
                tokio::task::spawn_blocking(move || {
                    let chunk = read_chunk(&file, start, len);
                    (file, chunk)
                })
            }
            Source::Reading(reading) => reading,
            Source::Closed => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        };
        let Poll::Ready(outcome) = Pin::new(&mut reading).poll(context) else {
            self.source = Source::Reading(reading);
            return Poll::Pending;
        };
        let (file, chunk) = outcome.map_err(io::Error::other)?;
        self.source = Source::Idle(file);
        Poll::Ready(chunk)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let (start, len) = match self.pieces.pop_front() {
            None => return Poll::Ready(None),
            Some(Piece::Text(text)) => return Poll::Ready(Some(Ok(text))),
            Some(Piece::File { start, len }) => (start, len),
        };
        let polled = self.poll_chunk(context, start, len);
        let sent = match &polled {
            Poll::Pending => 0,
            Poll::Ready(Ok(chunk)) => chunk.len() as u64,
            Poll::Ready(Err(_)) => {
                self.close();
                return polled.map(Some);
            }
        };
        if len > sent {
            self.pieces.push_front(Piece::File { start: start + sent, len: len - sent });
        }
        polled.map(Some)
    }

    fn close(&mut self) {
        self.source = Source::Closed;
        self.pieces.clear();
        self.remaining = 0;
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let polled = ready!(this.poll_piece(context));
        if let Some(Ok(chunk)) = &polled {
            this.remaining -= chunk.len() as u64;
        }
        if this.pieces.is_empty() {
            // The file is closed with its last byte, not when the client has taken it.
            this.source = Source::Closed;
        }
        Poll::Ready(polled.map(|outcome| outcome.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// Reads exactly `len` bytes. Seeking every time costs little beside the read, and needs no call that only one
/// system has.
fn read_chunk(mut file: &File, start: u64, len: usize) -> io::Result<Bytes> {
    let mut chunk = vec![0; len];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut chunk)?;
    Ok(chunk.into())
}
