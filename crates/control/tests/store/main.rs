//! What the stores promise, shown from outside: one suite for all, and what the one on disk survives.
#![expect(
    clippy::print_stdout,
    reason = "a test says what it has seen, and to another process what it has done"
)]
#![expect(clippy::panic, reason = "what several tests share ends a test as the test itself would")]

mod conformance;
mod copies;
mod crash;
mod directory;
mod full;
mod support;
