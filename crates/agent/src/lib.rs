//! The private side: streams to upstreams, and the file server.
//!
//! Start with [`config`] for what an agent is told, then [`Agent`] for what it does.

pub mod config;
pub mod files;
mod server;

pub use config::Config;
pub use server::{Agent, StartError};
