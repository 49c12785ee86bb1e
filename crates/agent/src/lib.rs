//! The private side: streams to upstreams, and the file server.
//!
//! Reading order: [`config`] for what an agent is told, `server` for what it starts and how it drains, `running`
//! for what a reload replaces, `links` and `connect` for the sessions it keeps up, `lanes` for their further
//! connections and `dial` for how it gets there,
//! `expose` for what happens to one stream, `upstream` for where it ends, `forward` and `dialing` for the other way round. [`files`]
//! is the file server, also used on its own. [`enroll`] gets an identity its certificate and `renew` keeps it.

mod board;
mod clock;
pub mod config;
mod connect;
mod dial;
mod dialing;
pub mod enroll;
mod expose;
pub mod files;
mod forward;
mod lanes;
mod links;
pub mod observe;
pub mod renew;
mod running;
mod server;
mod upstream;

pub use config::Config;
pub use dialing::Refused;
pub use server::{Agent, StartError};
