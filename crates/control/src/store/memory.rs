//! A store in memory: for tests, and for a gateway that is told to keep nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use super::leases::Leases;
use super::watchers::Watchers;
use super::{
    Committed, Entry, Event, History, LeaseId, Listing, Revision, Store, StoreError, Transaction, Write,
};

/// A store that ends with its process. Its keys are lost then.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Rings when there is another lease to wait for, and when the store ends.
    leases: Condvar,
}

#[derive(Debug, Default)]
struct State {
    keep: History,
    revision: Revision,
    entries: BTreeMap<String, Held>,
    past: VecDeque<Committed>,
    past_bytes: usize,
    /// The last transaction that is not in `past` any more.
    compacted: Revision,
    watchers: Watchers,
    leases: Leases,
    last_lease: u64,
    has_timer: bool,
    has_ended: bool,
}

#[derive(Debug)]
struct Held {
    value: Vec<u8>,
    created: Revision,
    modified: Revision,
    lease: Option<LeaseId>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::with_history(History::default())
    }

    /// An empty one that keeps so much of the past.
    pub fn with_history(keep: History) -> Self {
        let state = Mutex::new(State { keep, ..State::default() });
        Self { shared: Arc::new(Shared { state, leases: Condvar::new() }) }
    }

    /// Does something at once, and answers when it is first polled: a future that is dropped before did nothing.
    fn ready<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        Box::pin(async move { work(&mut self.shared.state.lock()) })
    }

    /// Grants a lease and has somebody wait for its end.
    fn begin_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let mut state = self.shared.state.lock();
        if !state.has_timer {
            let shared = Arc::clone(&self.shared);
            thread::Builder::new()
                .name("adit-leases".to_owned())
                .spawn(move || shared.end_leases())
                .map_err(|error| StoreError::Unavailable(error.into()))?;
            state.has_timer = true;
        }
        state.last_lease += 1;
        let id = LeaseId(state.last_lease);
        state.leases.begin(id, ttl, Instant::now());
        self.shared.leases.notify_all();
        Ok(id)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.has_ended = true;
        state.watchers.let_go();
        self.shared.leases.notify_all();
    }
}

impl Shared {
    /// Ends each lease in its time, until the store ends.
    fn end_leases(&self) {
        let mut state = self.state.lock();
        while !state.has_ended {
            for lease in state.leases.due(Instant::now()) {
                state.end_lease(lease);
            }
            match state.leases.next() {
                Some(deadline) => {
                    self.leases.wait_until(&mut state, deadline);
                }
                None => self.leases.wait(&mut state),
            }
        }
    }
}

impl State {
    fn commit(&mut self, transaction: Transaction) -> Result<Revision, StoreError> {
        transaction.check()?;
        for expect in &transaction.expect {
            expect.check(self.entries.get(expect.key()).map(|held| held.modified))?;
        }
        for write in &transaction.writes {
            if let Write::Put { lease: Some(lease), .. } = write {
                self.leases.check(*lease)?;
            }
        }
        let revision = self.revision + 1;
        let events: Vec<_> =
            transaction.writes.into_iter().filter_map(|write| self.write(write, revision)).collect();
        if !events.is_empty() {
            self.revision = revision;
            self.remember(Committed { revision, events });
        }
        Ok(self.revision)
    }

    fn write(&mut self, write: Write, revision: Revision) -> Option<Event> {
        match write {
            Write::Put { key, value, lease } => {
                let created = self.entries.get(&key).map_or(revision, |held| held.created);
                let event = Event { key: key.clone(), value: Some(value.clone()) };
                self.entries.insert(key, Held { value, created, modified: revision, lease });
                Some(event)
            }
            Write::Delete { key } => self.entries.remove(&key).map(|_| Event { key, value: None }),
        }
    }

    fn remember(&mut self, committed: Committed) {
        self.watchers.tell(&committed);
        self.past_bytes += committed.size();
        self.past.push_back(committed);
        while self.past.len() > self.keep.transactions || self.past_bytes > self.keep.bytes {
            let Some(oldest) = self.past.pop_front() else { break };
            self.past_bytes -= oldest.size();
            self.compacted = oldest.revision;
        }
    }

    fn end_lease(&mut self, lease: LeaseId) {
        let held = self.entries.iter().filter(|(_, held)| held.lease == Some(lease));
        let writes = held.map(|(key, _)| Write::Delete { key: key.clone() }).collect();
        self.leases.end(lease);
        let ended = self.commit(Transaction { expect: Vec::new(), writes });
        debug_assert!(ended.is_ok(), "keys of a map are there once, and nothing is expected of them");
    }

    fn list(&self, prefix: &str) -> Listing {
        let from = self.entries.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Listing { revision: self.revision, entries: from.map(|(key, held)| held.entry(key)).collect() }
    }

    fn watch(&mut self, prefix: &str, since: Revision) -> Result<mpsc::Receiver<Committed>, StoreError> {
        if since < self.compacted || since > self.revision {
            return Err(StoreError::Compacted(since));
        }
        let history = self.past.iter().filter(|committed| committed.revision > since).cloned().collect();
        Ok(self.watchers.add(prefix, history))
    }
}

impl Held {
    fn entry(&self, key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: self.value.clone(),
            created: self.created,
            modified: self.modified,
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.to_owned();
        self.ready(move |state| Ok(state.entries.get(&key).map(|held| held.entry(&key))))
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing, StoreError>> {
        let prefix = prefix.to_owned();
        self.ready(move |state| Ok(state.list(&prefix)))
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.ready(move |state| state.commit(transaction))
    }

    fn watch(
        &self,
        prefix: &str,
        since: Revision,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Committed>, StoreError>> {
        let prefix = prefix.to_owned();
        self.ready(move |state| state.watch(&prefix, since))
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        Box::pin(async move { self.begin_lease(ttl) })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ready(move |state| state.leases.keep_alive(lease, Instant::now()))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ready(move |state| {
            state.leases.check(lease)?;
            state.end_lease(lease);
            Ok(())
        })
    }
}
