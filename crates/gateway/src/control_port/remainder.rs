//! What is left of a request's body when its answer is known: read away, as far as it is little.
//!
//! Much is answered by the head alone. If the connection ended there while the body is still on its way, the answer would
//! go with it: whoever is sending learns that the connection is gone, and not why.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;

/// Bytes that are read away. Who sends more has to look at what comes back while it sends.
const MOST: usize = 256 * 1024;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A body that comes back when nobody wants more of it.
#[derive(Debug)]
pub(super) struct Lent<B> {
    body: Option<B>,
    back: Arc<Mutex<Option<B>>>,
}

/// Where it comes back to.
#[derive(Debug)]
pub(super) struct Remainder<B> {
    back: Arc<Mutex<Option<B>>>,
    /// It waits for a word before it sends its body, and sends none after a no. Reading would be that word.
    waits: bool,
}

/// Lends the body of a request.
pub(super) fn lend<B>(request: Request<B>) -> (Request<Lent<B>>, Remainder<B>) {
    let back = Arc::new(Mutex::new(None));
    let waits = request.headers().contains_key(header::EXPECT);
    let remainder = Remainder { back: Arc::clone(&back), waits };
    (request.map(|body| Lent { body: Some(body), back }), remainder)
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        *self.back.lock() = self.body.take();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Lent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Remainder<B> {
    /// Reads what is left, up to a bound. Nothing is left if the body is still in use. Cancel safe.
    pub(super) async fn read_away(self) {
        let Some(mut body) = self.back.lock().take().filter(|_| !self.waits) else { return };
        let reading = async {
            let mut left = MOST;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                let Some(less) = left.checked_sub(length) else { return };
                left = less;
            }
        };
        drop(tokio::time::timeout(PATIENCE, reading).await);
    }
}
