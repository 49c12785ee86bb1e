//! An in-process world for tests: gateways, agents, upstreams and clients in one line.
//!
//! [`world`] starts and asks it, [`upstream`] is what stands behind its agents, [`wire`] is a connection whose every
//! byte a test writes and reads itself, [`h2`] the same for HTTP/2, [`proxy`] is what an agent may have to
//! go through, [`samples`] reads metrics, [`wait`] waits for
//! levels. Everything listens on port 0, waits with a deadline, and says what it saw when that expires.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "all of this crate runs in tests, where a panic is how a test fails"
)]

pub mod certificate;
pub mod h2;
pub mod logs;
pub mod ports;
pub mod proxy;
pub mod rights;
pub mod samples;
pub mod session;
pub mod tcp;
pub mod udp_path;
pub mod upstream;
pub mod wait;
pub mod wire;
pub mod world;

pub use adit_agent as agent;
pub use adit_control as control;
pub use adit_gateway as gateway;
pub use adit_proto as proto;
pub use adit_telemetry as telemetry;
pub use adit_tunnel as tunnel;

pub use rights::Rights;
pub use session::Puppet;
pub use upstream::{Answer, Upstream};
pub use wait::{Signal, until, within};
pub use wire::{Reply, Wire};
pub use world::{AgentPlan, World};
