//! Port numbers for the few places where a number has to be known before somebody listens on it.
//!
//! Everything else listens on port 0 and says which one it became. A number that has to survive a restart must
//! not be one that the system hands out to outgoing connections meanwhile, so these lie below that range.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on now. Another program may still take it, so a caller tries again with another.
#[must_use]
pub fn free() -> u16 {
    let start = u16::try_from(std::process::id() % 89).unwrap() * 100;
    for _ in 0..COUNT {
        let port = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} on is free");
}
