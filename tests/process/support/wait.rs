//! Waiting for a level with a deadline. What was seen last is told when the deadline passes.

use std::time::{Duration, Instant};

/// How long anything may take before it is taken to hang. No promise is measured by it: the machine may be busy with
/// anything.
pub(crate) const SOON: Duration = Duration::from_secs(60);

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

/// How long to wait for what is promised in so much time: that time where it is measured, on a machine that does nothing
/// else (`cargo xtask chaos`). Elsewhere a busy machine proves nothing, and only what hangs is found.
pub(crate) fn promised(time: Duration) -> Duration {
    if is_told("ADIT_TIMED") { time } else { time.max(SOON) }
}

fn is_told(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// So many seconds as the environment says under this name, or else this much time.
#[expect(clippy::disallowed_methods, reason = "commands tell a test by the environment how long it may take")]
pub(crate) fn time(name: &str, otherwise: Duration) -> Duration {
    std::env::var(name).map_or(otherwise, |text| Duration::from_secs(text.parse().unwrap()))
}
