//! What an agent counts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use adit_proto::reason::Reason;
use adit_telemetry::families::{Described, family, help};
use adit_telemetry::logs::{LineWriter, register_log_metrics};
use adit_telemetry::metrics::Metrics;
use adit_telemetry::{process, runtime};
use adit_tunnel::relay::Meter;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::dial::Carrier;

/// Every family an agent adds to the process and runtime ones, for the reference page.
pub const FAMILIES: &[Described] = &[
    family("adit_agent_session_up", "gauge", "", "1 while a session to the gateway stands"),
    family(
        "adit_agent_connects_total",
        "counter",
        "result",
        "Attempts to open a session to the gateway, by how they ended: ok, or a reason",
    ),
    family(
        "adit_agent_dials_total",
        "counter",
        "transport,tls",
        "Connections to the gateway that were made, by transport and by how TLS began: full, or resumed with a ticket",
    ),
    family(
        "adit_agent_sessions_ended_total",
        "counter",
        "reason",
        "Sessions that ended after they stood, by reason",
    ),
    family(
        "adit_agent_last_connected_timestamp_seconds",
        "gauge",
        "",
        "When the newest session was opened, in seconds since 1970",
    ),
    family(
        "adit_agent_round_trip_seconds",
        "gauge",
        "",
        "Round trip time to the gateway when it was last measured, 0 while unknown",
    ),
    family("adit_agent_streams", "gauge", "service", "Streams open now, by service"),
    family(
        "adit_agent_streams_ended_total",
        "counter",
        "service,reason",
        "Streams that ended, by service and reason",
    ),
    family(
        "adit_agent_bytes_total",
        "counter",
        "service,direction",
        "Bytes moved as they move, by service and direction (in: to the upstream, out: from it)",
    ),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByService {
    service: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEnd {
    service: Arc<str>,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    service: Arc<str>,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

/// The agent's counters. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Observe {
    pub(crate) metrics: Metrics,
    up: Gauge,
    connects: Family<ByResult, Counter>,
    dials: Family<Carrier, Counter>,
    sessions_ended: Family<ByReason, Counter>,
    last_connected: Gauge<f64, AtomicU64>,
    rtt: Gauge<f64, AtomicU64>,
    streams: Family<ByService, Gauge>,
    streams_ended: Family<ByEnd, Counter>,
    bytes: Family<ByDirection, Counter>,
}

impl Observe {
    pub(crate) fn new(process_log: Option<LineWriter>, revision: &'static str) -> Self {
        let observe = Self {
            metrics: Metrics::new(),
            up: Gauge::default(),
            connects: Family::default(),
            dials: Family::default(),
            sessions_ended: Family::default(),
            last_connected: Gauge::default(),
            rtt: Gauge::default(),
            streams: Family::default(),
            streams_ended: Family::default(),
            bytes: Family::default(),
        };
        let metrics = &observe.metrics;
        macro_rules! add {
            ($name:literal, $metric:expr) => {
                metrics.register(
                    $name.strip_suffix("_total").unwrap_or($name),
                    help(FAMILIES, $name),
                    $metric.clone(),
                )
            };
        }
        add!("adit_agent_session_up", observe.up);
        add!("adit_agent_connects_total", observe.connects);
        add!("adit_agent_dials_total", observe.dials);
        add!("adit_agent_sessions_ended_total", observe.sessions_ended);
        add!("adit_agent_last_connected_timestamp_seconds", observe.last_connected);
        add!("adit_agent_round_trip_seconds", observe.rtt);
        add!("adit_agent_streams", observe.streams);
        add!("adit_agent_streams_ended_total", observe.streams_ended);
        add!("adit_agent_bytes_total", observe.bytes);
        process::register(metrics);
        process::register_build_info(metrics, env!("CARGO_PKG_VERSION"), revision);
        if let Some(log) = process_log {
            register_log_metrics(metrics, &[("process", log)]);
        }
        runtime::register(metrics, tokio::runtime::Handle::current());
        observe
    }

    /// An attempt to connect failed.
    pub(crate) fn connect_failed(&self, result: &'static str) {
        self.connects.get_or_create_owned(&ByResult { result }).inc();
    }

    /// A connection to the gateway was made.
    pub(crate) fn dialled(&self, carrier: Carrier) {
        self.dials.get_or_create_owned(&carrier).inc();
    }

    /// A session stands.
    pub(crate) fn connected(&self) {
        self.connects.get_or_create_owned(&ByResult { result: "ok" }).inc();
        self.up.set(1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.last_connected.set(now.as_secs_f64());
    }

    /// A session that stood has ended.
    pub(crate) fn disconnected(&self, reason: Reason) {
        self.up.set(0);
        self.sessions_ended.get_or_create_owned(&ByReason { reason: reason.label() }).inc();
    }

    pub(crate) fn round_trip(&self, rtt: std::time::Duration) {
        self.rtt.set(rtt.as_secs_f64());
    }

    /// A service's counters, looked up once.
    pub(crate) fn service(&self, service: &Arc<str>) -> ServiceCounters {
        let by = |direction| ByDirection { service: Arc::clone(service), direction };
        ServiceCounters {
            service: Arc::clone(service),
            streams: self.streams.get_or_create_owned(&ByService { service: Arc::clone(service) }),
            ended: self.streams_ended.clone(),
            bytes_in: self.bytes.get_or_create_owned(&by("in")),
            bytes_out: self.bytes.get_or_create_owned(&by("out")),
        }
    }
}

/// One service's counters.
#[derive(Debug, Clone)]
pub(crate) struct ServiceCounters {
    service: Arc<str>,
    streams: Gauge,
    ended: Family<ByEnd, Counter>,
    bytes_in: Counter,
    bytes_out: Counter,
}

impl ServiceCounters {
    /// Counts a stream as open until the guard is dropped.
    pub(crate) fn open(&self) -> OpenStream {
        self.streams.inc();
        OpenStream { counters: self.clone(), reason: Reason::Cancelled }
    }
}

impl Meter for ServiceCounters {
    fn sent(&self, bytes: u64) {
        self.bytes_in.inc_by(bytes);
    }

    fn received(&self, bytes: u64) {
        self.bytes_out.inc_by(bytes);
    }
}

/// An open stream; counted as ended when dropped, however that comes about.
#[derive(Debug)]
pub(crate) struct OpenStream {
    counters: ServiceCounters,
    /// Why it ended; a task that is cut off leaves it at `cancelled`.
    pub(crate) reason: Reason,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.counters.streams.dec();
        let by = ByEnd { service: Arc::clone(&self.counters.service), reason: self.reason.label() };
        self.counters.ended.get_or_create_owned(&by).inc();
    }
}
