//! Whether an HTTP/2 client takes its response. The library asks for the next part of a body only when the client has
//! made room for it, and has no timeout for that of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

tokio::task_local! {
    static CURRENT: Arc<Taking>;
}

/// One response on its way to an HTTP/2 client.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// When the last part was handed to the library, as long as it has not asked for another.
    handed: Mutex<Option<Instant>>,
}

impl Taking {
    /// That of the HTTP/2 stream whose task this is.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// The library asks for a part.
    pub(crate) fn asked(&self) {
        *self.handed.lock() = None;
    }

    /// The library has got a part, and asks again when the client has made room.
    pub(crate) fn handed(&self) {
        *self.handed.lock() = Some(Instant::now());
    }

    /// Ends when nothing was asked for in a whole `timeout`. Has to be polled behind whatever hands out parts, in the
    /// same task; sets no timer before the first part that is not followed by a question at once.
    async fn stalled(&self, timeout: Duration) {
        let mut timer: Option<std::pin::Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            loop {
                let Some(deadline) = self.handed.lock().map(|handed| handed + timeout) else {
                    return Poll::Pending;
                };
                let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if deadline <= Instant::now() {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(deadline);
            }
        })
        .await;
    }
}

/// Runs one HTTP/2 stream and gives it up, which resets it, when its client takes nothing for `timeout`.
pub(super) async fn watched(stream: impl Future<Output = ()>, timeout: Duration) {
    let taking = Arc::new(Taking::default());
    let watched = async {
        let mut stream = pin!(stream);
        tokio::select! {
            biased;
            () = stream.as_mut() => {}
            () = taking.stalled(timeout) => tracing::debug!("a client does not take its response"),
        }
    };
    CURRENT.scope(Arc::clone(&taking), watched).await;
}
