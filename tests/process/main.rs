//! Promises about real processes: the real `adit`, clients that other people wrote, a real Prometheus.
//!
//! `cargo xtask e2e` builds the binary and runs these; `cargo xtask setup` installs the other programs.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests, and what tests stand on: a surprise ends the test with what is known about it"
)]

mod support;

mod admin;
mod backup;
mod bulk;
mod chaos;
mod clients;
mod command_line;
mod dials;

mod drain;
mod generate;
mod handover;
mod hostile;
mod kills;
mod metrics;
mod operating;

mod proxies;
mod quic;
mod quickstart;
mod readiness;
mod reload;
mod soak;
mod state;
mod tcp;
mod walkthrough;
