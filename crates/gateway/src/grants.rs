//! What was permitted once and is still in use: decided again whenever the rules change, and ended where they say no.
//!
//! A [`Grant`] stands for everything that somebody has open to one service. Streams carry its number, so that they are
//! found when it is revoked; nothing is registered for a request.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_control::model::Timestamp;
use adit_control::{Snapshot, Subject, Who, authorize};
use adit_proto::names::ServiceName;
use adit_proto::reason::Reason;
use parking_lot::Mutex;

use crate::flow::DataPlane;
use crate::tcp::ports::Ports;

/// How often everything is decided again although nothing was published: secrets of tokens end by the clock, and a port
/// that a route leads from may be free by now.
const INTERVAL: Duration = Duration::from_secs(10);

/// Somebody's right to reach one service, for as long as something of it is open.
#[derive(Debug)]
pub(crate) struct Grant {
    number: u32,
    who: Who,
    service: ServiceName,
    /// The host or port that led there, where a route did.
    by: Option<ServiceName>,
}

impl Grant {
    /// Whether what led there still does.
    pub(crate) fn is_led(&self, snapshot: &Snapshot) -> bool {
        self.by.as_ref().is_none_or(|by| match &self.service {
            ServiceName::Named(name) => snapshot.claimed(by) == Some(name),
            ServiceName::Host(_) | ServiceName::Tcp(_) | ServiceName::Dial(_) => false,
        })
    }

    /// The host or port of a route that led there.
    pub(crate) const fn by(&self) -> Option<&ServiceName> {
        self.by.as_ref()
    }

    /// What its streams through an offer are called.
    pub(crate) const fn tag(&self, offer: u32) -> Tag {
        Tag { grant: self.number, offer }
    }
}

/// What a stream is called: whose right it rests on, and whose offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The grant.
    pub(crate) grant: u32,
    /// The number of the offer in its session, from 1.
    pub(crate) offer: u32,
}

impl From<Tag> for u64 {
    fn from(tag: Tag) -> Self {
        Self::from(tag.grant) << 32 | Self::from(tag.offer)
    }
}

impl From<u64> for Tag {
    fn from(raw: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = raw.to_be_bytes();
        Self { grant: u32::from_be_bytes([a, b, c, d]), offer: u32::from_be_bytes([e, f, g, h]) }
    }
}

/// Every grant there is.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    last: AtomicU32,
    live: Mutex<HashMap<Right, Weak<Grant>>>,
}

/// Who, to what, and by which host or port of a route.
type Right = (Who, ServiceName, Option<ServiceName>);

impl Grants {
    /// The grant for this right. `by` is the host or port of the route that led to the service, if one did.
    pub(crate) fn of(&self, who: &Who, service: &ServiceName, by: Option<&ServiceName>) -> Arc<Grant> {
        let key = (who.clone(), service.clone(), by.cloned());
        let mut live = self.live.lock();
        if let Some(known) = live.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let grant = Arc::new(Grant { number, who: who.clone(), service: service.clone(), by: by.cloned() });
        live.insert(key, Arc::downgrade(&grant));
        grant
    }

    /// The numbers of those that the rules do not allow any more. Forgets those that are not in use.
    fn revoked(&self, snapshot: &Snapshot) -> HashSet<u32> {
        let grants: Vec<_> = {
            let mut live = self.live.lock();
            live.retain(|_, grant| grant.strong_count() > 0);
            live.shrink_to(64);
            live.values().filter_map(Weak::upgrade).collect()
        };
        // Addresses were looked at when the flow came; what is asked here is whether anybody may still.
        let address = snapshot.rules().allow.first().map(ipnet::IpNet::addr);
        let is_denied = |grant: &&Arc<Grant>| {
            let subject = Subject { who: grant.who.clone(), address };
            !grant.is_led(snapshot) || authorize(snapshot, &subject, &grant.service).is_err()
        };
        grants.iter().filter(is_denied).map(|grant| grant.number).collect()
    }

    /// How many are in use.
    pub(crate) fn count(&self) -> usize {
        self.live.lock().values().filter(|grant| grant.strong_count() > 0).count()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Follows what is published, for ever: first sessions and offers, then flows, then ports of routes.
pub(crate) async fn follow(plane: Arc<DataPlane>, ports: Ports) {
    let mut changes = plane.snapshots.changes();
    loop {
        changes.mark_unchanged();
        let snapshot = plane.snapshots.current();
        let mut ended = plane.sessions.reconsider(&snapshot, &ports, now());
        let revoked = plane.sessions.grants().revoked(&snapshot);
        if !revoked.is_empty() {
            for agent in plane.sessions.list() {
                let is_meant = |tag: u64| revoked.contains(&Tag::from(tag).grant);
                ended += agent.session.reset_tagged(is_meant, Reason::Revoked);
            }
        }
        if ended > 0 {
            tracing::warn!(streams = ended, "ended what is not permitted any more");
            plane.observe.revoked("stream", ended);
        }
        plane.observe.grants(plane.sessions.grants().count());
        ports.follow(&snapshot);
        tokio::select! {
            published = changes.changed() => if published.is_err() { return },
            () = ports.replaced() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
