//! Which agents are there and what they offer: presence, not configuration. Everything here is forgotten when its
//! session ends; only the names of services are remembered for a while, to tell "never heard of" from "away".

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_control::model::Timestamp;
use adit_control::{Snapshot, Who};
use adit_proto::handshake::{Hello, capabilities};
use adit_proto::name::Name;
use adit_proto::names::{Hostname, InstanceId, ServiceName};
use adit_proto::reason::Reason;
use adit_tunnel::session::Session;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::agent::{AgentSession, Shown};
use self::agent::{Binding, Bindings};
use self::services::Routes;
pub(crate) use self::services::Service;
use crate::balancer::Endpoint;
use crate::grants::Grants;
use crate::live::Live;
use crate::observe::{Carrier, NO_SERVICE, Observe};
use crate::tcp::ports::{Claim, Ports};

mod agent;
mod services;

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

/// Who says hello, and how it got here.
pub(crate) struct Arrival {
    pub(crate) hello: Hello,
    pub(crate) who: Who,
    pub(crate) shown: Shown,
    pub(crate) remote: SocketAddr,
    pub(crate) carrier: Carrier,
    /// Capabilities it was granted.
    pub(crate) granted: u64,
    /// What becomes of each offer of the hello, in its order.
    pub(crate) decided: Vec<Decided>,
}

/// What becomes of an offer.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    /// What it is an endpoint of; `None`: it is not taken.
    pub(crate) served_as: Option<ServiceName>,
    /// Its TCP port, bound already, unless a route has it.
    pub(crate) claim: Option<Claim>,
    /// Why that could not be had, as the log said.
    pub(crate) unclaimed: Option<String>,
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
    grants: Grants,
    live: Arc<Live>,
    /// [`MAX_SERVICES`] and [`MAX_LABELS`]; fewer in tests.
    max_services: usize,
    max_labels: usize,
}

impl Sessions {
    pub(crate) fn new(observe: Observe, live: Arc<Live>) -> Arc<Self> {
        Arc::new(Self {
            agents: Mutex::default(),
            routes: RwLock::default(),
            appeared: watch::Sender::new(()),
            started: Instant::now(),
            observe,
            grants: Grants::default(),
            live,
            max_services: MAX_SERVICES,
            max_labels: MAX_LABELS,
        })
    }

    pub(crate) const fn grants(&self) -> &Grants {
        &self.grants
    }

    /// The service of this name, whether or not anybody offers it.
    pub(crate) fn named(&self, name: &Name) -> Arc<Service> {
        let name = ServiceName::Named(name.clone());
        if let Some(service) = self.routes.read().get(&name) {
            return Arc::clone(service);
        }
        let mut routes = self.routes.write();
        self.make_room(&mut routes, 1);
        self.service(&mut routes, &name)
    }

