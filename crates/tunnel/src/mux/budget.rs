//! What the windows of all sessions of this process may grow by together. One number for the process, because that is
//! whose memory it is.

use std::sync::atomic::{AtomicU32, Ordering};

/// Window bytes over the initial ones, for all streams of all sessions.
const PROCESS: u32 = 512 * 1024 * 1024;

static GROWN: AtomicU32 = AtomicU32::new(0);

/// Takes as much of `wanted` as is left.
pub(super) fn take(wanted: u32) -> u32 {
    let grown = GROWN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |grown| {
        Some(grown + wanted.min(PROCESS.saturating_sub(grown)))
    });
    let before = grown.unwrap_or_else(|grown| grown);
    wanted.min(PROCESS.saturating_sub(before))
}

/// Gives back what was taken.
pub(super) fn give_back(bytes: u32) {
    GROWN.fetch_sub(bytes, Ordering::Relaxed);
}
