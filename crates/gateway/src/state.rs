//! Where resources are kept: in a directory, or in memory for as long as the process lives.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_control::store::SharedStore;
use adit_control::store::memory::MemoryStore;
use adit_control::store::sqlite::SqliteStore;
use adit_control::{Changes, Local, Snapshots};
use adit_tunnel::scope::Scope;

use crate::grants::now;
use crate::observe::Observe;
use crate::server::StartError;

/// Reads what is kept and publishes it.
///
/// # Errors
/// [`StartError::State`]: the directory is in use, cannot be read, or holds what this release does not know.
pub(crate) async fn open(
    directory: Option<&Path>,
    local: Local,
    snapshots: Arc<Snapshots>,
) -> Result<Arc<Changes>, StartError> {
    let store: SharedStore = match directory {
        None => Arc::new(MemoryStore::new()),
        Some(directory) => {
            let opened = SqliteStore::open_within(directory, HANDOVER).await;
            Arc::new(opened.map_err(|error| StartError::State { source: Box::new(error) })?)
        }
    };
    let changes = Changes::open(store, local, snapshots, now()).await;
    changes.map_err(|error| StartError::State { source: Box::new(error) })
}

/// How long a gateway that is on its way out has to let go of the directory.
const HANDOVER: Duration = Duration::from_secs(10);
/// How often figures are taken, and what has ended is looked for.
const ROUND: Duration = Duration::from_secs(60);
/// How often a store is tried again that could not be written.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps up with the store, and tidies up in it, until a drain begins.
pub(crate) async fn keep(changes: Arc<Changes>, observe: Observe, draining: Scope) {
    observe.resources(&changes);
    let tidying = async {
        let mut tick = tokio::time::interval(ROUND);
        loop {
            tick.tick().await;
            changes.tidy(now()).await;
        }
    };
    let retrying = async {
        let mut tick = tokio::time::interval(RETRY);
        loop {
            tick.tick().await;
            changes.retry(now()).await;
        }
    };
    tokio::select! {
        // First: a drain closes the store, which must not look as if it were gone.
        biased;
        () = draining.cancelled() => {}
        () = changes.follow() => {}
        () = retrying => {}
        () = tidying => {}
    }
}
