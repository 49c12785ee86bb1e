//! Who watches, and what each is told: whole transactions, in order, without waiting for anybody.

use tokio::sync::mpsc;

use super::{Committed, Event};

/// Transactions that may wait for a reader, beyond the history that it asked for. One that is slower is let go.
const WAITING: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Watchers {
    all: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    sender: mpsc::Sender<Committed>,
}

impl Watchers {
    /// One more, which is first told the history: what it asked for, already bounded.
    pub(super) fn add(&mut self, prefix: &str, history: Vec<Committed>) -> mpsc::Receiver<Committed> {
        let (sender, receiver) = mpsc::channel(history.len() + WAITING);
        let watcher = Watcher { prefix: prefix.to_owned(), sender };
        if history.iter().all(|committed| watcher.tell(committed)) {
            self.all.push(watcher);
        }
        receiver
    }

    /// Tells everybody. Who does not listen any more, or is too slow, is let go.
    pub(super) fn tell(&mut self, committed: &Committed) {
        self.all.retain(|watcher| watcher.tell(committed));
    }

    /// Lets everybody go: they list again.
    pub(super) fn let_go(&mut self) {
        self.all.clear();
    }
}

impl Watcher {
    fn tell(&self, committed: &Committed) -> bool {
        let watched = |event: &&Event| event.key.starts_with(&self.prefix);
        let events: Vec<_> = committed.events.iter().filter(watched).cloned().collect();
        if events.is_empty() {
            return !self.sender.is_closed();
        }
        self.sender.try_send(Committed { revision: committed.revision, events }).is_ok()
    }
}
