//! Randomness that a seed decides and nothing else does.

use std::time::Duration;

/// A generator (splitmix64); the same seed gives the same numbers on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A generator of its own, so that what one part draws does not change what another one draws.
    pub(crate) const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number in `0..n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A length in `0..n` for buffers.
    pub(crate) fn len(&mut self, low: usize, high: usize) -> usize {
        usize::try_from(self.between(low as u64, high as u64)).unwrap()
    }

    /// True so many times in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.len(0, from.len() - 1)]
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// How much a stream carries: mostly little, sometimes nothing, sometimes much.
    pub(crate) fn volume(&mut self) -> u64 {
        match self.below(20) {
            0 | 1 => 0,
            2 => 1,
            3..=9 => self.between(2, 2_000),
            10..=15 => self.between(2_000, 70_000),
            16..=18 => self.between(70_000, 400_000),
            _ => self.between(400_000, 3_000_000),
        }
    }
}
