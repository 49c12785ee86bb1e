//! Which agents are there and what they offer: presence, not configuration. Everything here is forgotten when its
//! session ends; only the names of services are remembered for a while, to tell "never heard of" from "away".

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use adit_proto::handshake::{Hello, Offer, capabilities};
use adit_proto::name::Name;
use adit_proto::names::{HostPattern, Hostname, InstanceId, ServiceName};
use adit_proto::reason::Reason;
use adit_tunnel::session::Session;
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::balancer::Endpoint;
use crate::canary;
use crate::observe::{Carrier, NO_SERVICE, Observe, ServiceCounters};
use crate::tcp::ports::Claim;

/// Services at most; a session that offers more is refused.
const MAX_SERVICES: usize = 100_000;
/// How long a service is remembered after its last agent has left.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// How long a host stays with a service after the last agent that offered it has left.
const HELD: Duration = Duration::from_secs(60);
/// How long an agent whose session is given up has to open another one.
const SUCCESSION: Duration = Duration::from_secs(10);
/// Services with a metric label of their own; later ones share `other`. Names that nobody offers any more give way
/// to new ones beyond that many.
const MAX_LABELS: usize = 1000;

/// One service: what it is reached by, and whoever offers it now.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) counters: ServiceCounters,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    next: AtomicUsize,
    /// When the last endpoint left; `None` since one has joined.
    left: Mutex<Option<Instant>>,
    /// Ticks when an endpoint joins.
    joined: watch::Sender<()>,
}

impl Service {
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
    fn is_held(&self) -> bool {
        self.endpoint_count() > 0 || self.left.lock().is_none_or(|left| left.elapsed() < HELD)
    }

    /// Since when nobody offers it, if nobody does and nothing else has hold of it. Meant for whoever holds the
    /// routes for writing: nobody can take hold of it meanwhile.
    fn idle_since(self: &Arc<Self>) -> Option<Instant> {
        let left = *self.left.lock();
        left.filter(|_| self.endpoint_count() == 0 && Arc::strong_count(self) == 1)
    }

