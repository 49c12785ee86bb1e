//! What was written and read, and by that the verdict: every byte right, every end with its reason.

use std::fmt::Write as _;
use std::sync::LazyLock;

use adit_proto::limits;
use adit_proto::reason::Reason;

/// Length of the pattern; prime, so that no buffer's size divides it.
const PATTERN: usize = 65_521;

/// Bytes whose place is told by what stands around them.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = crate::random::Random::new(1);
    // Twice, so that a slice may begin anywhere.
    let once: Vec<u8> = (0..PATTERN).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    once.repeat(2)
});

/// The bytes of a stream's direction from `offset` on; at most one pattern's length.
pub(crate) fn bytes(key: usize, offset: u64, len: usize) -> &'static [u8] {
    let start = (key * 7_919 + usize::try_from(offset % PATTERN as u64).unwrap()) % PATTERN;
    &BYTES[start..start + len.min(PATTERN)]
}

/// Whether these are the bytes that belong there.
pub(crate) fn is_right(key: usize, mut offset: u64, mut got: &[u8]) -> bool {
    while !got.is_empty() {
        let expected = bytes(key, offset, got.len());
        if got[..expected.len()] != *expected {
            return false;
        }
        got = &got[expected.len()..];
        offset += expected.len() as u64;
    }
    true
}

/// How one end's reading or writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With its half-close: written, or read.
    InOrder,
    /// With an error, which said this; and with how the session stood then, as this end saw it.
    Failed(Reason, Option<Reason>),
}

/// One direction of a stream.
#[derive(Debug, Default, Clone)]
pub(crate) struct Way {
    pub(crate) written: u64,
    pub(crate) wrote: Option<Ended>,
    pub(crate) read: u64,
    pub(crate) has_begun_to_read: bool,
    pub(crate) got: Option<Ended>,
}

/// One stream, once it was opened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Flow {
    /// The number of its session.
    pub(crate) session: Option<usize>,
    /// Up (written by the client), and down.
    pub(crate) ways: [Way; 2],
    /// What either end did to the stream by itself: client, agent.
    pub(crate) aborts: [Vec<Reason>; 2],
    pub(crate) is_done: [bool; 2],
    pub(crate) accepted: u32,
}

impl Flow {
    /// Everything that is wrong with how this stream ended; `reasons` are what its session may have told it.
    pub(crate) fn faults(&self, key: usize, reasons: &[Reason]) -> String {
        let mut faults = String::new();
        if self.accepted > 1 {
            write!(faults, "stream {key} was accepted {} times. ", self.accepted).unwrap();
        }
        for (number, way) in self.ways.iter().enumerate() {
            let name = ["up", "down"][number];
            self.check_way(way, reasons, |what| {
                write!(faults, "stream {key} {name}: {what} in {self:?}. ").unwrap()
            });
        }
        faults
    }

    fn check_way(&self, way: &Way, reasons: &[Reason], mut wrong: impl FnMut(&str)) {
        if way.read > way.written {
            wrong("more was read than written");
        }
        if way.got == Some(Ended::InOrder) && (way.wrote != Some(Ended::InOrder) || way.read != way.written) {
            wrong("it ended in order and was not whole");
        }
        for ended in [way.wrote, way.got] {
            let Some(Ended::Failed(reason, session)) = ended else { continue };
            let mut told = self.aborts.iter().flatten().chain(reasons).copied().chain(session);
            if !told.any(|told| told == reason) {
                wrong("it failed for a reason that nobody gave");
            }
        }
    }

    /// Whether both directions ended in order.
    pub(crate) fn is_whole(&self) -> bool {
        self.ways.iter().all(|way| way.got == Some(Ended::InOrder))
    }

    /// Whether a direction holds more than its window allows, beside so many bytes that others hold.
    pub(crate) fn is_overfull(&self, slack: u64) -> bool {
        self.ways.iter().any(|way| {
            let window = if way.has_begun_to_read { limits::MAX_WINDOW } else { limits::INITIAL_WINDOW };
            // A chunk that the reader has taken and not yet used.
            let taken = if way.has_begun_to_read { limits::MAX_DATA_PAYLOAD } else { 0 };
            way.written.saturating_sub(way.read) > u64::from(window) + taken as u64 + slack
        })
    }
}
