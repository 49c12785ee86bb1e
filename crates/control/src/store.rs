//! Where resources are kept: keys with values, revisions, transactions that compare before they set, watches, leases.
//!
//! Every implementation passes one suite ([`conformance`]); what is above the store knows none of them by name.

pub mod conformance;
pub mod memory;
pub mod sqlite;

mod clerk;
mod leases;
mod watchers;

use std::collections::HashSet;
use std::fmt;
use std::future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// Counts transactions. Each that changed something has the next revision; 0 is before the first.
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
    /// What is done then, in this order; each key once. Nothing to do is not a mistake: what is expected is still
    /// compared.
    pub writes: Vec<Write>,
}

impl Transaction {
    /// Says no to one that writes a key twice.
    fn check(&self) -> Result<(), StoreError> {
        let mut keys = HashSet::new();
        let twice = self.writes.iter().map(Write::key).find(|key| !keys.insert(*key));
        twice.map_or(Ok(()), |key| Err(StoreError::Invalid(format!("one transaction writes {key} twice"))))
    }
}

impl Write {
    /// The key that it writes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

impl Expect {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::Modified(key, _) => key,
        }
    }

    /// Compares with the transaction that wrote the key last; `None`: it does not exist.
    fn check(&self, modified: Option<Revision>) -> Result<(), StoreError> {
        let holds = match self {
            Self::Absent(_) => modified.is_none(),
            Self::Present(_) => modified.is_some(),
            Self::Modified(_, revision) => modified == Some(*revision),
        };
        if holds { Ok(()) } else { Err(StoreError::Conflict { key: self.key().to_owned() }) }
    }
}

/// How much of the past is kept for watches. Whichever bound is met first holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Transactions.
    pub transactions: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { transactions: 10_000, bytes: 32 << 20 }
    }
}

/// Names a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// What a watch tells: one transaction, so that no reader sees half of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The transaction.
    pub revision: Revision,
    /// What it did to the keys that are watched, in the order of its writes; never empty.
    pub events: Vec<Event>,
}

impl Committed {
    /// Bytes of keys and values.
    fn size(&self) -> usize {
        self.events.iter().map(|event| event.key.len() + event.value.as_ref().map_or(0, Vec::len)).sum()
    }
}

/// What happened to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
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
    /// It was asked for something that no store does, such as writing a key twice in one transaction. Nothing was
    /// written.
    #[error("{0}")]
    Invalid(String),
    /// This kind of store does not do that.
    #[error("{0}")]
    Unsupported(&'static str),
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

    /// Does all of a transaction or nothing, and returns its revision. It is on the disk then, where there is one. One
    /// that changes nothing (only deletes what is not there) has no revision of its own: the last one is returned.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Every transaction after `since` that changed keys with a prefix, in order, each once: first from the history, then
    /// as they happen. [`StoreError::Compacted`] if the history does not reach back so far, or `since` is ahead of the
    /// store: list again, and watch from the listing's revision. The receiver ends when the store does, or when whoever
    /// reads is so slow that changes would have to be kept without bound: list again then, too.
    fn watch(
        &self,
        prefix: &str,
        since: Revision,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Committed>, StoreError>>;

    /// A lease that expires this long after it was granted or kept alive last. The keys that were put with it go then, in
    /// one transaction. A key that is put again without it, or with another, has left it.
    ///
    /// Where the store outlives its process, the lease does too: it begins anew when the store is opened again, because
    /// nobody could keep it alive meanwhile.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>>;

    /// Lets a lease begin anew.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Ends a lease, with its keys.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Writes all of it, as of one moment, to a file that appears whole or not at all, readable by its owner alone.
    /// Writing goes on meanwhile.
    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = to;
        let no = "this gateway keeps its state in memory only: there is no file to back up; start it with a state directory";
        Box::pin(future::ready(Err(StoreError::Unsupported(no))))
    }

    /// Lets go of what the store holds, once everything that was asked before is done, so that the next process can have
    /// it while this one finishes. Watches end; whatever is asked later is [`StoreError::Unavailable`].
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(future::ready(()))
    }
}

/// A store that is shared.
pub type SharedStore = Arc<dyn Store>;
