//! HTTP/2 clients: one that behaves, and frames written by hand for one that does not.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use adit_tunnel::scope::Scope;

use crate::wire::Wire;
use crate::within;

/// A body the test sends piece by piece; it ends when the [`Feed`] is dropped.
#[derive(Debug)]
pub struct Fed(mpsc::Receiver<Frame<Bytes>>);

/// The sending end of a [`Fed`].
#[derive(Debug)]
pub struct Feed(mpsc::Sender<Frame<Bytes>>);

impl Fed {
    /// A body and what feeds it.
    #[must_use]
    pub fn pair() -> (Feed, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (Feed(sender), Self(receiver))
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::pair().1
    }

    /// A body in one piece.
    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let (feed, body) = Self::pair();
        feed.0.try_send(Frame::data(bytes.into())).unwrap();
        body
    }
}

impl Feed {
    /// Sends a piece.
    pub async fn data(&self, bytes: impl Into<Bytes>) {
        self.0.send(Frame::data(bytes.into())).await.unwrap();
    }

    /// Sends the trailers.
    pub async fn trailers(&self, trailers: http::HeaderMap) {
        self.0.send(Frame::trailers(trailers)).await.unwrap();
    }
}

impl Body for Fed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }
}

/// An HTTP/2 client on one connection. The connection is closed when it is dropped.
#[derive(Debug)]
pub struct H2 {
    sender: SendRequest<Fed>,
    scope: Scope,
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl H2 {
    /// Speaks HTTP/2 on a connection.
    pub async fn on(wire: Wire) -> Self {
        let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(wire.into_io()));
        let (sender, connection) = within("the HTTP/2 handshake", handshake).await.unwrap();
        let scope = Scope::new();
        scope.spawn("HTTP/2 client", async move { drop(connection.await) });
        Self { sender, scope }
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// # Errors
    /// What became of the stream.
    pub async fn send(&mut self, request: Request<Fed>) -> Result<Response<Incoming>, hyper::Error> {
        within("an HTTP/2 response", self.sender.send_request(request)).await
    }

    /// As [`H2::send`], for requests beside each other: what is returned is waited for later.
    pub fn start(
        &mut self,
        request: Request<Fed>,
    ) -> impl Future<Output = Result<Response<Incoming>, hyper::Error>> + Send + use<> {
        within("an HTTP/2 response", self.sender.send_request(request))
    }

    /// Asks for a path.
    pub async fn get(&mut self, host: &str, target: &str) -> Response<Incoming> {
        let request = Request::get(format!("http://{host}{target}")).body(Fed::empty()).unwrap();
        self.send(request).await.unwrap()
    }
}

/// What opens a connection: preface and empty settings.
#[must_use]
pub fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

/// A frame (RFC 9113 §4.1).
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A HEADERS frame with a whole block of literal fields.
#[must_use]
pub fn headers(stream: u32, end_stream: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal without indexing, with a new name, both without Huffman coding (RFC 7541 §6.2.2).
        block.push(0);
        for text in [name, value] {
            let length = u8::try_from(text.len()).unwrap();
            assert!(length < 127, "longer than one byte of length says");
            block.push(length);
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(1, 4 | u8::from(end_stream), stream, &block)
}

/// How a stream was answered by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With a status: the first byte of its header block, which for common ones is an index of the static table.
    Headers(u8),
    /// It was reset.
    Reset,
    /// The connection was closed, with or without a farewell.
    Closed,
}

/// Reads frames until the stream is answered or reset, or the connection ends.
pub async fn outcome(wire: &mut Wire, stream: u32) -> Outcome {
    loop {
        let head = wire.take(9).await;
        let [a, b, c, kind, _flags, d, e, f, g] = head[..] else { return Outcome::Closed };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let id = u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff;
        let payload = wire.take(length).await;
        match kind {
            1 if id == stream => return Outcome::Headers(payload[0]),
            3 if id == stream => return Outcome::Reset,
            7 if payload[4..8] != [0; 4] => return Outcome::Closed,
            _ => {}
        }
    }
}
