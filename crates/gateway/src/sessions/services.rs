//! Services by what they are reached by, and whoever offers each of them now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_control::{Snapshot, Who};
use adit_proto::name::Name;
use adit_proto::names::{HostPattern, Hostname, ServiceName};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::HELD;
use crate::balancer::Endpoint;
use crate::grants::{Grant, Grants};
use crate::observe::ServiceCounters;

/// One service: what it is reached by, and whoever offers it now.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) counters: ServiceCounters,
    /// What clients of the public listeners reach it by.
    pub(crate) public: Arc<Grant>,
    /// The same for clients that a route leads here, by its hosts and ports.
    routed: Mutex<Vec<Arc<Grant>>>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    next: AtomicUsize,
    /// When the last endpoint left; `None` since one has joined.
    left: Mutex<Option<Instant>>,
    /// Ticks when an endpoint joins.
    joined: watch::Sender<()>,
}

impl Service {
    /// One that nobody offers yet. It counts as left just now, so that it is forgotten if nobody ever does.
    pub(super) fn new(name: ServiceName, counters: ServiceCounters, public: Arc<Grant>) -> Self {
        Self {
            name,
            counters,
            public,
            routed: Mutex::default(),
            endpoints: ArcSwap::from_pointee(Vec::new()),
            next: AtomicUsize::new(0),
            left: Mutex::new(Some(Instant::now())),
            joined: watch::Sender::new(()),
        }
    }

    /// What clients reach it by that this host or port of a route leads here. Those that lead here no more are let go.
    pub(crate) fn public_by(&self, by: &ServiceName, snapshot: &Snapshot, grants: &Grants) -> Arc<Grant> {
        let mut routed = self.routed.lock();
        if let Some(known) = routed.iter().find(|grant| grant.by() == Some(by)) {
            return Arc::clone(known);
        }
        routed.retain(|grant| Arc::strong_count(grant) > 1 || grant.is_led(snapshot));
        let grant = grants.of(&Who::Public, &self.name, Some(by));
        routed.push(Arc::clone(&grant));
        grant
    }

    /// The endpoints now, starting with the one whose turn it is.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Arc<Endpoint>> + use<> {
        let endpoints = self.endpoints.load_full();
        let start = if endpoints.len() > 1 { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        (0..endpoints.len()).map(move |i| Arc::clone(&endpoints[(start + i) % endpoints.len()]))
    }

    /// Endpoints there are, whatever their state.
    pub(crate) fn endpoint_count(&self) -> usize {
        self.endpoints.load().len()
    }

    /// Whether this service's hosts are its own: somebody offers it, or did a moment ago and may come back. Only
    /// then does it keep a wider pattern from answering for them.
    pub(crate) fn is_held(&self) -> bool {
        self.endpoint_count() > 0 || self.left.lock().is_none_or(|left| left.elapsed() < HELD)
    }

    /// Since when nobody offers it, if nobody does and nothing else has hold of it. Meant for whoever holds the
    /// routes for writing: nobody can take hold of it meanwhile.
    pub(super) fn idle_since(self: &Arc<Self>) -> Option<Instant> {
        let left = *self.left.lock();
        left.filter(|_| self.endpoint_count() == 0 && Arc::strong_count(self) == 1)
    }

    pub(super) fn join(&self, endpoint: &Arc<Endpoint>) {
        // First: for a moment it looks as if it had not been left yet, and not as if it had been empty for long.
        *self.left.lock() = None;
        self.endpoints.rcu(|old| {
            let mut endpoints = Vec::clone(old);
            endpoints.push(Arc::clone(endpoint));
            endpoints
        });
        self.joined.send_replace(());
    }

    /// Takes an endpoint out of balancing and closes its idle streams.
    pub(super) fn leave(&self, endpoint: &Arc<Endpoint>) {
        endpoint.close();
        self.endpoints.rcu(|old| {
            old.iter().filter(|other| !Arc::ptr_eq(other, endpoint)).map(Arc::clone).collect::<Vec<_>>()
        });
        if self.endpoint_count() == 0 {
            *self.left.lock() = Some(Instant::now());
        }
    }

    pub(crate) fn has_endpoint(&self) -> bool {
        self.endpoints.load().iter().any(|endpoint| endpoint.is_open())
    }

