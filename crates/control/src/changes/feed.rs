//! What changed, told in order to whoever keeps a copy.

use std::collections::VecDeque;
use std::sync::Arc;

use adit_proto::name::Name;
use tokio::sync::watch;

use super::kept::Key;
use super::view::{Stored, View};
use super::{Action, ChangeError, Changes};
use crate::model::Kind;
use crate::store::Revision;

/// Changes that are remembered for those who come back.
const REMEMBERED: usize = 10_000;
/// What they may take in the store, together.
const REMEMBERED_BYTES: usize = 16 << 20;

/// One change to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The transaction.
    pub revision: Revision,
    /// Create, update or delete.
    pub action: Action,
    /// The resource's kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// As it is now; `None` when it is gone.
    pub after: Option<Stored>,
    /// What that takes in the store.
    bytes: usize,
}

/// The newest changes.
#[derive(Debug)]
pub(super) struct History {
    told: VecDeque<Arc<Told>>,
    bytes: usize,
    /// All changes after this transaction are there.
    floor: Revision,
}

impl History {
    pub(super) const fn from(revision: Revision) -> Self {
        Self { told: VecDeque::new(), bytes: 0, floor: revision }
    }

    fn add(&mut self, told: Told) {
        self.bytes += told.bytes;
        self.told.push_back(Arc::new(told));
        while self.told.len() > REMEMBERED || self.bytes > REMEMBERED_BYTES {
            let Some(old) = self.told.pop_front() else { return };
            self.bytes -= old.bytes;
            self.floor = old.revision;
        }
    }

    /// Adds what a write to a key did. `before` says whether the resource was there.
    pub(super) fn note(&mut self, key: &str, existed: bool, view: &View, revision: Revision) {
        let Key::Resource(kind, name) = Key::of(key) else { return };
        let Ok(name) = name.parse::<Name>() else { return };
        let after = view.get(kind, &name);
        let action = match (existed, &after) {
            (false, None) => return,
            (false, Some(_)) => Action::Create,
            (true, Some(_)) => Action::Update,
            (true, None) => Action::Delete,
        };
        let name = after.as_ref().map_or(name, |stored| stored.resource.name().clone());
        let bytes = view.size(kind, &name);
        self.add(Told { revision, action, kind, name, after, bytes });
    }

    /// Adds what is different in a state that was read anew. Of what is gone, the transaction is not known any more.
    pub(super) fn compare(&mut self, old: &View, new: &View) {
        let mut told: Vec<Told> = Vec::new();
        for ((kind, name), meta) in new.metas.iter() {
            let action = match old.metas.get(&(*kind, name.clone())) {
                Some(before) if before.revision == meta.revision => continue,
                Some(_) => Action::Update,
                None => Action::Create,
            };
            let after = new.get(*kind, name);
            let (revision, bytes) = (meta.revision, meta.bytes);
            told.push(Told { revision, action, kind: *kind, name: name.clone(), after, bytes });
        }
        for (kind, name) in old.metas.keys().filter(|about| !new.metas.contains_key(about)) {
            let (revision, action) = (new.revision, Action::Delete);
            told.push(Told { revision, action, kind: *kind, name: name.clone(), after: None, bytes: 0 });
        }
        told.sort_by_key(|told| told.revision);
        told.into_iter().for_each(|told| self.add(told));
    }
}

/// The changes after some transaction, as they are published.
#[derive(Debug)]
pub struct Feed {
    changes: Arc<Changes>,
    at: Revision,
    published: watch::Receiver<Revision>,
}

impl Changes {
    /// Tells every change after a transaction; without one, those from now on.
    ///
    /// # Errors
    /// Changes since then are not remembered any more, or the transaction has not happened yet.
    pub fn feed(self: &Arc<Self>, since: Option<Revision>) -> Result<Feed, ChangeError> {
        let published = self.published();
        let newest = *published.borrow();
        let at = since.unwrap_or(newest);
        if at < self.state.lock().history.floor || at > newest {
            return Err(ChangeError::client(
                "compacted",
                410,
                format!("changes since revision {at} are not known (any more)"),
                "list the resources again, and watch from the revision of GET /v1/info",
            ));
        }
        Ok(Feed { changes: Arc::clone(self), at, published })
    }
}

impl Feed {
    /// The last transaction that was told.
    #[must_use]
    pub const fn at(&self) -> Revision {
        self.at
    }

    /// The next changes, those of a transaction all at once; `None` when they were not fetched in time, and are not
    /// remembered any more. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<Arc<Told>>> {
        loop {
            let newest = *self.published.borrow_and_update();
            if newest > self.at {
                let told: Vec<Arc<Told>> = {
                    let state = self.changes.state.lock();
                    if self.at < state.history.floor {
                        return None;
                    }
                    let fits = |told: &&Arc<Told>| told.revision > self.at && told.revision <= newest;
                    state.history.told.iter().filter(fits).cloned().collect()
                };
                self.at = newest;
                if !told.is_empty() {
                    return Some(told);
                }
            }
            self.published.changed().await.ok()?;
        }
    }
}
