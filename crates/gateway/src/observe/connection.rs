//! The record of one connection to a TCP service, and what is counted for its port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use adit_control::Subject;
use adit_proto::reason::Reason;
use adit_telemetry::logs::LineWriter;
use adit_telemetry::request_log::RequestLine;
use adit_tunnel::relay::Meter;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::{ANONYMOUS, ByReason, Observe};
use crate::balancer::Endpoint;
use crate::sessions::Service;

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
    service: Arc<Service>,
    client: IpAddr,
    started: Instant,
    wait: Option<Duration>,
    endpoint: Option<Arc<Endpoint>>,
    /// A connection whose task is dropped was cut at the end of a drain.
    reason: Reason,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Observe {
    /// Starts a connection's record.
    pub(crate) fn begin_connection(&self, service: &Arc<Service>, peer: SocketAddr) -> ConnectionRecord {
        self.inner.flows.inc();
        self.inner.connections.inc();
        if let Some(port) = &service.counters.inner.port {
            port.open.inc();
            port.accepted.inc();
        }
        ConnectionRecord {
            observe: self.clone(),
            service: Arc::clone(service),
            client: peer.ip().to_canonical(),
            started: Instant::now(),
            wait: None,
            endpoint: None,
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

    /// The upstream is connected, and has been sent this many bytes.
    pub(crate) fn leased(&mut self, endpoint: &Arc<Endpoint>, early: usize) {
        self.wait = Some(self.started.elapsed());
        self.endpoint = Some(Arc::clone(endpoint));
        self.received(early as u64);
    }

    /// It has ended.
    pub(crate) const fn ended(&mut self, reason: Reason) {
        self.reason = reason;
    }

    fn log(&self, log: &LineWriter) {
        let service = self.service.name.to_string();
        let duration = self.started.elapsed();
        let agent = self.endpoint.as_ref().map(|endpoint| endpoint.instance.to_string());
        let line = RequestLine {
            time: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            identity: Some(ANONYMOUS),
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
            upstream: self.endpoint.as_ref().map(|endpoint| &*endpoint.upstream),
            user_agent: None,
        };
        line.write(log);
    }
}

impl Meter for ConnectionRecord {
    fn sent(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        self.service.counters.inner.bytes_out.inc_by(bytes);
    }

    fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        self.service.counters.inner.bytes_in.inc_by(bytes);
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        let inner = &self.observe.inner;
        inner.flows.dec();
        inner.connections.dec();
        if let Some(port) = &self.service.counters.inner.port {
            port.open.dec();
        }
        if !matches!(self.reason, Reason::Done | Reason::ClientGone) {
            inner.refusals.get_or_create_owned(&ByReason { reason: self.reason.label() }).inc();
        }
        if let Some(log) = &inner.log {
            self.log(log);
        }
    }
}
