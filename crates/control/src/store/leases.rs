//! When leases end. Deadlines are of this process: a lease that outlives it begins anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{LeaseId, StoreError};

#[derive(Debug, Default)]
pub(super) struct Leases {
    all: BTreeMap<LeaseId, Lease>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
}

impl Leases {
    /// Begins one, now or anew.
    pub(super) fn begin(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        self.all.insert(id, Lease { ttl, deadline: now + ttl });
    }

    /// Lets a lease that lives begin anew.
    pub(super) fn keep_alive(&mut self, id: LeaseId, now: Instant) -> Result<(), StoreError> {
        let lease = self.all.get_mut(&id).filter(|lease| now < lease.deadline).ok_or(StoreError::NoLease)?;
        lease.deadline = now + lease.ttl;
        Ok(())
    }

    /// Says no if there is no such lease.
    pub(super) fn check(&self, id: LeaseId) -> Result<(), StoreError> {
        if self.all.contains_key(&id) { Ok(()) } else { Err(StoreError::NoLease) }
    }

    /// Forgets one.
    pub(super) fn end(&mut self, id: LeaseId) {
        self.all.remove(&id);
    }

    /// Those whose time is over.
    pub(super) fn due(&self, now: Instant) -> Vec<LeaseId> {
        self.all.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect()
    }

    /// Gives one that could not be ended another while.
    pub(super) fn put_off(&mut self, id: LeaseId, until: Instant) {
        if let Some(lease) = self.all.get_mut(&id) {
            lease.deadline = until;
        }
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.all.values().map(|lease| lease.deadline).min()
    }
}
