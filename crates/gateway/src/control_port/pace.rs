//! Log lines that strangers can cause: so many in a while, and how many there would have been.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets so many through each time and counts the rest.
#[derive(Debug)]
pub(super) struct Pace {
    max: u32,
    each: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

/// A field of a line that is left out where there is nothing to count.
pub(super) fn some(suppressed: u64) -> Option<u64> {
    (suppressed > 0).then_some(suppressed)
}

impl Pace {
    pub(super) const fn new(max: u32, each: Duration) -> Self {
        Self { max, each, state: Mutex::new(State { since: None, passed: 0, suppressed: 0 }) }
    }

    /// Whether to say it now: with how many were not said since the last that was.
    pub(super) fn next(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state.since.is_none_or(|since| since.elapsed() >= self.each) {
            (state.since, state.passed) = (Some(Instant::now()), 0);
        }
        if state.passed >= self.max {
            state.suppressed += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_few_lines_a_second_and_a_count() {
        let pace = Pace::new(2, Duration::from_secs(1));
        let said: Vec<_> = (0..1000).map(|_| pace.next()).collect();
        assert_eq!(said[..3], [Some(0), Some(0), None]);
        assert_eq!(said.iter().flatten().count(), 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((some(0), some(998)), (None, Some(998)));
        assert_eq!((pace.next(), pace.next(), pace.next()), (Some(998), Some(0), None));
    }
}
