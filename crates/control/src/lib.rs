//! What may happen: who somebody is, what they may reach, and the permit that says so. Pure decisions over an
//! immutable snapshot; no socket, no clock, no task.
//!
//! A gateway with nothing but a shared token and flags is a preset of this model: every token names a built-in
//! identity that may offer any service, and every client whose address the rules allow may reach every service.

pub mod policy;
pub mod snapshot;

pub use policy::{Denial, DialPermit, Permit, Subject, authorize, authorize_dial};
pub use snapshot::{Rules, Snapshot, Snapshots};
