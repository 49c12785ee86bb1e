//! What is known of every link at this moment: one place for `/ready`, for the metrics and for a drain.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use adit_tunnel::session::Session;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::observe::Observe;

/// How the link to one gateway stands.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Not connected; maybe trying, maybe pausing.
    Connecting,
    /// The last try came to nothing, in these words. Tried again.
    Failed(String),
    /// The gateway said no, in these words. Tried again all the same.
    Refused(String),
    /// A session stands.
    Connected {
        /// The gateway connects what is forwarded to it, as far as it has been asked to; as it said at the beginning. It may
        /// permit it later, in the same session.
        forwards: bool,
    },
}

/// One gateway, or one address of it.
#[derive(Debug, Clone)]
struct Link {
    /// The gateway as it was configured.
    gateway: Arc<str>,
    state: State,
}

/// One session.
#[derive(Debug)]
struct Known {
    gateway: Arc<str>,
    session: Session,
    /// What the gateway has granted.
    granted: u64,
    /// When its last canary came through.
    canary: Option<Instant>,
}

#[derive(Debug, Default)]
struct Table {
    links: BTreeMap<u64, Link>,
    /// Every session there is, also those that only finish what they carry.
    sessions: BTreeMap<u64, Known>,
    next: u64,
}

impl Table {
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn connected(&self) -> usize {
        self.links.values().filter(|link| matches!(link.state, State::Connected { .. })).count()
    }
}

/// The links of an agent. Clones are the same board.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    table: watch::Sender<Table>,
}

impl Board {
    /// A link that is kept until the place is dropped.
    pub(crate) fn link(&self, gateway: Arc<str>) -> Place {
        let mut id = 0;
        self.table.send_modify(|table| {
            id = table.next();
            table.links.insert(id, Link { gateway: Arc::clone(&gateway), state: State::Connecting });
        });
        Place { board: self.clone(), id, gateway }
    }

    /// Whether a session stands.
    pub(crate) fn is_ready(&self) -> bool {
        self.table.borrow().connected() > 0
    }

    /// Waits until a session stands. Cancel safe.
    pub(crate) async fn ready(&self) {
        let mut table = self.table.subscribe();
        if table.wait_for(|table| table.connected() > 0).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until a gateway has said no, and returns which one and its words. Cancel safe.
    pub(crate) async fn refused(&self) -> (Arc<str>, String) {
        let mut table = self.table.subscribe();
        loop {
            let refusal = table.borrow_and_update().links.values().find_map(|link| match &link.state {
                State::Refused(text) => Some((Arc::clone(&link.gateway), text.clone())),
                State::Connecting | State::Failed(_) | State::Connected { .. } => None,
            });
            if let Some(refusal) = refusal {
                return refusal;
            }
            if table.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until a try of every link has come to nothing, and returns why. Cancel safe.
    pub(crate) async fn failed(&self) -> Vec<(Arc<str>, String)> {
        let mut table = self.table.subscribe();
        loop {
            let failures: Option<Vec<_>> = {
                let table = table.borrow_and_update();
                let of = |link: &Link| match &link.state {
                    State::Refused(text) | State::Failed(text) => {
                        Some((Arc::clone(&link.gateway), text.clone()))
                    }
                    State::Connecting | State::Connected { .. } => None,
                };
                table.links.values().map(of).collect()
            };
            if let Some(failures) = failures.filter(|failures| !failures.is_empty()) {
                return failures;
            }
            if table.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Every session there is, also those that only finish what they carry.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.table.borrow().sessions.values().map(|known| known.session.clone()).collect()
    }

    /// The same, with those first whose gateway has granted this.
    pub(crate) fn sessions_for(&self, capability: u64) -> Vec<Session> {
        let table = self.table.borrow();
        let mut known: Vec<_> = table.sessions.values().collect();
        known.sort_by_key(|known| known.granted & capability == 0);
        known.into_iter().map(|known| known.session.clone()).collect()
    }

    /// Every session to this gateway.
    pub(crate) fn sessions_to(&self, gateway: &str) -> Vec<Session> {
        let table = self.table.borrow();
        let known = table.sessions.values().filter(|known| *known.gateway == *gateway);
        known.map(|known| known.session.clone()).collect()
    }

    /// Brings the gauges up to date that are only looked at when somebody asks.
    pub(crate) fn measure(&self, observe: &Observe) {
        observe.up(self.is_ready());
        for Known { gateway, session, .. } in self.table.borrow().sessions.values() {
            if let Some(rtt) = session.rtt() {
                observe.gateway(gateway).round_trip(rtt);
            }
        }
    }

    /// One line for each link, for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let table = self.table.borrow();
        for Link { gateway, state } in table.links.values() {
            let word = match state {
                State::Connecting | State::Failed(_) => "connecting",
                State::Refused(_) => "refused",
                State::Connected { forwards: true } => "connected",
                State::Connected { forwards: false } => {
                    "connected, and did not permit what is forwarded to its side when it was connected"
                }
            };
            let _always_fits = writeln!(text, "{gateway}: {word}");
        }
        let sung = table.sessions.values().filter_map(|known| known.canary).max();
        let _always_fits = match sung {
            Some(at) => writeln!(text, "last canary: {} s ago", at.elapsed().as_secs()),
            None => writeln!(text, "last canary: none yet"),
        };
        text
    }
}

/// A link's place on the board; empty again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    board: Board,
    id: u64,
    gateway: Arc<str>,
}

impl Place {
    /// The gateway as it was configured.
    pub(crate) fn gateway(&self) -> &Arc<str> {
        &self.gateway
    }

    /// The link stands so from now on.
    pub(crate) fn set(&self, state: State) {
        self.board.table.send_modify(|table| {
            if let Some(link) = table.links.get_mut(&self.id) {
                link.state = state;
            }
        });
    }

    /// The link stands until the guard is dropped, however that comes about.
    pub(crate) fn connected(&self, forwards: bool) -> Connected<'_> {
        self.set(State::Connected { forwards });
        Connected(self)
    }

    /// Counts a session as there until the guard is dropped.
    pub(crate) fn session(&self, session: Session, granted: u64) -> Listed {
        let mut id = 0;
        self.board.table.send_modify(|table| {
            id = table.next();
            let gateway = Arc::clone(&self.gateway);
            table.sessions.insert(id, Known { gateway, session, granted, canary: None });
        });
        Listed { board: self.board.clone(), id }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.board.table.send_modify(|table| drop(table.links.remove(&self.id)));
    }
}

/// See [`Place::connected`].
#[derive(Debug)]
pub(crate) struct Connected<'a>(&'a Place);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.set(State::Connecting);
    }
}

/// See [`Place::session`].
#[derive(Debug)]
pub(crate) struct Listed {
    board: Board,
    id: u64,
}

impl Listed {
    /// A canary came through.
    pub(crate) fn canary(&self) {
        self.board.table.send_if_modified(|table| {
            if let Some(known) = table.sessions.get_mut(&self.id) {
                known.canary = Some(Instant::now());
            }
            // Nobody waits for this.
            false
        });
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.board.table.send_modify(|table| drop(table.sessions.remove(&self.id)));
    }
}
