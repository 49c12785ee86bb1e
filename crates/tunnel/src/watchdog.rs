//! A watch over loops that must never stop: one that panics, or has not got on when it said it would have, is started
//! anew.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

/// Pause before a loop is started anew, so that one that fails at once does not spin.
const PAUSE: Duration = Duration::from_secs(1);

/// By when a loop will have got on. The loop tells; [`supervise`] looks.
#[derive(Debug)]
pub struct Progress {
    deadline: watch::Sender<Option<Instant>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { deadline: watch::Sender::new(None) }
    }
}

impl Progress {
    /// The loop will be somewhere else within this time.
    pub fn expect_within(&self, time: Duration) {
        self.deadline.send_replace(Some(Instant::now() + time));
    }

    /// The loop waits for something that may never come, and somebody else sees to that.
    pub fn stands(&self) {
        self.deadline.send_replace(None);
    }

    /// Waits until the loop has not kept its word.
    async fn broken(&self) {
        let mut deadline = self.deadline.subscribe();
        loop {
            let due = *deadline.borrow_and_update();
            let changed = match due {
                None => deadline.changed().await,
                Some(due) => match tokio::time::timeout_at(due, deadline.changed()).await {
                    Ok(changed) => changed,
                    Err(_elapsed) => return,
                },
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Runs a loop until it ends by itself; whenever it panics or is stuck, calls `restarted` and starts it anew.
/// Cancel safe: the loop ends with this.
pub async fn supervise<F: Future<Output = ()>>(
    progress: &Progress,
    mut start: impl FnMut() -> F,
    restarted: impl Fn(&'static str),
) {
    loop {
        progress.stands();
        tokio::select! {
            ended = AssertUnwindSafe(start()).catch_unwind() => match ended {
                Ok(()) => return,
                Err(_panic) => restarted("panicked"),
            },
            () = progress.broken() => restarted("stuck"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_or_is_stuck_is_started_anew_and_one_that_ends_is_not() {
        let (progress, started, why) = (Progress::default(), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let begun = Instant::now();
        let run = || async {
            match started.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("on purpose"),
                1 => {
                    progress.expect_within(Duration::from_secs(5));
                    std::future::pending().await
                }
                2 => {
                    for _ in 0..100 {
                        progress.expect_within(Duration::from_secs(5));
                        tokio::time::sleep(Duration::from_secs(4)).await;
                    }
                    progress.stands();
                    tokio::time::sleep(Duration::from_secs(100_000)).await;
                }
                _ => unreachable!("the third one ends as it should"),
            }
        };
        supervise(&progress, run, |how| why.lock().push(how)).await;
        assert_eq!(*why.lock(), ["panicked", "stuck"]);
        assert_eq!(begun.elapsed(), Duration::from_secs(1 + 5 + 1 + 400 + 100_000));
    }
}
