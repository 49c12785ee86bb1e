//! Sees to it that no certificate of the gateway's own ends while it runs.

use std::sync::Arc;
use std::time::Duration;

use adit_control::authority::{Authority, Maintained};
use parking_lot::Mutex;

use crate::tls::{self, Authorities, Identity};

/// How often it looks.
const EVERY: Duration = Duration::from_hours(1);

/// Every certificate that is served, and who signs those that are made here.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) authorities: Authorities,
    pub(crate) identities: Vec<Identity>,
}

/// Runs until it is dropped. Cancel safe.
#[expect(clippy::infinite_loop, reason = "ends with its scope")]
pub(crate) async fn keep(kept: Arc<Mutex<Kept>>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        let mut kept = kept.lock();
        let authorities = kept.authorities.all();
        // Listeners that are gone serve theirs no more.
        kept.identities.retain(|identity| Arc::strong_count(&identity.served) > 1);
        look(&authorities, &mut kept.identities);
    }
}

fn look(authorities: &[Arc<Authority>], identities: &mut [Identity]) {
    let now = tls::now();
    let mut renewed = false;
    for authority in authorities {
        match authority.maintain(now) {
            Ok(Maintained::Fine) => {}
            Ok(Maintained::Renewed) => renewed = true,
            Ok(Maintained::RootNeeded { key, until }) => tracing::warn!(
                bring_back = %key.display(),
                days_left = until.saturating_sub(now) / (24 * 3600),
                "the certificate that signs ends soon, and only the root's key can renew it"
            ),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "cannot renew the certificate that signs");
            }
        }
    }
    for identity in identities {
        match identity.refresh(renewed, now) {
            Ok(true) => tracing::info!("made the certificate of a listener again"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot make the certificate of a listener again"),
        }
    }
}
