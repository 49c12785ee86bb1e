//! When to try again: at once, then ever more slowly, never in step with others, and for ever.

use std::time::Duration;

/// First pause after a try that failed, before jitter.
const BASE: Duration = Duration::from_millis(50);
/// How long an outage may be a restart, and the longest pause meanwhile: whoever comes back finds its agents soon.
const RESTART: Duration = Duration::from_secs(5);
const CAP_RESTART: Duration = Duration::from_millis(300);
/// Longest pause after that, during the first minute of an outage.
const CAP_EARLY: Duration = Duration::from_secs(2);
/// Longest pause after that.
const CAP_LATE: Duration = Duration::from_secs(30);
/// A session that stood this long was healthy: the next outage starts from the beginning.
const HEALTHY: Duration = Duration::from_secs(30);

/// The schedule of one agent's tries. Pure: time goes in, pauses come out.
#[derive(Debug)]
pub struct Backoff {
    tries: u32,
    waited: Duration,
    random: u64,
}

impl Backoff {
    /// A fresh schedule; `seed` decides the jitter, so every process needs its own.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { tries: 0, waited: Duration::ZERO, random: seed | 1 }
    }

    /// A session ended after standing for this long.
    pub fn stood(&mut self, time: Duration) {
        if time >= HEALTHY {
            self.forget();
        }
    }

    /// What the failures so far were due to is over.
    pub const fn forget(&mut self) {
        self.tries = 0;
        self.waited = Duration::ZERO;
    }

    /// The pause before the next try: between half of and the whole of a ceiling that grows by 1.6 a try, the
    /// first time anything from nothing, so that one dropped connection is back at once.
    #[must_use]
    pub fn next_pause(&mut self) -> Duration {
        let cap = cap(self.waited);
        let ceiling = BASE.mul_f64(1.6_f64.powi(i32::try_from(self.tries.min(40)).unwrap_or(40))).min(cap);
        let pause = if self.tries == 0 {
            ceiling.mul_f64(self.fraction())
        } else {
            ceiling.mul_f64(self.fraction().mul_add(0.5, 0.5))
        };
        self.tries = self.tries.saturating_add(1);
        self.waited += pause;
        pause
    }

    /// A number in [0, 1) by xorshift64*; jitter needs spread, not secrecy.
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let bits = u32::try_from(self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or(0);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The longest pause after an outage of this length.
const fn cap(waited: Duration) -> Duration {
    match waited.as_secs() {
        secs if secs < RESTART.as_secs() => CAP_RESTART,
        0..60 => CAP_EARLY,
        60.. => CAP_LATE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_start_small_grow_and_stay_under_their_cap_for_ever() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            let mut waited = backoff.next_pause();
            assert!(waited < BASE);
            for _ in 0..500 {
                let pause = backoff.next_pause();
                assert!(pause >= BASE / 2);
                assert!(pause <= cap(waited));
                waited += pause;
            }
            assert!(backoff.next_pause() >= CAP_LATE / 2);
        }
    }

    #[test]
    fn a_restart_of_a_few_seconds_is_noticed_within_a_fraction_of_one() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            let mut waited = Duration::ZERO;
            while waited < RESTART {
                let pause = backoff.next_pause();
                assert!(pause <= CAP_RESTART, "{pause:?} after {waited:?}");
                waited += pause;
            }
        }
    }

    #[test]
    fn agents_do_not_come_back_in_step() {
        let mut pauses: Vec<_> = (1..=100)
            .map(|seed| {
                let mut backoff = Backoff::new(seed * 7_919);
                (0..8).map(|_| backoff.next_pause()).sum::<Duration>()
            })
            .collect();
        pauses.sort();
        assert!(pauses[90] - pauses[10] > Duration::from_millis(100));
    }

    #[test]
    fn only_a_session_that_stood_for_a_while_makes_the_next_try_quick_again() {
        let mut backoff = Backoff::new(3);
        for _ in 0..40 {
            assert!(backoff.next_pause() > Duration::ZERO);
        }
        backoff.stood(Duration::from_secs(1));
        assert!(backoff.next_pause() >= CAP_EARLY / 2);
        backoff.stood(HEALTHY);
        assert!(backoff.next_pause() < BASE);
    }
}
