//! The only way to write resources: checked, in one transaction with its audit record, published before it is
//! acknowledged.
//!
//! A change is planned on the newest `View`, and its transaction happens only if that is still the newest then: each
//! transaction compares and writes the key `kept::TURN`. Who was overtaken reads again and plans anew. So rules that
//! span several resources hold, however many gateways share a store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_proto::name::Name;
use check::Given;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

pub use apply::{Action, Batch, Change, Changed, Outcome};
pub use credentials::{Invitation, Revoked, Secret};
pub use error::ChangeError;
pub use feed::{Feed, Told};
pub use view::Stored;

use crate::audit::{self, Actor, AuditPage, AuditQuery};
use crate::model::{Kind, Model, Timestamp};
use crate::snapshot::{Local, Snapshots};
use crate::store::{Committed, Expect, Revision, SharedStore, StoreError, Transaction, Write};
use feed::History;
use kept::{Key, TURN};
use view::View;

mod apply;
mod check;
mod credentials;
mod error;
mod feed;
mod follow;
pub(crate) mod kept;
mod view;

/// How often a change is planned anew because others were faster.
const TRIES: usize = 16;
/// From so many resources, or bytes of them, on a snapshot is compiled on a thread where it holds up nobody.
const LARGE: usize = 2000;
const HEAVY: usize = 1024 * 1024;

/// Ports that the gateway itself listens on, with what each is for: `control port`, `http`.
pub type OwnPorts = BTreeMap<u16, &'static str>;

/// The resources, and whoever writes them.
#[derive(Debug)]
pub struct Changes {
    store: SharedStore,
    snapshots: Arc<Snapshots>,
    state: Mutex<State>,
    /// One transaction after the other; a second one would only find that it was overtaken.
    turn: Semaphore,
    /// Held while a snapshot is compiled and published, so that an older one never follows a newer one.
    publishing: Mutex<()>,
    /// The version of the state that was published last.
    in_force: AtomicU64,
    /// Who waits for a publication waits here, and not on a thread: most find that the one before took theirs along.
    publishers: Semaphore,
    /// The newest published revision.
    published: watch::Sender<Revision>,
    is_current: AtomicBool,
    /// False from a transaction that the store could not write until one that it could.
    is_writable: AtomicBool,
    own_ports: Mutex<OwnPorts>,
    /// Rings when the store did not answer, so that whoever follows it looks.
    doubt: Notify,
    figures: Figures,
}

#[derive(Debug)]
struct State {
    /// Counts what is taken in: a higher one is newer.
    version: u64,
    view: View,
    history: History,
    local: Arc<Local>,
}

/// What can be counted about publications.
#[derive(Debug, Default)]
struct Figures {
    compile_nanos: AtomicU64,
    published_at: Mutex<Option<Instant>>,
}

/// What a plan wants of the store.
#[derive(Debug)]
struct Plan<T> {
    /// What is told if it happens.
    result: T,
    expect: Vec<Expect>,
    writes: Vec<Write>,
    audit: Vec<audit::Entry>,
    /// Whether it is written also if there is nothing to write: to see whether it can be.
    is_probe: bool,
}

impl<T> Plan<T> {
    const fn nothing(result: T) -> Self {
        Self { result, expect: Vec::new(), writes: Vec::new(), audit: Vec::new(), is_probe: false }
    }
}

impl Changes {
    /// Reads what the store holds and publishes it.
    ///
    /// # Errors
    /// The store cannot be read, or holds what this release does not understand.
    pub async fn open(
        store: SharedStore,
        local: Local,
        snapshots: Arc<Snapshots>,
        now: Timestamp,
    ) -> Result<Arc<Self>, ChangeError> {
        let view = follow::load(&*store).await?;
        let revision = view.revision;
        let changes = Arc::new(Self {
            store,
            snapshots,
            state: Mutex::new(State {
                version: 1,
                view,
                history: History::from(revision),
                local: Arc::new(local),
            }),
            turn: Semaphore::new(1),
            publishing: Mutex::new(()),
            in_force: AtomicU64::new(0),
            publishers: Semaphore::new(1),
            published: watch::Sender::new(revision),
            is_current: AtomicBool::new(true),
            is_writable: AtomicBool::new(true),
            own_ports: Mutex::default(),
            doubt: Notify::new(),
            figures: Figures::default(),
        });
        changes.publish().await;
        changes.tidy(now).await;
        Ok(changes)
    }

    /// All resources, as of the newest published change.
    #[must_use]
    pub fn model(&self) -> Arc<Model> {
        Arc::clone(&self.state.lock().view.model)
    }

