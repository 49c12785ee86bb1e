//! Sessions over transports, the stream multiplexer, the byte pump and the task owner.
//!
//! Reading order: [`session`] is what both roles use; [`stream`] is what it gives them; [`relay`](mod@relay) joins
//! a stream to an upstream. Below: `mux` (streams as a state machine), `keepalive` and [`reconnect`] (liveness as
//! pure rules). Before a session stands: [`transport`] dials or accepts, through a [`proxy`] where
//! there is one, [`handshake`] proves who is who with [`proof`] or by an [`identity`]. Every task of either role hangs on a [`scope`];
//! [`watchdog`] sees to loops that must never stop.

pub mod handshake;
pub mod identity;
mod keepalive;
mod mux;
pub mod proof;
pub mod proxy;
pub mod read_ahead;
pub mod reconnect;
pub mod relay;
pub mod scope;
pub mod session;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod transport;
pub mod watchdog;
pub mod workers;
mod wrapper;