    /// The service of a TCP port that no route claims.
    pub(crate) fn at_port(&self, port: u16) -> Option<Arc<Service>> {
        self.routes.read().ports.get(&port).map(Arc::clone)
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
        let max = self.live.limits().max_sessions;
        match agents.get(&arrival.hello.instance) {
            Some(known) if known.who != arrival.who => Err((
                Reason::Unauthorized,
                "this instance id belongs to a session of another identity".to_owned(),
            )),
            Some(known) if known.generation >= arrival.hello.generation => {
                Err((Reason::Replaced, "a newer session of the same agent is connected already".to_owned()))
            }
            None if agents.len() >= max => {
                Err((Reason::Overloaded, format!("the gateway holds {max} sessions already")))
            }
            Some(_) | None => {
                let new = arrival.decided.iter().filter_map(|decided| decided.served_as.as_ref());
                let new = new.filter(|service| routes.get(service).is_none()).count();
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

    /// The session that a further lane is for. What the lane has shown holds for the session from now on, if it is a
    /// certificate that ends later.
    ///
    /// # Errors
    /// The reason and a sentence for the agent's log when there is none, or none of this identity.
    pub(crate) fn session_of(
        &self,
        hello: &Hello,
        who: &Who,
        shown: Shown,
    ) -> Result<Session, (Reason, String)> {
        let agents = self.agents.lock();
        agents
            .get(&hello.instance)
            .filter(|agent| agent.generation == hello.generation && agent.who == *who)
            .map(|agent| {
                agent.now_shows(shown);
                agent.session.clone()
            })
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
        let Arrival { hello, who, shown, remote, carrier, granted, decided } = arrival;
        let is_succession = hello.capabilities & capabilities::SUCCESSION != 0;
        let offers_tcp = hello.offers.iter().any(|offer| offer.service.tcp_port().is_some());
        let list = hello.offers.into_iter().zip(decided).zip(1..).map(|((offer, decided), number)| {
            let endpoint = decided.served_as.map(|served_as| {
                let endpoint =
                    Endpoint::new(session.clone(), &offer, number, hello.instance, Arc::clone(&self.live));
                (self.service(&mut routes, &served_as), Arc::new(endpoint))
            });
            Binding { offer, endpoint, claim: decided.claim, unclaimed: decided.unclaimed }
        });
        let list = list.collect::<Vec<_>>();
        for (service, endpoint) in list.iter().filter_map(|binding| binding.endpoint.as_ref()) {
            service.join(endpoint);
        }
        for claim in list.iter().filter_map(|binding| binding.claim.as_ref()) {
            claim.serve();
        }
        let agent = Arc::new(AgentSession {
            instance: hello.instance,
            generation: hello.generation,
            who,
            shown: Mutex::new(shown),
            remote,
            carrier,
            since: SystemTime::now(),
            release: hello.release,
            hostname: hello.hostname,
            session,
            granted,
            succeeded: CancellationToken::new(),
            answers_canaries: hello.capabilities & capabilities::CANARIES != 0,
            offers_tcp,
            bound: Mutex::new(Bindings { list, is_withdrawn: false }),
            canary: Mutex::default(),
        });
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
        self.observe.session_opened(carrier, agent.offers_tcp);
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
        let public = self.grants.of(&Who::Public, name, None);
        let service = Arc::new(Service::new(name.clone(), counters, public));
        routes.insert(Arc::clone(&service));
        service
    }

    /// Makes an offer of a standing session reachable, if its port can be had. For an agent that holds its bindings.
    fn bind(
        &self,
        agent: &AgentSession,
        binding: &mut Binding,
        number: u32,
        as_: &ServiceName,
        ports: &Ports,
    ) -> bool {
        if let ServiceName::Tcp(port) = as_ {
            match ports.claim(*port) {
                Ok(claim) => binding.claim = Some(claim),
                Err((reason, text)) => {
                    // It is tried again and again.
                    if binding.unclaimed.as_ref() != Some(&text) {
                        tracing::warn!(agent = %agent.instance, %reason, "an offer cannot be taken: {text}");
                        binding.unclaimed = Some(text);
                    }
                    return false;
                }
            }
        }
        binding.unclaimed = None;
        let endpoint = Endpoint::new(
            agent.session.clone(),
            &binding.offer,
            number,
            agent.instance,
            Arc::clone(&self.live),
        );
        let endpoint = Arc::new(endpoint);
        let mut routes = self.routes.write();
        self.make_room(&mut routes, 1);
        let service = self.service(&mut routes, as_);
        service.join(&endpoint);
        drop(routes);
        if let Some(claim) = &binding.claim {
            claim.serve();
        }
        binding.endpoint = Some((service, endpoint));
        self.appeared.send_replace(());
        true
    }

    /// Decides again about every session and offer; how many streams that has ended.
    pub(crate) fn reconsider(&self, snapshot: &Snapshot, ports: &Ports, now: Timestamp) -> usize {
        self.list().iter().map(|agent| agent.reconsider(self, snapshot, ports, now)).sum()
    }

    /// Decides again about one session, which may have come with an older snapshot.
    pub(crate) fn reconsider_one(
        &self,
        agent: &AgentSession,
        snapshot: &Snapshot,
        ports: &Ports,
        now: Timestamp,
    ) {
        agent.reconsider(self, snapshot, ports, now);
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
            agent.sweep(max_idle);
        }
        let mut routes = self.routes.write();
        let old = routes.empty_for(REMEMBERED);
        self.forget(&mut routes, old.into_iter());
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
        self.sessions.observe.session_ended(self.agent.carrier, reason, self.agent.offers_tcp);
    }
}

#[cfg(test)]
mod tests;
