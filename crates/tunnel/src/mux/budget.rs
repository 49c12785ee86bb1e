//! What the windows of all sessions of this process may grow by together. One number for the process, because that is
//! whose memory it is.
//!
//! Nobody gets all of it: a lane may hold no more than a part of what is free. Whoever comes next finds something, and a
//! lane that holds more than that when the budget has become short gives of it as it is used.

use std::sync::atomic::{AtomicU32, Ordering};

/// Window bytes over the initial ones, for all streams of all sessions.
const PROCESS: u32 = 512 * 1024 * 1024;
/// A lane holds no more than this part of what is free.
const PART: u32 = 4;

/// The budget of this process.
pub(super) static BUDGET: Budget = Budget { whole: PROCESS, grown: AtomicU32::new(0) };

/// Bytes that windows may grow by together.
#[derive(Debug)]
pub(super) struct Budget {
    whole: u32,
    grown: AtomicU32,
}

impl Budget {
    /// Takes as much of `wanted` as a lane that holds `held` already may have.
    pub(super) fn take(&self, wanted: u32, held: u32) -> u32 {
        let more = |grown: u32| {
            let free = self.whole.saturating_sub(grown);
            // What it takes is not free any more: it holds a part of what is left then.
            let most = ((free.saturating_add(held)) / (PART + 1)).saturating_sub(held);
            wanted.min(most).min(free)
        };
        let before =
            self.grown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |grown| Some(grown + more(grown)));
        more(before.unwrap_or_else(|grown| grown))
    }

    /// How much a lane that holds so much has too much, now that the budget is short.
    pub(super) fn excess(&self, held: u32) -> u32 {
        let free = self.whole.saturating_sub(self.grown.load(Ordering::Relaxed));
        if free > self.whole / 2 { 0 } else { held.saturating_sub(free.saturating_add(held) / (PART + 1)) }
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, bytes: u32) {
        self.grown.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    fn budget() -> Budget {
        Budget { whole: 512 * MIB, grown: AtomicU32::new(0) }
    }

    #[test]
    fn whoever_comes_late_finds_something_however_many_were_there_before() {
        let budget = budget();
        for _ in 0..20 {
            let mut held = 0;
            while held < 64 * MIB {
                let more = budget.take(64 * MIB - held, held);
                held += more;
                if more == 0 {
                    break;
                }
            }
        }
        assert!(budget.take(MIB, 0) == MIB, "twenty that take all they can leave something");
        assert!(budget.grown.load(Ordering::Relaxed) <= budget.whole);
    }

    #[test]
    fn lanes_that_go_on_come_to_equal_parts() {
        let budget = budget();
        let mut held = vec![0_u32; 40];
        for _round in 0..200 {
            for held in &mut held {
                let excess = budget.excess(*held);
                budget.give_back(excess);
                *held -= excess;
                *held += budget.take((64 * MIB).saturating_sub(*held), *held);
            }
        }
        let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
        assert!(most - least <= most / 10, "{least} and {most}");
        assert!(*least > 8 * MIB, "{least}");
        for held in held {
            budget.give_back(held);
        }
        assert_eq!(budget.grown.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_lane_alone_may_have_as_much_as_one_ever_may() {
        let budget = budget();
        assert_eq!(budget.take(64 * MIB, 0), 64 * MIB);
        assert_eq!(budget.excess(64 * MIB), 0);
    }
}
