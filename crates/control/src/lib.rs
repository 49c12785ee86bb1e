//! What may happen: who there is, who may offer and reach what, where that is kept, and the permit that says so.
//!
//! [`model`] is what an operator writes, [`store`] keeps it, [`changes`] is the only way to write it, [`snapshot`] is
//! the immutable view that every decision of [`policy`] reads.

pub mod audit;
pub mod authority;
pub mod changes;
pub mod enrollment;
pub mod expectation;
pub mod explain;
pub mod model;
mod near;
pub mod policy;
pub mod snapshot;
pub mod store;

pub use audit::Actor;
pub use changes::{ChangeError, Changes};
pub use explain::{EndpointView, Explanation, ProbeView, Question, explain};
pub use policy::{
    BindPermit, Denial, DialPermit, Permit, Subject, Who, authorize, authorize_dial, authorize_offer,
};
pub use snapshot::{Local, LocalToken, Rules, Snapshot, Snapshots, TokenEntry};
