//! The record of one connection of a TCP service, or of one made for an agent, and what is counted for a port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use adit_control::{Subject, Who};
use adit_proto::name::Name;
use adit_proto::names::{Destination, InstanceId, ServiceName};
use adit_proto::reason::Reason;
use adit_telemetry::logs::LineWriter;
use adit_telemetry::request_log::RequestLine;
use adit_tunnel::relay::Meter;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::{ANONYMOUS, ByReason, Observe, ServiceCounters};
use crate::balancer::Endpoint;
use crate::grants::Grant;
use crate::sessions::Service;
use crate::sources::Share;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByPort {
    port: u16,
}

/// The families that are counted for each port. Clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports {
    pub(super) open: Family<ByPort, Gauge>,
    pub(super) accepted: Family<ByPort, Counter>,
}

/// One port's counters.
#[derive(Debug)]
pub(super) struct PortCounters {
    port: u16,
    open: Gauge,
    accepted: Counter,
}

impl Ports {
    pub(super) fn port(&self, port: u16) -> PortCounters {
        PortCounters {
            port,
            open: self.open.get_or_create_owned(&ByPort { port }),
            accepted: self.accepted.get_or_create_owned(&ByPort { port }),
        }
    }

    pub(super) fn forget(&self, counters: &PortCounters) {
        self.open.remove(&ByPort { port: counters.port });
        self.accepted.remove(&ByPort { port: counters.port });
    }
}

/// One connection's story so far. Everything it counts, it counts when dropped, except bytes, which count as they
/// move.
#[derive(Debug)]
pub(crate) struct ConnectionRecord {
    observe: Observe,
    name: ServiceName,
    counters: ServiceCounters,
    /// It came to a port of the gateway's.
    is_public: bool,
    /// Who asks; `None`: a client of a public port.
    who: Option<Name>,
    /// Kept while it is open.
    grant: Option<Arc<Grant>>,
    /// One of the connections that its source may have, kept until it ends.
    share: Option<Share>,
    client: IpAddr,
    started: Instant,
    wait: Option<Duration>,
    via: Option<Via>,
    /// A connection whose task is dropped was cut at the end of a drain.
    reason: Reason,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// Who carries it.
#[derive(Debug)]
enum Via {
    Endpoint(Arc<Endpoint>),
    /// It came from this agent, and the gateway itself connected.
    Agent(InstanceId),
}

impl Observe {
    /// Starts the record of a connection to a public port.
    pub(crate) fn begin_connection(&self, service: &Service, peer: SocketAddr) -> ConnectionRecord {
        self.inner.connections.inc();
        if let Some(port) = &service.counters.inner.port {
            port.open.inc();
            port.accepted.inc();
        }
        let mut record = self.record(service.name.clone(), service.counters.clone(), peer, None);
        record.is_public = true;
        record
    }

    /// Starts the record of a connection that is made for an agent.
    pub(crate) fn begin_forwarded(
        &self,
        to: &Destination,
        agent: InstanceId,
        client: SocketAddr,
    ) -> ConnectionRecord {
        let counters = self.inner.forwarded.clone();
        self.record(ServiceName::Dial(to.clone()), counters, client, Some(Via::Agent(agent)))
    }

    /// Starts the record of a dial. It counts for nobody's service until it is permitted: names that agents make up are
    /// no labels.
    pub(crate) fn begin_dial(
        &self,
        name: &Name,
        who: &Who,
        agent: InstanceId,
        client: SocketAddr,
    ) -> ConnectionRecord {
        self.inner.dials.inc();
        let counters = self.inner.unrouted.clone();
        let name = ServiceName::Named(name.clone());
        let mut record = self.record(name, counters, client, Some(Via::Agent(agent)));
        record.who = who.name().cloned();
        record
    }

