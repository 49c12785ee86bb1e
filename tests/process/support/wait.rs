//! Waiting for a level with a deadline. What was seen last is told when the deadline passes.

use std::time::{Duration, Instant};

/// Plenty for anything that takes a moment on an idle machine: both cores may be busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Looks until it sees what it waits for; an `Err` is what it sees instead.
#[track_caller]
pub(crate) fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + deadline;
    loop {
        let seen = match look() {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(Instant::now() < end, "after {deadline:?} still not so: {what}\nseen last: {seen}");
        pause();
    }
}

/// The time between two looks.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(15));
}

/// So many seconds as the environment says under this name, or else this much time.
#[expect(clippy::disallowed_methods, reason = "commands tell a test by the environment how long it may take")]
pub(crate) fn time(name: &str, otherwise: Duration) -> Duration {
    std::env::var(name).map_or(otherwise, |text| Duration::from_secs(text.parse().unwrap()))
}
