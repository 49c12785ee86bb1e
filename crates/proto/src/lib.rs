//! The session protocol as values: bytes in, values out; no socket, no clock, no task.
//!
//! Reading order: [`names`] (what hosts and services may be called), [`reason`] (why anything ended),
//! [`frame`] (the 8-byte header in front of everything), [`handshake`] (the first two frames of a session),
//! [`header`] (what opens a stream). [`proxy_header`] is what balancers say in front of a public connection. Every
//! decoder is total: any input gives a value or a [`DecodeError`], never a panic, and allocates no more than [`limits`]
//! allows.

pub mod frame;
pub mod handshake;
pub mod header;
pub mod limits;
pub mod name;
pub mod names;
pub mod proxy_header;
pub mod reason;
mod wire;

pub use wire::DecodeError;