    fn record(
        &self,
        name: ServiceName,
        counters: ServiceCounters,
        peer: SocketAddr,
        via: Option<Via>,
    ) -> ConnectionRecord {
        self.inner.flows.inc();
        ConnectionRecord {
            observe: self.clone(),
            name,
            counters,
            is_public: false,
            who: None,
            grant: None,
            share: None,
            client: peer.ip().to_canonical(),
            started: Instant::now(),
            wait: None,
            via,
            reason: Reason::Draining,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }
}

impl ConnectionRecord {
    /// Whom it is for; while that is not known, the peer stands for it.
    pub(crate) const fn subject(&mut self, subject: &Subject) {
        if let Some(address) = subject.address {
            self.client = address;
        }
    }

    /// It is permitted, and for this service.
    pub(crate) fn reaches(&mut self, service: &Service) {
        self.counters = service.counters.clone();
        self.name = service.name.clone();
    }

    /// It counts as one of its source's until it ends.
    pub(crate) fn counts_for(&mut self, share: Option<Share>) {
        self.share = share;
    }

    /// What it rests on is in use until it ends.
    pub(crate) fn rests_on(&mut self, grant: Arc<Grant>) {
        self.grant = Some(grant);
    }

    /// Its upstream is being connected to there.
    pub(crate) fn tried(&mut self, endpoint: &Arc<Endpoint>) {
        self.via = Some(Via::Endpoint(Arc::clone(endpoint)));
    }

    /// The upstream is connected, and has been sent this many bytes.
    pub(crate) fn leased(&mut self, endpoint: &Arc<Endpoint>, early: usize) {
        self.wait = Some(self.started.elapsed());
        self.tried(endpoint);
        self.received(early as u64);
    }

    /// Counts as a relay does whose stream leads to the client.
    pub(crate) const fn reversed(&self) -> Reversed<'_> {
        Reversed(self)
    }

    /// It has ended.
    pub(crate) const fn ended(&mut self, reason: Reason) {
        self.reason = reason;
    }

    fn log(&self, log: &LineWriter) {
        let service = self.name.to_string();
        let duration = self.started.elapsed();
        let (agent, upstream) = match &self.via {
            Some(Via::Endpoint(endpoint)) => (Some(endpoint.instance), Some(&*endpoint.upstream)),
            Some(Via::Agent(agent)) => (Some(*agent), None),
            None => (None, None),
        };
        let agent = agent.map(|agent| agent.to_string());
        let line = RequestLine {
            time: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            identity: Some(self.who.as_ref().map_or(ANONYMOUS, Name::as_str)),
            service: Some(&service),
            route: Some(&service),
            client: self.client,
            method: "-",
            host: "-",
            target: "-",
            protocol: "TCP",
            status: None,
            reason: Some(self.reason.label()),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            duration,
            wait: self.wait,
            upstream_wait: None,
            agent: agent.as_deref(),
            upstream,
            user_agent: None,
        };
        line.write(log);
    }
}

impl Meter for ConnectionRecord {
    fn sent(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        self.counters.inner.bytes_out.inc_by(bytes);
    }

    fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        self.counters.inner.bytes_in.inc_by(bytes);
    }
}

/// See [`ConnectionRecord::reversed`].
pub(crate) struct Reversed<'a>(&'a ConnectionRecord);

impl Meter for Reversed<'_> {
    fn sent(&self, bytes: u64) {
        self.0.received(bytes);
    }

    fn received(&self, bytes: u64) {
        self.0.sent(bytes);
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        let inner = &self.observe.inner;
        inner.flows.dec();
        if self.is_public {
            inner.connections.dec();
        }
        if let Some(port) = &self.counters.inner.port {
            port.open.dec();
        }
        if !matches!(self.reason, Reason::Done | Reason::ClientGone) {
            inner.refusals.get_or_create_owned(&ByReason { reason: self.reason.label() }).inc();
        }
        if let Some(log) = inner.log.now() {
            self.log(&log);
        }
    }
}
