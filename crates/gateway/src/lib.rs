//! The public side: listeners to streams, and the control port.
//!
//! Reading order: [`config`] for what a gateway is told; `flow` for the whole life of a request, read this first;
//! then its phases in order: `identify`, `router`, `balancer`, `forward`. `tcp` is the same for a connection of a TCP
//! service. `publics`, `listener` and `http` turn sockets into flows, `proxied` hears from balancers in front, `opened` takes streams
//! of agents: `dialing` joins them to services, `forwarding` connects to addresses. `reach` is what `tcp` and `dialing`
//! share. `grants` ends what is not permitted any more, `sessions` knows which agents are there, `refusal` is the one place that says no, `observe` counts and
//! records, `control_port` is where agents, `adit status` and Prometheus connect, `api` is the admin interface there, `state` where resources are kept, `server` puts it together.

pub mod api;
mod balancer;
mod canary;
mod certificates;
pub mod config;
mod control_port;
mod dialing;
pub mod enrolling;
mod flow;
mod forward;
mod forwarding;
mod grants;
mod http;
mod identify;
mod inherited;
mod listener;
mod live;
pub mod observe;
mod opened;
mod proxied;
mod publics;
mod reach;
mod refusal;
mod reload;
mod router;
mod server;
mod sessions;
mod sources;
mod state;
pub mod status;
mod tcp;
mod tls;

pub use config::Config;
pub use inherited::Inherited;
pub use server::{Gateway, StartError};
