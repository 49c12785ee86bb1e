//! Where resources are kept: keys with values, revisions, transactions that compare before they set, watches, leases.
//!
//! Every implementation passes one suite ([`conformance`]); what is above the store knows none of them by name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// Counts transactions. Every committed one has a higher revision than those before it; 0 is before the first.
pub type Revision = u64;

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key: `/identities/dev.client`.
    pub key: String,
    /// The value: opaque bytes.
    pub value: Vec<u8>,
    /// The transaction that made it.
    pub created: Revision,
    /// The transaction that wrote it last.
    pub modified: Revision,
}

/// What must be true of a key for a transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent(String),
    /// It exists, whatever it holds.
    Present(String),
    /// It was written last by this transaction.
    Modified(String, Revision),
}

/// A change to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets it.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// Goes with this lease, if any.
        lease: Option<LeaseId>,
    },
    /// Removes it; nothing happens if it is not there.
    Delete {
        /// The key.
        key: String,
    },
}

/// All of it happens or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must be true.
    pub expect: Vec<Expect>,
    /// What is done then; each key once.
    pub writes: Vec<Write>,
}

/// Names a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The transaction.
    pub revision: Revision,
    /// The key.
    pub key: String,
    /// What it holds now; `None`: it is gone.
    pub value: Option<Vec<u8>>,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was expected of this key is not true. Nothing was written.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// Which key.
        key: String,
    },
    /// Changes since that revision are not known any more: list again, and watch from there.
    #[error("changes since revision {0} are not kept any more")]
    Compacted(Revision),
    /// The lease has expired or never was.
    #[error("the lease is gone")]
    NoLease,
    /// Another process uses the store.
    #[error("{0}")]
    InUse(String),
    /// It was written by a newer release, or is damaged.
    #[error("{0}")]
    Unusable(String),
    /// The store cannot be read or written now.
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A list with the revision that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// As of this transaction.
    pub revision: Revision,
    /// By key.
    pub entries: Vec<Entry>,
}

/// A store. All of it is cancel safe: a transaction whose future is dropped may still happen, whole.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// One key.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;

    /// Every key that begins with a prefix, in the order of keys; one moment's view.
    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing, StoreError>>;

    /// Does all of a transaction or nothing, and returns its revision. It is on the disk then, where there is one.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Every change to keys with a prefix after `since`, in order, each once. The receiver ends when the store does, or
    /// when whoever reads is so slow that changes would have to be kept without bound: list again then.
    fn watch(
        &self,
        prefix: &str,
        since: Revision,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Event>, StoreError>>;

    /// A lease that expires this long after it was granted or kept alive last; keys that were put with it go then.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>>;

    /// Lets a lease begin anew.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Ends a lease, with its keys.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// A store that is shared.
pub type SharedStore = Arc<dyn Store>;
