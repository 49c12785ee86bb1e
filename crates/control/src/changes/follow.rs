//! Keeps up with the store: what another gateway writes is published here, and a store that comes back is read anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::kept::{self, TURN};
use super::view::View;
use super::{ChangeError, Changes, heard};
use crate::store::Store;

/// How often a state is read anew because it changed while it was read.
const TRIES: usize = 8;
/// How long to wait before the store is tried again; doubled up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Reads one consistent state. Every transaction writes [`TURN`], so nothing has changed as long as that has not.
///
/// # Errors
/// The store cannot be read, changes all the time, or holds what cannot be understood.
pub(super) async fn load(store: &dyn Store) -> Result<View, ChangeError> {
    for _ in 0..TRIES {
        let before = store.get(TURN).await?;
        let mut view = View::default();
        let mut newest = 0;
        for prefix in kept::prefixes() {
            let listing = store.list(&prefix).await?;
            newest = listing.revision;
            for entry in &listing.entries {
                view.take(&entry.key, Some(&entry.value), entry.modified)?;
            }
        }
        let after = store.get(TURN).await?;
        if before.as_ref().map(|entry| entry.modified) == after.as_ref().map(|entry| entry.modified) {
            if let Some(entry) = after {
                view.take(&entry.key, Some(&entry.value), entry.modified)?;
            }
            view.revision = view.revision.max(newest);
            return Ok(view);
        }
    }
    Err(ChangeError::busy())
}

impl Changes {
    /// Follows the store until it is dropped. While the store is gone the last state stays in force, and
    /// [`Changes::is_current`] says so.
    pub async fn follow(self: &Arc<Self>) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.store.watch("/", self.revision()).await {
                Ok(mut watch) => {
                    if !self.is_current.swap(true, Ordering::Relaxed) {
                        tracing::info!("the store answers again");
                    }
                    pause = SHORTEST_PAUSE;
                    self.publish().await;
                    loop {
                        tokio::select! {
                            committed = watch.recv() => match committed {
                                Some(committed) => self.hear(committed, &mut watch).await,
                                None => break,
                            },
                            () = self.doubt.notified() => break,
                        }
                    }
                    tracing::debug!("the store's watch ended; reading everything anew");
                }
                Err(error) => tracing::debug!(%error, "the store cannot be watched; reading everything anew"),
            }
            // Whether the watch ended for a slow reader or with the store shows here.
            if let Err(error) = self.reload_in_turn().await {
                if self.is_current.swap(false, Ordering::Relaxed) {
                    tracing::error!(%error, "the store is gone; what was decided last stays in force");
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes in a transaction, and whatever else was told meanwhile, and publishes once.
    async fn hear(
        self: &Arc<Self>,
        first: crate::store::Committed,
        more: &mut tokio::sync::mpsc::Receiver<crate::store::Committed>,
    ) {
        self.take(first.revision, heard(&first));
        while let Ok(next) = more.try_recv() {
            self.take(next.revision, heard(&next));
        }
        // Also what this gateway has written itself, for somebody who went away before it was in force.
        self.publish().await;
    }

    async fn reload_in_turn(self: &Arc<Self>) -> Result<(), ChangeError> {
        let _turn = self.turn.acquire().await.map_err(ChangeError::unavailable)?;
        self.reload().await
    }
}
