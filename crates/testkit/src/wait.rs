//! Waiting for levels: with a deadline, and with the last state in the message when it expires.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before it is taken to hang. No promise is measured by it: the machine may be busy with
/// anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a level is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Waits for something that ends by itself.
///
/// # Panics
/// When it has not ended in time.
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_elapsed) => panic!("{place}: waited {PATIENCE:?} in vain: {what}"),
        }
    }
}

/// Looks again and again until `look` finds what it looks for; `Err` is the state that is not it yet.
///
/// # Panics
/// With the last state, when the level is not reached in time.
pub async fn until<T, S, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, S>>,
    S: Debug,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(state) if Instant::now() > deadline => panic!("{what}: not reached; last state: {state:#?}"),
            // tidy: allow(sleep): the one place that polls, for levels that have no signal
            Err(_not_yet) => sleep(LOOK).await,
        }
    }
}

/// Something that has happened so many times; lets a script on one side wait for the other.
#[derive(Debug, Clone, Default)]
pub struct Signal(Arc<watch::Sender<usize>>);

impl Signal {
    /// It has happened once more.
    pub fn give(&self) {
        self.0.send_modify(|times| *times += 1);
    }

    /// How often it has happened.
    #[must_use]
    pub fn times(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until it has happened so many times.
    pub async fn given(&self, times: usize) {
        let mut seen = self.0.subscribe();
        within("a signal", async { drop(seen.wait_for(|now| *now >= times).await) }).await;
    }
}
