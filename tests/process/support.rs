//! What the tests of real processes stand on.
//!
//! Reading order: [`process`] (an owned process and its output), [`world`] (gateways and agents from files),
//! [`http`] (a plain client), [`upstream`] (services behind an agent), [`link`] (a network that can fail),
//! [`load`] (requests without a pause), [`metrics`], [`wait`], [`secrets`].

pub(crate) mod data;
pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod secrets;
pub(crate) mod tools;
pub(crate) mod upstream;
pub(crate) mod wait;
pub(crate) mod world;
