//! Connections that have not proved anything yet: few at once in all, fewer from one source. Those beyond wait, so
//! that a herd of returning agents is paced and not refused, and a flood from one address holds up nobody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::PATIENCE;
use crate::sources::source;

/// Handshakes at once.
const MAX: usize = 1024;
/// Handshakes at once from one source.
const MAX_PER_SOURCE: usize = 256;
/// Handshakes at once from one source before it has to show that it is that source, where it need not be.
const CROWDED: usize = 32;
/// How long a step may take when more than half of the places are taken: enough for an agent, and those who say
/// nothing make way sooner.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// Sources remembered before those with nothing under way are forgotten.
const REMEMBERED: usize = 1024;

/// Gives out places for handshakes.
#[derive(Debug)]
pub(crate) struct Unproved {
    all: Arc<Semaphore>,
    sources: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// How long its holder may take for TLS, and again for its hello.
    pub(super) patience: Duration,
    _source: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Unproved {
    pub(crate) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX)), sources: Mutex::default() }
    }

    /// Waits for a place. `None` only when the gateway is ending. Cancel safe.
    pub(crate) async fn place(&self, address: IpAddr) -> Option<Place> {
        let of_source = self.of_source(source(address));
        let source = Arc::clone(&of_source).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        let is_crowded =
            of_source.available_permits() < MAX_PER_SOURCE / 2 || self.all.available_permits() < MAX / 2;
        let patience = if is_crowded { SHORT_PATIENCE } else { PATIENCE };
        Some(Place { patience, _source: source, _all: all })
    }

    /// Whether so many places of a source are taken that the next one may be somebody else's doing.
    pub(crate) fn is_crowded(&self, address: IpAddr) -> bool {
        self.of_source(source(address)).available_permits() < MAX_PER_SOURCE - CROWDED
    }

    fn of_source(&self, source: IpAddr) -> Arc<Semaphore> {
        let mut sources = self.sources.lock();
        if sources.len() >= REMEMBERED {
            sources.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        Arc::clone(sources.entry(source).or_insert_with(|| Arc::new(Semaphore::new(MAX_PER_SOURCE))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// A place, if there is one without waiting; outside the runtime's budget, which would make it seem full.
    fn now(unproved: &Unproved, address: IpAddr) -> Option<Place> {
        tokio::task::unconstrained(unproved.place(address)).now_or_never().flatten()
    }

    #[tokio::test]
    async fn a_flood_from_one_source_leaves_places_for_the_others() {
        let unproved = Unproved::new();
        let (flooder, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut held = Vec::new();
        while let Some(place) = now(&unproved, flooder) {
            held.push(place);
        }
        assert_eq!(held.len(), MAX_PER_SOURCE);
        assert_eq!((held[0].patience, held[MAX_PER_SOURCE - 1].patience), (PATIENCE, SHORT_PATIENCE));
        assert_eq!(now(&unproved, other).map(|place| place.patience), Some(PATIENCE));
        held.pop();
        assert!(now(&unproved, flooder).is_some(), "a place is free again");
    }

    #[tokio::test]
    async fn sources_without_handshakes_are_forgotten() {
        let unproved = Unproved::new();
        for i in 0..5000_u32 {
            unproved.place(std::net::Ipv4Addr::from_bits(i).into()).await.unwrap();
        }
        assert!(unproved.sources.lock().len() <= REMEMBERED);
    }
}
