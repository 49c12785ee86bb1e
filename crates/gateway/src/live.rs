//! What is looked at again and again while the gateway runs, so that a reload can change it: what begins afterwards
//! goes by what is said then, what stands goes on as it began.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_control::Rules;
use adit_proto::reason::Reason;
use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Semaphore, watch};

use crate::config::{Config, Limits, MAX_HEADER_BYTES, MAX_HEADERS};
use crate::http::guard;
use crate::refusal;
use crate::sources::{Share, Sources};

/// The settings in force.
#[derive(Debug)]
pub(crate) struct Live {
    limits: ArcSwap<Limits>,
    /// The same, as the guard in front of HTTP/1.x wants it.
    guard: ArcSwap<guard::Settings>,
    drain_timeout: ArcSwap<Duration>,
    /// Where the public HTTP listeners are.
    http_ports: ArcSwap<Vec<u16>>,
    /// Who has how many public connections.
    sources: Arc<Sources>,
    /// Public connections at once.
    slots: Arc<Semaphore>,
    /// How many there were at the start.
    first_slots: usize,
    /// How many slots there are to be.
    wanted_slots: watch::Sender<usize>,
}

impl Live {
    pub(crate) fn new(limits: Limits, drain_timeout: Duration) -> Self {
        let slots = bounded(limits.max_connections);
        Self {
            guard: ArcSwap::from_pointee(guard_settings(&limits)),
            drain_timeout: ArcSwap::from_pointee(drain_timeout),
            http_ports: ArcSwap::default(),
            sources: Arc::default(),
            slots: Arc::new(Semaphore::new(slots)),
            first_slots: slots,
            wanted_slots: watch::Sender::new(slots),
            limits: ArcSwap::from_pointee(limits),
        }
    }

    /// Puts other settings in force.
    pub(crate) fn replace(&self, config: &Config) {
        let limits = config.limits.clone();
        self.guard.store(Arc::new(guard_settings(&limits)));
        self.drain_timeout.store(Arc::new(config.drain_timeout));
        self.wanted_slots.send_replace(bounded(limits.max_connections));
        self.limits.store(Arc::new(limits));
    }

    /// The bounds now. Not to be kept across an await.
    pub(crate) fn limits(&self) -> Guard<Arc<Limits>> {
        self.limits.load()
    }

    /// What the guard of a new connection goes by.
    pub(crate) fn guard(&self) -> Arc<guard::Settings> {
        self.guard.load_full()
    }

    /// How long open flows may go on after a drain was asked for.
    pub(crate) fn drain_timeout(&self) -> Duration {
        **self.drain_timeout.load()
    }

    /// Whether requests can come in anywhere.
    pub(crate) fn has_http(&self) -> bool {
        !self.http_ports.load().is_empty()
    }

    /// Where they can.
    pub(crate) fn http_ports(&self) -> Vec<u16> {
        Vec::clone(&self.http_ports.load())
    }

    pub(crate) fn set_http_ports(&self, ports: Vec<u16>) {
        self.http_ports.store(Arc::new(ports));
    }

    /// One of the connections that one address may have, for whoever speaks for itself.
    ///
    /// # Errors
    /// [`Reason::Overloaded`]: it has as many as it may.
    pub(crate) fn share(&self, source: IpAddr, rules: &Rules) -> Result<Option<Share>, Reason> {
        if rules.trusts(source) {
            return Ok(None);
        }
        let max = self.limits().per_source();
        self.sources.share(source, max).map(Some).ok_or(Reason::Overloaded)
    }

    /// One for each public connection.
    pub(crate) fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }

    /// Sees to it, for ever, that there are as many slots as there are to be. Connections beyond a new bound go on; no
    /// other is let in until there are fewer. Cancel safe.
    pub(crate) async fn keep_slots(self: Arc<Self>) {
        let mut wanted = self.wanted_slots.subscribe();
        // Not what is wanted by now: that may have changed before this began.
        let mut there = self.first_slots;
        loop {
            let goal = *wanted.borrow_and_update();
            if goal > there {
                self.slots.add_permits(goal - there);
                there = goal;
            } else if goal < there {
                let excess = u32::try_from(there - goal).unwrap_or(u32::MAX);
                // In the queue of everybody who waits for a slot: what comes free from now on is taken out first.
                tokio::select! {
                    taken = self.slots.acquire_many(excess) => {
                        let Ok(taken) = taken else { return };
                        taken.forget();
                        there -= usize::try_from(excess).unwrap_or(there);
                        continue;
                    }
                    changed = wanted.changed() => if changed.is_err() { return } else { continue },
                }
            }
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }
}

fn bounded(slots: usize) -> usize {
    slots.min(Semaphore::MAX_PERMITS)
}

fn guard_settings(limits: &Limits) -> guard::Settings {
    guard::Settings {
        limits: guard::Limits {
            max_headers: limits.max_headers.min(MAX_HEADERS),
            max_header_bytes: limits.max_header_bytes.min(MAX_HEADER_BYTES),
            ..guard::Limits::default()
        },
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        stall_timeout: limits.stall_timeout,
        answer: refusal::raw_answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_beyond_all_reason_are_cut_to_what_a_gateway_can_bear() {
        let limits = Limits { max_headers: usize::MAX, max_header_bytes: usize::MAX, ..Limits::default() };
        let guard::Limits { max_headers, max_header_bytes, .. } = guard_settings(&limits).limits;
        assert_eq!((max_headers, max_header_bytes), (10_000, 16 << 20));
    }

    #[test]
    fn one_source_has_a_quarter_of_the_connections_unless_it_is_told_otherwise() {
        for (max_connections, max_connections_per_source, allowed) in
            [(8, None, 2), (2, None, 1), (8, Some(3), 3)]
        {
            let limits = Limits { max_connections, max_connections_per_source, ..Limits::default() };
            let live = Live::new(limits, Duration::ZERO);
            let rules = Rules::default();
            let one = || live.share([192, 0, 2, 1].into(), &rules);
            let held: Vec<_> = (0..allowed).map(|_| one().unwrap()).collect();
            assert_eq!(one().unwrap_err(), Reason::Overloaded, "{allowed} of {max_connections}");
            drop(held);
        }
    }

    async fn settles(live: &Live, free: usize) {
        let settled = async {
            while live.slots().available_permits() != free {
                tokio::task::yield_now().await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(5), settled).await;
        assert!(settled.is_ok(), "{} are free instead of {free}", live.slots().available_permits());
    }

    #[tokio::test]
    async fn slots_become_more_and_fewer_and_who_has_one_keeps_it() {
        let limits = |max_connections| Limits { max_connections, ..Limits::default() };
        let live = Arc::new(Live::new(limits(4), Duration::ZERO));
        let scope = adit_tunnel::scope::Scope::new();
        scope.spawn("slots", Arc::clone(&live).keep_slots());
        let set = |max| live.wanted_slots.send_replace(max);

        let mut held: Vec<_> =
            (0..4).map(|_| Arc::clone(live.slots()).try_acquire_owned().unwrap()).collect();
        set(6);
        settles(&live, 2).await;
        // Fewer than are in use, and then more again before anybody has left.
        set(1);
        settles(&live, 0).await;
        held.pop();
        settles(&live, 0).await;
        assert!(live.slots().try_acquire().is_err(), "three are in use where one may be");
        set(5);
        settles(&live, 2).await;
        set(1);
        drop(held);
        settles(&live, 1).await;
        scope.cancel();
    }
}
