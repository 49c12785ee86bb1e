//! The threads that carry traffic. Each has a runtime of its own, and a task stays on the thread it was given to: a
//! connection, its streams and its lane of the session meet without crossing threads.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
    /// What [`together`] counts from.
    static BEGUN: Instant = Instant::now();
}

/// The number of the worker that this thread is; 0 for any thread that is none.
pub(crate) fn current() -> usize {
    NUMBER.get()
}

/// A moment at which this worker does several things that have time until then: `at`, or up to `grain` later. Each
/// moment at which a process wakes up costs more than most of what it does then.
#[must_use]
pub fn together(at: Instant, grain: Duration) -> Instant {
    if grain.is_zero() {
        return at;
    }
    let since = BEGUN.with(|begun| at.saturating_duration_since(*begun));
    let over = Duration::from_nanos((since.as_nanos() % grain.as_nanos()).try_into().unwrap_or(0));
    if over.is_zero() { at } else { at + (grain - over) }
}

/// A process's workers: the thread that made them, and more if it has some. Clones are the same workers.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    /// Empty where there is one worker only: whichever thread asks.
    runtimes: Arc<[Handle]>,
    next: Arc<AtomicUsize>,
    _end: Option<Arc<DropGuard>>,
}

impl Workers {
    /// As many workers as this machine needs: one for each core but one, which the kernel's own work with connections
    /// fills. Must be called within the runtime that is the first of them.
    ///
    /// # Errors
    /// What the system said when it gave no thread.
    pub fn for_this_machine() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::start(cores.saturating_sub(1).max(1))
    }

    /// This thread, which must be within a runtime, and `count - 1` others. The others end with the last clone.
    ///
    /// # Errors
    /// What the system said when it gave no thread.
    pub fn start(count: usize) -> io::Result<Self> {
        if count <= 1 {
            return Ok(Self::default());
        }
        let end = CancellationToken::new();
        let others = (1..count).map(|number| start_one(number, end.clone()));
        let runtimes =
            std::iter::once(Ok(Handle::current())).chain(others).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { runtimes: runtimes.into(), next: Arc::default(), _end: Some(Arc::new(end.drop_guard())) })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.runtimes.len().max(1)
    }

    /// The runtime of a worker; `None` for the one that asks.
    pub(crate) fn other(&self, number: usize) -> Option<&Handle> {
        self.runtimes.get(number).filter(|_| number != current())
    }

    /// Whose turn it is.
    pub(crate) fn next(&self) -> usize {
        if self.runtimes.is_empty() {
            current()
        } else {
            self.next.fetch_add(1, Ordering::Relaxed) % self.runtimes.len()
        }
    }

    /// Their runtimes, the caller's first.
    ///
    /// # Panics
    /// Outside a runtime.
    #[must_use]
    pub fn runtimes(&self) -> Vec<Handle> {
        if self.runtimes.is_empty() { vec![Handle::current()] } else { self.runtimes.to_vec() }
    }
}

fn start_one(number: usize, end: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        NUMBER.set(number);
        runtime.block_on(end.cancelled());
        // What still runs has outlived its scope.
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_time_is_done_together_and_never_early_nor_late() {
        let grain = Duration::from_millis(500);
        let now = Instant::now();
        let asked: Vec<Instant> = (0..2000).map(|ms| now + Duration::from_millis(ms)).collect();
        let mut moments: Vec<Instant> = asked.iter().map(|at| together(*at, grain)).collect();
        for (at, moment) in asked.iter().zip(&moments) {
            assert!(at <= moment && *moment < *at + grain, "{:?}", *moment - *at);
            assert_eq!(together(*at, Duration::ZERO), *at);
        }
        moments.dedup();
        assert!(moments.len() <= 5, "{}", moments.len());
    }
}
