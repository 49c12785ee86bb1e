//! Whether an HTTP/2 client takes its response, and sends the rest of its request meanwhile. The library asks for the
//! next part of a body only when the client has made room for it, waits for the next part of the client's for as long
//! as the connection lives, and has no timeout of its own for either.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

tokio::task_local! {
    static CURRENT: Arc<Taking>;
}

/// One response on its way to an HTTP/2 client.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The library has asked for a part of the response, so its head is out. Before that the request has a timeout
    /// for all of it, and an answer when that is over.
    is_answered: bool,
    /// When the last part was handed to the library, as long as it has not asked for another.
    handed: Option<Instant>,
    /// Since when the next part of the request is waited for.
    awaited: Option<Instant>,
    /// A timer runs, and will look again.
    is_timed: bool,
    /// The stream's task, which is not always the one that waits for the request.
    task: Option<Waker>,
}

impl State {
    /// What has stood still the longest.
    fn since(&self) -> Option<Instant> {
        let awaited = self.awaited.filter(|_| self.is_answered);
        [self.handed, awaited].into_iter().flatten().min()
    }
}

impl Taking {
    /// That of the HTTP/2 stream whose task this is.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// The library asks for a part.
    pub(crate) fn asked(&self) {
        let mut state = self.state.lock();
        state.is_answered = true;
        state.handed = None;
    }

    /// The library has got a part, and asks again when the client has made room.
    pub(crate) fn handed(&self) {
        self.state.lock().handed = Some(Instant::now());
    }

    /// The next part of the request is waited for, or not any more.
    fn awaits(&self, is_awaited: bool) {
        let mut state = self.state.lock();
        if !is_awaited {
            state.awaited = None;
            return;
        }
        state.awaited.get_or_insert_with(Instant::now);
        let task = if state.is_timed { None } else { state.task.take() };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Ends when one direction stood still for a whole `timeout`. Has to be polled behind whatever hands out parts, in
    /// the same task; sets no timer before the first part that is not followed by a question at once.
    async fn stalled(&self, timeout: Duration) {
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| self.poll_stalled(cx, &mut timer, timeout)).await;
    }

    fn poll_stalled(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Option<Pin<Box<Sleep>>>,
        timeout: Duration,
    ) -> Poll<()> {
        loop {
            let deadline = {
                let mut state = self.state.lock();
                state.is_timed = state.since().is_some();
                if !state.is_timed {
                    state.task = Some(cx.waker().clone());
                }
                state.since().map(|since| since + timeout)
            };
            let Some(deadline) = deadline else { return Poll::Pending };
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

/// The request's side of a stream: kept and told by whoever reads the request's body.
///
/// While a part of the body is waited for and the response has begun, the client has the stall timeout to send it.
#[derive(Debug)]
pub(crate) struct Sending(Arc<Taking>);

impl Sending {
    /// That of the HTTP/2 stream whose task this is.
    pub(crate) fn current() -> Option<Self> {
        Taking::current().map(Self)
    }

    /// To be told after each poll of the request's body.
    pub(crate) fn polled(&self, is_pending: bool) {
        self.0.awaits(is_pending);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Nobody reads the body any more.
        self.0.awaits(false);
    }
}

/// Runs one HTTP/2 stream and gives it up, which resets it, when its client takes or sends nothing for `timeout`.
pub(super) async fn watched(stream: impl Future<Output = ()>, timeout: Duration) {
    let taking = Arc::new(Taking::default());
    let watched = async {
        let mut stream = pin!(stream);
        tokio::select! {
            biased;
            () = stream.as_mut() => {}
            () = taking.stalled(timeout) => tracing::debug!("a client neither takes its response nor sends its request"),
        }
    };
    CURRENT.scope(Arc::clone(&taking), watched).await;
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{sleep, timeout};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// When a stream is given up that does this.
    async fn given_up<F: Future<Output = ()>>(stream: impl FnOnce(Arc<Taking>, Sending) -> F) -> Option<u64> {
        let start = Instant::now();
        let stream = async {
            stream(Taking::current().unwrap(), Sending::current().unwrap()).await;
            pending().await
        };
        timeout(Duration::from_secs(1000), watched(stream, TIMEOUT)).await.ok()?;
        Some(start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_not_taken_is_given_up() {
        let not_taken = given_up(|taking, _sending| async move {
            taking.asked();
            sleep(Duration::from_secs(100)).await;
            taking.handed();
            pending().await
        });
        assert_eq!(not_taken.await, Some(160));
        let waits = given_up(|taking, _sending| async move {
            taking.handed();
            taking.asked();
        });
        assert_eq!(waits.await, None, "the upstream is silent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_stops_behind_the_head_of_its_response_is_given_up() {
        let stops = given_up(|taking, sending| async move {
            taking.asked();
            // Whoever reads the body is not the stream's task.
            let mut reader = tokio::task::JoinSet::new();
            reader.spawn(async move {
                for _ in 0..3 {
                    sleep(Duration::from_secs(50)).await;
                    sending.polled(false);
                    sending.polled(true);
                    sending.polled(true);
                }
                pending::<()>().await;
                drop(sending);
            });
            reader.join_next().await;
        });
        assert_eq!(stops.await, Some(150 + 60));
        let unanswered = given_up(|_taking, sending| async move {
            sending.polled(true);
            pending().await
        });
        assert_eq!(unanswered.await, None, "that has a timeout of its own");
        let not_read = given_up(|taking, sending| async move {
            taking.asked();
            sending.polled(true);
            drop(sending);
            pending().await
        });
        assert_eq!(not_read.await, None, "nobody waits for it");
    }
}
