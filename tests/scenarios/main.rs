//! What is promised to clients, upstreams and operators, each promise in one file, end to end in one process.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this crate is tests, which clippy sees only in functions marked as such"
)]

mod aborts;
mod admin;
mod admin_strict;
mod backpressure;
mod certificates;
mod control_port;
mod dials;
mod drain;
mod enrolling;
mod expectations;
mod forwarding;
mod framing;
mod gateways;
mod headers;
mod metrics;
mod policies;
mod protocols;
mod proxies;
mod proxy_protocol;
mod quic;
mod refusals;
mod reloading;
mod request_log;
mod retries;
mod routing;
mod sessions;
mod smuggling;
mod smuggling_h2;
mod streaming;
mod strict_upstreams;
mod targets;
mod tcp;
mod timeouts;
mod upgrades;
mod upstreams;
mod workers;
