//! The public side: listeners to streams, and the control port.
//!
//! Start with [`config`] for what a gateway is told, then [`Gateway`] for what it does.

pub mod config;
mod server;

pub use config::Config;
pub use server::{Gateway, StartError};
