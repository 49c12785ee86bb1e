//! How long the way to the peer and back is, and what that says about windows.

use std::time::Duration;

/// Round trip times, of which the least counts: a longer one has waited in a queue.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    pub(super) last: Option<Duration>,
    pub(super) least: Option<Duration>,
    least_at: Duration,
    measured_at: Duration,
    /// A probe for it is under way.
    pub(super) asked: bool,
}

impl RoundTrip {
    /// A path may change; the least of so long ago says nothing about it.
    const MEMORY: Duration = Duration::from_secs(30);
    /// 10 Gbit/s.
    const BYTES_PER_MICRO: u128 = 1250;
    /// Windows grow by measurements no older than this.
    const FRESH: Duration = Duration::from_secs(1);

    pub(super) fn measured(&mut self, rtt: Duration, now: Duration) {
        self.last = Some(rtt);
        self.measured_at = now;
        self.asked = false;
        if self.least.is_none_or(|least| rtt <= least) || now.saturating_sub(self.least_at) > Self::MEMORY {
            self.least = Some(rtt);
            self.least_at = now;
        }
    }

    /// Bytes that can be under way on the fastest path there is: a window beyond twice that only holds a backlog.
    pub(super) fn most_under_way(&self) -> u32 {
        let micros = self.least.unwrap_or_default().as_micros();
        u32::try_from(micros.saturating_mul(2 * Self::BYTES_PER_MICRO)).unwrap_or(u32::MAX)
    }

    pub(super) fn is_stale(&self, now: Duration) -> bool {
        now.saturating_sub(self.measured_at) > Self::FRESH
    }
}
