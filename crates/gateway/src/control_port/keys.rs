//! The tokens that open sessions now, as keys: made anew for each snapshot, not for each caller.

use std::sync::Arc;

use adit_control::model::SecretText;
use adit_control::{Snapshot, Who};
use adit_proto::handshake::Hello;
use adit_tunnel::handshake::is_proved;
use adit_tunnel::proof::{Exporter, TokenKey};
use arc_swap::ArcSwapOption;

use crate::grants::now;

/// A token, ready to be compared with what callers show.
#[derive(Debug)]
pub(crate) struct NamedKey {
    /// Whom it makes of a caller.
    pub(crate) who: Who,
    /// The token.
    pub(crate) key: TokenKey,
    /// The same as text, to see later whether it still counts.
    pub(crate) secret: SecretText,
    /// Seconds since 1970.
    not_after: Option<u64>,
}

/// The keys of one snapshot.
#[derive(Debug)]
struct Made {
    generation: u64,
    keys: Vec<Arc<NamedKey>>,
}

/// The keys of the newest snapshot that was asked about.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    made: ArcSwapOption<Made>,
}

impl Keys {
    fn of(&self, snapshot: &Snapshot) -> Arc<Made> {
        let generation = snapshot.generation().number();
        if let Some(made) = self.made.load_full().filter(|made| made.generation == generation) {
            return made;
        }
        let keys = snapshot.tokens().iter().map(|token| {
            Arc::new(NamedKey {
                who: Who::Token(token.name.clone()),
                key: TokenKey::new(token.secret.expose().as_bytes()),
                secret: token.secret.clone(),
                not_after: token.not_after,
            })
        });
        let made = Arc::new(Made { generation, keys: keys.collect() });
        self.made.store(Some(Arc::clone(&made)));
        made
    }

    /// The key that somebody has shown. Every one is tried, so that the time taken says nothing about which it was.
    pub(crate) fn find(
        &self,
        snapshot: &Snapshot,
        is_it: impl Fn(&TokenKey) -> bool,
    ) -> Option<Arc<NamedKey>> {
        let now = now();
        let mut found = None;
        for key in &self.of(snapshot).keys {
            let fits = is_it(&key.key);
            if fits && key.not_after.is_none_or(|end| now < end) {
                found = Some(Arc::clone(key));
            }
        }
        found
    }

    /// The key that a hello was proved with.
    pub(crate) fn prover(
        &self,
        snapshot: &Snapshot,
        hello: &Hello,
        exporter: &Exporter,
    ) -> Option<Arc<NamedKey>> {
        self.find(snapshot, |key| is_proved(hello, key, exporter))
    }
}