    fn join(&self, endpoint: &Arc<Endpoint>) {
        // First: for a moment it looks as if it had not been left yet, and not as if it had been empty for long.
        *self.left.lock() = None;
        self.endpoints.rcu(|old| {
            let mut endpoints = Vec::clone(old);
            endpoints.push(Arc::clone(endpoint));
            endpoints
        });
        self.joined.send_replace(());
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
struct Routes {
    exact: HashMap<Hostname, Arc<Service>>,
    /// By the domain below which every host belongs to the service.
    suffix: HashMap<Box<str>, Arc<Service>>,
    any: Option<Arc<Service>>,
    /// TCP services by their port; their listeners know them, so nobody looks them up for a connection.
    ports: HashMap<u16, Arc<Service>>,
    named: HashMap<Name, Arc<Service>>,
}

impl Routes {
    /// The most specific service that holds a host; if none does, the most specific one that ever did.
    fn find<'a>(&'a self, host: Option<&'a Hostname>) -> Option<&'a Arc<Service>> {
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

    fn get(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        match name {
            ServiceName::Host(HostPattern::Exact(host)) => self.exact.get(host),
            ServiceName::Host(HostPattern::Suffix(domain)) => self.suffix.get(domain.as_str()),
            ServiceName::Host(HostPattern::Any) => self.any.as_ref(),
            ServiceName::Tcp(port) => self.ports.get(port),
            ServiceName::Named(name) => self.named.get(name),
            ServiceName::Dial(_) => None,
        }
    }

    fn insert(&mut self, service: Arc<Service>) {
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

    fn remove(&mut self, name: &ServiceName) {
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
    fn empty_for(&self, age: Duration) -> Vec<(Instant, ServiceName)> {
        let idle = self.all().filter_map(|service| Some((service.idle_since()?, service)));
        let old = idle.filter(|(since, _)| since.elapsed() >= age);
        let mut old: Vec<_> = old.map(|(since, service)| (since, service.name.clone())).collect();
        old.sort_by_key(|(since, _)| *since);
        old
    }

    fn len(&self) -> usize {
        self.exact.len()
            + self.suffix.len()
            + usize::from(self.any.is_some())
            + self.ports.len()
            + self.named.len()
    }
}

/// One connected agent.
#[derive(Debug)]
pub(crate) struct AgentSession {
    pub(crate) instance: InstanceId,
    generation: u64,
    /// The name of the token it proved.
    pub(crate) identity: Arc<str>,
    pub(crate) remote: SocketAddr,
    pub(crate) carrier: Carrier,
    pub(crate) since: SystemTime,
    pub(crate) release: String,
    pub(crate) hostname: String,
    pub(crate) offers: Vec<Offer>,
    pub(crate) session: Session,
    /// Cancelled when the agent has another session, and this one only finishes what it carries.
    succeeded: CancellationToken,
    answers_canaries: bool,
    endpoints: Vec<(Arc<Service>, Arc<Endpoint>)>,
    /// What keeps its TCP ports bound, until it is withdrawn.
    ports: Mutex<Vec<Claim>>,
}

/// Who says hello, and how it got here.
pub(crate) struct Arrival {
    pub(crate) hello: Hello,
    pub(crate) identity: Arc<str>,
    pub(crate) remote: SocketAddr,
    pub(crate) carrier: Carrier,
    /// The TCP ports it offers, bound already.
    pub(crate) ports: Vec<Claim>,
}

/// All agents.
#[derive(Debug)]
pub(crate) struct Sessions {
    agents: Mutex<HashMap<InstanceId, Arc<AgentSession>>>,
    routes: RwLock<Routes>,
    /// Ticks when a service appears.
    appeared: watch::Sender<()>,
    started: Instant,
    observe: Observe,
    max: usize,
    max_idle_streams: usize,
    /// [`MAX_SERVICES`] and [`MAX_LABELS`]; fewer in tests.
    max_services: usize,
    max_labels: usize,
}

impl Sessions {
    pub(crate) fn new(observe: Observe, max: usize, max_idle_streams: usize) -> Arc<Self> {
        Arc::new(Self {
            agents: Mutex::default(),
            routes: RwLock::default(),
            appeared: watch::Sender::new(()),
            started: Instant::now(),
            observe,
            max,
            max_idle_streams,
            max_services: MAX_SERVICES,
            max_labels: MAX_LABELS,
        })
    }

    pub(crate) fn service_for(&self, host: Option<&Hostname>) -> Option<Arc<Service>> {
        self.routes.read().find(host).map(Arc::clone)
    }

    /// For a while after the start, agents of the gateway's former life are on their way back. Waits for a service
    /// until that while is over. Cancel safe.
    pub(crate) async fn wait_for_service(
        &self,
        host: Option<&Hostname>,
        grace: Duration,
    ) -> Option<Arc<Service>> {
        let deadline = self.started + grace;
        let mut appeared = self.appeared.subscribe();
        loop {
            if let Some(service) = self.service_for(host) {
                return Some(service);
            }
            if !matches!(tokio::time::timeout_at(deadline, appeared.changed()).await, Ok(Ok(()))) {
                return self.service_for(host);
            }
        }
    }

    fn check(
        &self,
        agents: &HashMap<InstanceId, Arc<AgentSession>>,
        routes: &mut Routes,
        arrival: &Arrival,
    ) -> Result<(), (Reason, String)> {
        match agents.get(&arrival.hello.instance) {
            Some(known) if known.identity != arrival.identity => Err((
                Reason::Unauthorized,
                "this instance id belongs to a session of another token".to_owned(),
            )),
            Some(known) if known.generation >= arrival.hello.generation => {
                Err((Reason::Replaced, "a newer session of the same agent is connected already".to_owned()))
            }
            None if agents.len() >= self.max => {
                Err((Reason::Overloaded, format!("the gateway holds {} sessions already", self.max)))
            }
            Some(_) | None => {
                let new = arrival.hello.offers.iter().filter(|o| routes.get(&o.service).is_none()).count();
                self.make_room(routes, new);
                if routes.len() + new > self.max_services {
                    return Err((Reason::Overloaded, "the gateway knows too many services".to_owned()));
                }
                Ok(())
            }
        }
    }

    /// Forgets names that nobody offers any more where new ones need their place: beyond the labels, those that hold
    /// no host; beyond everything, any. Oldest first. So nobody fills the table with names and leaves.
    fn make_room(&self, routes: &mut Routes, new: usize) {
        for (bound, age) in [(self.max_labels, HELD), (self.max_services, Duration::ZERO)] {
            let excess = (routes.len() + new).saturating_sub(bound);
            if new > 0 && excess > 0 {
                let old = routes.empty_for(age);
                self.forget(routes, old.into_iter().take(excess));
            }
        }
    }

    fn forget(&self, routes: &mut Routes, old: impl Iterator<Item = (Instant, ServiceName)>) {
        for (_, name) in old {
            if let Some(service) = routes.get(&name) {
                self.observe.forget(&service.counters);
            }
            routes.remove(&name);
        }
    }

    /// The session that a further lane is for.
    ///
    /// # Errors
    /// The reason and a sentence for the agent's log when there is none, or none of this identity.
    pub(crate) fn session_of(&self, hello: &Hello, identity: &str) -> Result<Session, (Reason, String)> {
        let agents = self.agents.lock();
        agents
            .get(&hello.instance)
            .filter(|agent| agent.generation == hello.generation && *agent.identity == *identity)
            .map(|agent| agent.session.clone())
            .ok_or_else(|| (Reason::Replaced, "the session that this lane is for has ended".to_owned()))
    }

    /// Takes a session in and makes its offers reachable. A session the same agent had before is closed.
    /// The guard takes it out again.
    ///
    /// # Errors
    /// The reason and a sentence for the agent's log.
    pub(crate) fn register(
        self: &Arc<Self>,
        arrival: Arrival,
        session: Session,
    ) -> Result<Registration, (Reason, String)> {
        // Held to the end: whoever comes next sees this session whole, and no service goes before its endpoint is in.
        let mut agents = self.agents.lock();
        let mut routes = self.routes.write();
        self.check(&agents, &mut routes, &arrival)?;
        let Arrival { hello, identity, remote, carrier, ports } = arrival;
        let is_succession = hello.capabilities & capabilities::SUCCESSION != 0;
        let endpoints = hello.offers.iter().map(|offer| {
            let endpoint = Endpoint::new(session.clone(), offer, hello.instance, self.max_idle_streams);
            (self.service(&mut routes, &offer.service), Arc::new(endpoint))
        });
        let agent = Arc::new(AgentSession {
            instance: hello.instance,
            generation: hello.generation,
            identity,
            remote,
            carrier,
            since: SystemTime::now(),
            release: hello.release,
            hostname: hello.hostname,
            endpoints: endpoints.collect(),
            offers: hello.offers,
            ports: Mutex::new(ports),
            session,
            succeeded: CancellationToken::new(),
            answers_canaries: hello.capabilities & capabilities::CANARIES != 0,
        });
        for (service, endpoint) in &agent.endpoints {
            service.join(endpoint);
        }
        for claim in agent.ports.lock().iter() {
            if let Some(service) = routes.ports.get(&claim.port()) {
                claim.serve(service);
            }
        }
        let replaced = agents.insert(agent.instance, Arc::clone(&agent));
        drop(routes);
        drop(agents);
        if let Some(old) = replaced {
            old.withdraw();
            if is_succession || old.session.is_leaving() {
                // The agent came for a new one while the old one is in order; what that still carries may finish.
                old.succeeded.cancel();
            } else {
                self.observe.takeover();
                old.session.close(Reason::Replaced);
            }
        }
        self.appeared.send_replace(());
        self.observe.session_opened(carrier, agent.offers_tcp());
        Ok(Registration { sessions: Arc::clone(self), agent })
    }

    fn service(&self, routes: &mut Routes, name: &ServiceName) -> Arc<Service> {
        if let Some(service) = routes.get(name) {
            return Arc::clone(service);
        }
        let label: Arc<str> =
            if routes.len() < self.max_labels { name.to_string().into() } else { NO_SERVICE.into() };
        let counters = match name {
            ServiceName::Host(_) | ServiceName::Named(_) | ServiceName::Dial(_) => {
                self.observe.service(&label)
            }
            ServiceName::Tcp(port) => self.observe.port(&label, *port),
        };
        let service = Arc::new(Service {
            name: name.clone(),
            counters,
            endpoints: ArcSwap::from_pointee(Vec::new()),
            next: AtomicUsize::new(0),
            left: Mutex::new(None),
            joined: watch::Sender::new(()),
        });
        routes.insert(Arc::clone(&service));
        service
    }

    /// The connected agents, longest connected first.
    pub(crate) fn list(&self) -> Vec<Arc<AgentSession>> {
        let mut agents: Vec<_> = self.agents.lock().values().map(Arc::clone).collect();
        agents.sort_by_key(|agent| (agent.since, agent.instance));
        agents
    }

    pub(crate) fn count(&self) -> usize {
        self.agents.lock().len()
    }

    /// Gives up streams that have waited too long for a next request, and services that nobody has offered for long.
    pub(crate) fn sweep(&self, max_idle: Duration) {
        for agent in self.list() {
            for (_, endpoint) in &agent.endpoints {
                endpoint.sweep(max_idle);
            }
        }
        let mut routes = self.routes.write();
        let old = routes.empty_for(REMEMBERED);
        self.forget(&mut routes, old.into_iter());
    }
}

impl AgentSession {
    fn offers_tcp(&self) -> bool {
        self.offers.iter().any(|offer| offer.service.tcp_port().is_some())
    }

    /// Takes this session's endpoints out of balancing; their idle streams are closed, and ports that nobody else
    /// offers are free again.
    pub(crate) fn withdraw(&self) {
        for (service, endpoint) in &self.endpoints {
            endpoint.close();
            service.endpoints.rcu(|old| {
                old.iter().filter(|other| !Arc::ptr_eq(other, endpoint)).map(Arc::clone).collect::<Vec<_>>()
            });
            if service.endpoint_count() == 0 {
                *service.left.lock() = Some(Instant::now());
            }
        }
        drop(std::mem::take(&mut *self.ports.lock()));
    }
}

impl AgentSession {
    /// Lets the session's life take its course: ends when it has ended. One that has a successor is closed as soon as
    /// it carries nothing any more, and at the latest after `patience`. One that carries no canary any more is given
    /// up: its agent is asked for another, and whatever still moves in this one may finish.
    pub(crate) async fn live(&self, patience: Duration, observe: &Observe) {
        let session = &self.session;
        tokio::select! {
            _reason = session.draining() => {}
            () = self.succeeded.cancelled() => {}
            () = self.canaries(observe) => {
                tracing::warn!(agent = %self.instance, "the session carries nothing although it stands; replacing it");
                session.announce(Reason::CanaryLost);
                self.withdraw();
                if tokio::time::timeout(SUCCESSION, self.succeeded.cancelled()).await.is_err() {
                    session.close(Reason::CanaryLost);
                }
            }
        }
        // It finishes what it has; nothing new goes there, and idle streams are let go.
        self.withdraw();
        tokio::select! {
            _reason = session.closed() => {}
            () = self.succeeded.cancelled() => {
                drop(tokio::time::timeout(patience, session.drain(Reason::Replaced)).await);
                session.close(Reason::Replaced);
            }
        }
        session.closed().await;
    }
}

impl AgentSession {
    /// Ends when the agent has been asked in vain; never for one that does not answer canaries by its own word.
    async fn canaries(&self, observe: &Observe) {
        if !self.answers_canaries {
            return std::future::pending().await;
        }
        let seed =
            self.instance.as_bytes().iter().fold(self.generation, |seed, byte| seed << 4 ^ u64::from(*byte));
        canary::watch(&self.session, seed, |outcome| observe.canary(outcome)).await;
    }
}

/// A session's place among the others. Dropping it takes out this very session, never a successor.
#[derive(Debug)]
pub(crate) struct Registration {
    sessions: Arc<Sessions>,
    pub(crate) agent: Arc<AgentSession>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.agent.withdraw();
        let mut agents = self.sessions.agents.lock();
        if agents.get(&self.agent.instance).is_some_and(|current| Arc::ptr_eq(current, &self.agent)) {
            agents.remove(&self.agent.instance);
        }
        drop(agents);
        let reason = self.agent.session.end().unwrap_or(Reason::Unknown);
        self.sessions.observe.session_ended(self.agent.carrier, reason, self.agent.offers_tcp());
    }
}

#[cfg(test)]
mod tests;
