//! What an agent counts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use adit_proto::reason::Reason;
use adit_telemetry::families::{Described, family, help};
use adit_telemetry::logs::{LineWriter, register_log_metrics};
use adit_telemetry::metrics::Metrics;
use adit_telemetry::reloads::Reloads;
use adit_telemetry::{process, runtime};
use adit_tunnel::relay::Meter;
use adit_tunnel::workers::Workers;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::dial::Carrier;

/// Every family an agent adds to the process and runtime ones, for the reference page.
pub const FAMILIES: &[Described] = &[
    family("adit_agent_session_up", "gauge", "", "1 while a session to at least one gateway stands"),
    family(
        "adit_agent_sessions",
        "gauge",
        "gateway",
        "Sessions now, by gateway; for a while one more when a gateway is on its way out",
    ),
    family(
        "adit_agent_connects_total",
        "counter",
        "gateway,result",
        "Attempts to open a session, by gateway and how they ended: ok, or a reason",
    ),
    family(
        "adit_agent_dials_total",
        "counter",
        "transport,why,tls",
        "Connections to the gateway that were made, by transport, why it was taken, and how TLS began: full, or resumed with a ticket",
    ),
    family(
        "adit_agent_sessions_ended_total",
        "counter",
        "gateway,reason",
        "Sessions that ended after they stood, by gateway and reason",
    ),
    family(
        "adit_agent_last_connected_timestamp_seconds",
        "gauge",
        "gateway",
        "When the newest session was opened, in seconds since 1970",
    ),
    family(
        "adit_agent_round_trip_seconds",
        "gauge",
        "gateway",
        "Round trip time to the gateway when it was last measured, 0 while unknown",
    ),
    family(
        "adit_agent_last_canary_timestamp_seconds",
        "gauge",
        "gateway",
        "When the last canary came through from this gateway, in seconds since 1970",
    ),
    family(
        "adit_agent_loop_restarts_total",
        "counter",
        "gateway",
        "Times the loop that keeps a session was found stuck or broken and was started anew",
    ),
    family(
        "adit_agent_clock_jumps_total",
        "counter",
        "",
        "Times the machine had slept, or its clock was set, so that every session was looked at",
    ),
    family(
        "adit_agent_credential_expiry_timestamp_seconds",
        "gauge",
        "",
        "When the certificate of this agent's identity ends, in seconds since 1970; 0 without one",
    ),
    family(
        "adit_agent_credential_renewals_total",
        "counter",
        "result",
        "Renewals of the certificate by how they ended: ok, unsaved, unreachable, refused, or what else failed",
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
struct ByGateway {
    gateway: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    gateway: Arc<str>,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    gateway: Arc<str>,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    result: &'static str,
}

/// What is counted of an identity's certificate.
#[derive(Debug, Clone, Default)]
pub(crate) struct CredentialFigures {
    expiry: Gauge,
    renewals: Family<ByOutcome, Counter>,
}

impl CredentialFigures {
    /// The certificate ends then, in seconds since 1970.
    pub(crate) fn expires(&self, at: u64) {
        self.expiry.set(i64::try_from(at).unwrap_or(i64::MAX));
    }

    /// A renewal ended like this: a word from a closed list.
    pub(crate) fn renewed(&self, result: &'static str) {
        self.renewals.get_or_create_owned(&ByOutcome { result }).inc();
    }
}

/// The agent's counters. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Observe {
    pub(crate) metrics: Metrics,
    up: Gauge,
    sessions: Family<ByGateway, Gauge>,
    connects: Family<ByResult, Counter>,
    dials: Family<Carrier, Counter>,
    sessions_ended: Family<ByReason, Counter>,
    last_connected: Family<ByGateway, Gauge<f64, AtomicU64>>,
    rtt: Family<ByGateway, Gauge<f64, AtomicU64>>,
    last_canary: Family<ByGateway, Gauge<f64, AtomicU64>>,
    loop_restarts: Family<ByGateway, Counter>,
    clock_jumps: Counter,
    pub(crate) credential: CredentialFigures,
    streams: Family<ByService, Gauge>,
    streams_ended: Family<ByEnd, Counter>,
    bytes: Family<ByDirection, Counter>,
    /// Told of every configuration that is read.
    pub(crate) config: Reloads,
}

impl Observe {
    pub(crate) fn new(process_log: Option<LineWriter>, revision: &'static str, workers: &Workers) -> Self {
        let observe = Self {
            metrics: Metrics::new(),
            up: Gauge::default(),
            sessions: Family::default(),
            connects: Family::default(),
            dials: Family::default(),
            sessions_ended: Family::default(),
            last_connected: Family::default(),
            rtt: Family::default(),
            last_canary: Family::default(),
            loop_restarts: Family::default(),
            clock_jumps: Counter::default(),
            credential: CredentialFigures::default(),
            streams: Family::default(),
            streams_ended: Family::default(),
            bytes: Family::default(),
            config: Reloads::default(),
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
        add!("adit_agent_sessions", observe.sessions);
        add!("adit_agent_connects_total", observe.connects);
        add!("adit_agent_dials_total", observe.dials);
        add!("adit_agent_sessions_ended_total", observe.sessions_ended);
        add!("adit_agent_last_connected_timestamp_seconds", observe.last_connected);
        add!("adit_agent_round_trip_seconds", observe.rtt);
        add!("adit_agent_last_canary_timestamp_seconds", observe.last_canary);
        add!("adit_agent_loop_restarts_total", observe.loop_restarts);
        add!("adit_agent_clock_jumps_total", observe.clock_jumps);
        add!("adit_agent_credential_expiry_timestamp_seconds", observe.credential.expiry);
        add!("adit_agent_credential_renewals_total", observe.credential.renewals);
        add!("adit_agent_streams", observe.streams);
        add!("adit_agent_streams_ended_total", observe.streams_ended);
        add!("adit_agent_bytes_total", observe.bytes);
        // There at 0, so that a rate can be taken of the first one.
        drop(observe.credential.renewals.get_or_create_owned(&ByOutcome { result: "ok" }));
        observe.config.register(metrics);
        process::register(metrics);
        process::register_build_info(metrics, env!("CARGO_PKG_VERSION"), revision);
        if let Some(log) = process_log {
            register_log_metrics(metrics, &[("process", log.into())]);
        }
        runtime::register(metrics, workers.runtimes());
        observe
    }

    /// Whether a session stands.
    pub(crate) fn up(&self, up: bool) {
        self.up.set(up.into());
    }

    /// A connection to the gateway was made.
    pub(crate) fn dialled(&self, carrier: Carrier) {
        self.dials.get_or_create_owned(&carrier).inc();
    }

    /// The machine has slept, or its clock was set.
    pub(crate) fn clock_jumped(&self) {
        self.clock_jumps.inc();
    }

    /// A gateway's counters, looked up once. Its name is one from the configuration.
    pub(crate) fn gateway(&self, gateway: &Arc<str>) -> GatewayCounters {
        let by = ByGateway { gateway: Arc::clone(gateway) };
        GatewayCounters {
            gateway: Arc::clone(gateway),
            sessions: self.sessions.get_or_create_owned(&by),
            connects: self.connects.clone(),
            ended: self.sessions_ended.clone(),
            last_connected: self.last_connected.get_or_create_owned(&by),
            rtt: self.rtt.get_or_create_owned(&by),
            last_canary: self.last_canary.get_or_create_owned(&by),
            restarts: self.loop_restarts.get_or_create_owned(&by),
        }
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

/// One gateway's counters.
#[derive(Debug, Clone)]
pub(crate) struct GatewayCounters {
    gateway: Arc<str>,
    sessions: Gauge,
    connects: Family<ByResult, Counter>,
    ended: Family<ByReason, Counter>,
    last_connected: Gauge<f64, AtomicU64>,
    rtt: Gauge<f64, AtomicU64>,
    last_canary: Gauge<f64, AtomicU64>,
    restarts: Counter,
}

impl GatewayCounters {
    /// An attempt to connect failed.
    pub(crate) fn connect_failed(&self, result: &'static str) {
        self.connected_as(result);
    }

    fn connected_as(&self, result: &'static str) {
        let by = ByResult { gateway: Arc::clone(&self.gateway), result };
        self.connects.get_or_create_owned(&by).inc();
    }

    /// A session stands.
    pub(crate) fn connected(&self) {
        self.connected_as("ok");
        self.last_connected.set(now());
    }

    /// A canary came through.
    pub(crate) fn canary(&self) {
        self.last_canary.set(now());
    }

    /// Counts a session as there until the guard is dropped.
    pub(crate) fn session(&self) -> OpenSession {
        self.sessions.inc();
        OpenSession(self.sessions.clone())
    }

    /// A session that stood has ended.
    pub(crate) fn disconnected(&self, reason: Reason) {
        let by = ByReason { gateway: Arc::clone(&self.gateway), reason: reason.label() };
        self.ended.get_or_create_owned(&by).inc();
    }

    pub(crate) fn round_trip(&self, rtt: std::time::Duration) {
        self.rtt.set(rtt.as_secs_f64());
    }

    /// The loop was started anew.
    pub(crate) fn restarted(&self) {
        self.restarts.inc();
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A session that is there.
#[derive(Debug)]
pub(crate) struct OpenSession(Gauge);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.dec();
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