    /// Waits until an endpoint is there, at most until `deadline`. Cancel safe.
    pub(crate) async fn wait_for_endpoint(&self, deadline: Instant) -> bool {
        let mut joined = self.joined.subscribe();
        loop {
            if self.has_endpoint() {
                return true;
            }
            if !matches!(tokio::time::timeout_at(deadline, joined.changed()).await, Ok(Ok(()))) {
                return self.has_endpoint();
            }
        }
    }
}

/// Looked up for each request.
#[derive(Debug, Default)]
pub(super) struct Routes {
    exact: HashMap<Hostname, Arc<Service>>,
    /// By the domain below which every host belongs to the service.
    suffix: HashMap<Box<str>, Arc<Service>>,
    any: Option<Arc<Service>>,
    /// TCP services by their port; their listeners know them, so nobody looks them up for a connection.
    pub(super) ports: HashMap<u16, Arc<Service>>,
    named: HashMap<Name, Arc<Service>>,
}

impl Routes {
    /// The most specific service that holds a host; if none does, the most specific one that ever did.
    pub(super) fn find<'a>(&'a self, host: Option<&'a Hostname>) -> Option<&'a Arc<Service>> {
        let mut remembered = None;
        for service in self.candidates(host) {
            if service.is_held() {
                return Some(service);
            }
            remembered = remembered.or(Some(service));
        }
        remembered
    }

    /// Every service whose pattern matches, most specific first.
    fn candidates<'a>(&'a self, host: Option<&'a Hostname>) -> impl Iterator<Item = &'a Arc<Service>> {
        let exact = host.and_then(|host| self.exact.get(host));
        let domains = std::iter::successors(host.map(Hostname::as_str), |rest| Some(rest.split_once('.')?.1));
        let suffixes = domains.skip(1).filter_map(|domain| self.suffix.get(domain));
        exact.into_iter().chain(suffixes).chain(self.any.as_ref())
    }

    pub(super) fn get(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        match name {
            ServiceName::Host(HostPattern::Exact(host)) => self.exact.get(host),
            ServiceName::Host(HostPattern::Suffix(domain)) => self.suffix.get(domain.as_str()),
            ServiceName::Host(HostPattern::Any) => self.any.as_ref(),
            ServiceName::Tcp(port) => self.ports.get(port),
            ServiceName::Named(name) => self.named.get(name),
            ServiceName::Dial(_) => None,
        }
    }

    pub(super) fn insert(&mut self, service: Arc<Service>) {
        match &service.name {
            ServiceName::Host(HostPattern::Exact(host)) => drop(self.exact.insert(host.clone(), service)),
            ServiceName::Host(HostPattern::Suffix(domain)) => {
                drop(self.suffix.insert(domain.as_str().into(), service));
            }
            ServiceName::Host(HostPattern::Any) => self.any = Some(service),
            ServiceName::Tcp(port) => drop(self.ports.insert(*port, service)),
            ServiceName::Named(name) => drop(self.named.insert(name.clone(), service)),
            // Offers of it are refused, and nobody would find them.
            ServiceName::Dial(_) => {}
        }
    }

    pub(super) fn remove(&mut self, name: &ServiceName) {
        match name {
            ServiceName::Host(HostPattern::Exact(host)) => drop(self.exact.remove(host)),
            ServiceName::Host(HostPattern::Suffix(domain)) => drop(self.suffix.remove(domain.as_str())),
            ServiceName::Host(HostPattern::Any) => self.any = None,
            ServiceName::Tcp(port) => drop(self.ports.remove(port)),
            ServiceName::Named(name) => drop(self.named.remove(name)),
            ServiceName::Dial(_) => {}
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.exact
            .values()
            .chain(self.suffix.values())
            .chain(self.any.as_ref())
            .chain(self.ports.values())
            .chain(self.named.values())
    }

    /// Services nobody has offered for this long, with their end, oldest first.
    pub(super) fn empty_for(&self, age: Duration) -> Vec<(Instant, ServiceName)> {
        let idle = self.all().filter_map(|service| Some((service.idle_since()?, service)));
        let old = idle.filter(|(since, _)| since.elapsed() >= age);
        let mut old: Vec<_> = old.map(|(since, service)| (since, service.name.clone())).collect();
        old.sort_by_key(|(since, _)| *since);
        old
    }

    pub(super) fn len(&self) -> usize {
        self.exact.len()
            + self.suffix.len()
            + usize::from(self.any.is_some())
            + self.ports.len()
            + self.named.len()
    }
}