    /// The transaction that [`Changes::model`] shows.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.lock().view.revision
    }

    /// One resource.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &Name) -> Option<Stored> {
        self.view().get(kind, name)
    }

    /// Resources of a kind in the order of their names, from behind `after` on, as many as `wanted` lets through up to
    /// a limit; and whether there are more.
    #[must_use]
    pub fn list(
        &self,
        kind: Kind,
        after: Option<&Name>,
        limit: usize,
        wanted: impl Fn(&crate::model::Resource) -> bool,
    ) -> (Vec<Stored>, bool) {
        let view = self.view();
        let mut found = Vec::new();
        for name in view.model.names(kind).filter(|name| after.is_none_or(|after| *name > after)) {
            let Some(stored) = view.get(kind, name).filter(|stored| wanted(&stored.resource)) else {
                continue;
            };
            if found.len() == limit {
                return (found, true);
            }
            found.push(stored);
        }
        (found, false)
    }

    /// Every resource, in an order in which they can be created.
    #[must_use]
    pub fn export(&self) -> (Vec<Stored>, Revision) {
        let view = self.view();
        let mut all = Vec::with_capacity(view.model.count());
        for kind in Kind::ALL {
            all.extend(view.model.names(kind).filter_map(|name| view.get(kind, name)));
        }
        (all, view.revision)
    }

    /// Whether what is known is what the store holds: false while the store is gone.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }

    /// Whether the last transaction could be written: false while the disk is full or the store is gone. Nothing is
    /// decided by that; but nobody can be let in anew or kept out.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.is_writable.load(Ordering::Relaxed)
    }

    /// Says where the gateway itself listens: no route leads from there from now on. Stored ones that do are told in the
    /// log, and stay.
    pub fn reserve(&self, own: OwnPorts) {
        self.own_ports.lock().clone_from(&own);
        for route in self.model().routes.values() {
            for (port, purpose) in route.ports.iter().filter_map(|port| own.get_key_value(port)) {
                tracing::error!(
                    route = %route.name, port, purpose,
                    "a route leads from one of the gateway's own ports and is not served there; change the route, or \
                     have the gateway listen elsewhere"
                );
            }
        }
    }

    /// Ticks with the revision of each publication.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Revision> {
        self.published.subscribe()
    }

    /// How long the last compilation of a snapshot took, and how long ago it was published.
    #[must_use]
    pub fn last_publication(&self) -> (Duration, Duration) {
        let compile = Duration::from_nanos(self.figures.compile_nanos.load(Ordering::Relaxed));
        (compile, self.figures.published_at.lock().map_or(Duration::ZERO, |at| at.elapsed()))
    }

    /// The number of the newest snapshot.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.snapshots.current().generation().number()
    }

    /// How many audit records there are, and how many were dropped for newer ones.
    #[must_use]
    pub fn audited(&self) -> (u64, u64) {
        let turn = self.view().turn.unwrap_or_default().1;
        (turn.audit_next - turn.audit_first, turn.audit_first)
    }

    /// Takes another configuration file's rules and tokens, and publishes them. Cancel safe.
    pub async fn set_local(self: &Arc<Self>, local: Local) {
        self.take_local(local);
        self.publish().await;
    }

    /// The same on this very thread, which has to wait for the compilation.
    pub fn replace_local(&self, local: Local) {
        self.take_local(local);
        self.publish_here();
    }

    fn take_local(&self, local: Local) {
        let mut state = self.state.lock();
        state.local = Arc::new(local);
        state.version += 1;
    }

    /// Reads the audit log. Cancel safe.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditPage, ChangeError> {
        let turn = self.view().turn.unwrap_or_default().1;
        audit::query(&*self.store, turn, query).await
    }

    /// The store itself, for a backup.
    #[must_use]
    pub const fn store(&self) -> &SharedStore {
        &self.store
    }

    fn view(&self) -> View {
        self.state.lock().view.clone()
    }

    fn given(&self) -> Given {
        let local = Arc::clone(&self.state.lock().local);
        let tokens = local.tokens.iter().map(|token| token.token.name.clone()).collect();
        Given { tokens, ports: self.own_ports.lock().clone() }
    }

    /// Plans a change on the newest state, commits it and publishes the result; plans it anew if others were faster.
    /// If the future is dropped, the transaction may still happen, whole; whoever follows the store publishes it then.
    async fn commit<T: Send>(
        self: &Arc<Self>,
        actor: &Actor,
        now: Timestamp,
        plan: impl Fn(&View) -> Result<Plan<T>, ChangeError> + Send,
    ) -> Result<(T, Revision), ChangeError> {
        let my_turn = self.turn.acquire().await.map_err(ChangeError::unavailable)?;
        for _ in 0..TRIES {
            let view = self.view();
            let Plan { result, mut expect, mut writes, audit, is_probe } = plan(&view)?;
            if writes.is_empty() && audit.is_empty() && !is_probe {
                return Ok((result, view.revision));
            }
            let mut turn = view.turn.map(|(_, turn)| turn).unwrap_or_default();
            writes.extend(audit::writes(audit, actor, now, &mut turn)?);
            writes.push(kept::put(TURN.to_owned(), &turn)?);
            expect.push(match view.turn {
                Some((revision, _)) => Expect::Modified(TURN.to_owned(), revision),
                None => Expect::Absent(TURN.to_owned()),
            });
            // Else each change would copy what this one only looks at.
            drop(view);
            let transaction = Transaction { expect, writes: writes.clone() };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.is_current.store(true, Ordering::Relaxed);
                    if !self.is_writable.swap(true, Ordering::Relaxed) {
                        tracing::info!("the store can be written again");
                    }
                    self.take(revision, writes.iter().map(told));
                    // Whoever comes next plans and commits meanwhile, and may be published together with this.
                    drop(my_turn);
                    self.publish().await;
                    return Ok((result, revision));
                }
                Err(StoreError::Conflict { .. }) => self.reload().await?,
                Err(error) => {
                    let is_unavailable = matches!(error, StoreError::Unavailable(_));
                    let error = ChangeError::from(error);
                    if is_unavailable && self.is_writable.swap(false, Ordering::Relaxed) {
                        let error = &error.message;
                        tracing::error!(
                            error,
                            "the store cannot be written; what was decided last stays in force"
                        );
                        // Once: whoever follows reads everything then, and this is tried again and again.
                        self.doubt.notify_one();
                    }
                    return Err(error);
                }
            }
        }
        Err(ChangeError::busy())
    }

    /// Tries the store again if it could not be written the last time. Cancel safe.
    pub async fn retry(self: &Arc<Self>, now: Timestamp) {
        if self.is_writable() {
            return;
        }
        let probe = |_: &View| Ok(Plan { is_probe: true, ..Plan::nothing(()) });
        if let Err(error) = self.commit(&Actor::local(), now, probe).await {
            tracing::debug!(%error, "the store cannot be written yet");
        }
    }

    /// Takes in one transaction, if it is not known yet.
    fn take<'a>(&self, revision: Revision, events: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) {
        let mut state = self.state.lock();
        if revision <= state.view.revision {
            return;
        }
        for (key, value) in events {
            let State { view, history, version: _, local: _ } = &mut *state;
            let existed = view.knows(&Key::of(key));
            match view.take(key, value, revision) {
                Ok(()) => history.note(key, existed, view, revision),
                Err(error) => tracing::error!(key, %error, "a change in the store is left out"),
            }
        }
        state.view.revision = revision;
        state.version += 1;
    }

    /// Reads everything anew and publishes it.
    async fn reload(self: &Arc<Self>) -> Result<(), ChangeError> {
        let view = follow::load(&*self.store).await?;
        let is_newer = {
            let mut state = self.state.lock();
            let is_newer = view.revision > state.view.revision;
            if is_newer {
                let State { view: old, history, version: _, local: _ } = &mut *state;
                history.compare(old, &view);
                state.view = view;
                state.version += 1;
            }
            is_newer
        };
        self.is_current.store(true, Ordering::Relaxed);
        if is_newer {
            self.publish().await;
        }
        Ok(())
    }

    /// Compiles the newest state and makes it the one that decisions read. Returns when what was taken in before is in
    /// force: of many who wait, one compiles for all.
    async fn publish(self: &Arc<Self>) {
        let version = {
            let state = self.state.lock();
            if state.view.model.count() < LARGE && state.view.bytes < HEAVY {
                drop(state);
                self.publish_here();
                return;
            }
            state.version
        };
        // Nobody closes it.
        let _publisher = self.publishers.acquire().await.ok();
        if self.in_force.load(Ordering::Acquire) >= version {
            return;
        }
        let owner = Arc::clone(self);
        if tokio::task::spawn_blocking(move || owner.publish_here()).await.is_err() {
            tracing::error!("a snapshot was not published: its compilation was ended");
        }
    }

    fn publish_here(&self) {
        let _one_at_a_time = self.publishing.lock();
        let (model, local, revision, version) = {
            let state = self.state.lock();
            let (model, local) = (Arc::clone(&state.view.model), Arc::clone(&state.local));
            (model, local, state.view.revision, state.version)
        };
        if self.in_force.load(Ordering::Acquire) == version {
            return;
        }
        let begun = Instant::now();
        self.snapshots.publish_all(&model, &local);
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.figures.compile_nanos.store(nanos, Ordering::Relaxed);
        *self.figures.published_at.lock() = Some(Instant::now());
        self.published.send_replace(revision);
        self.in_force.store(version, Ordering::Release);
    }
}

/// A write as a watch tells it.
fn told(write: &Write) -> (&str, Option<&[u8]>) {
    match write {
        Write::Put { key, value, lease: _ } => (key, Some(value)),
        Write::Delete { key } => (key, None),
    }
}

fn heard(committed: &Committed) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    committed.events.iter().map(|event| (event.key.as_str(), event.value.as_deref()))
}

#[cfg(test)]
mod many_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unwritable_tests;
