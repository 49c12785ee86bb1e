//! What a gateway counts and records. One record a flow: whatever happens to the flow, dropping the record
//! moves the metrics and writes the request log's line.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::{Request, StatusCode, Version, header};
use adit_control::Subject;
use adit_proto::reason::Reason;
use adit_telemetry::labels::{CodeLabel, Method};
use adit_telemetry::logs::{LineWriter, Switch};
use adit_telemetry::metrics::Metrics;
use adit_telemetry::reloads::Reloads;
use adit_telemetry::request_log::RequestLine;
use adit_tunnel::workers::Workers;
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use self::canaries::Canaries;
use crate::balancer::Lease;
use crate::flow::Connection;
use crate::http::guard::GuardHandle;
use crate::sessions::Service;

mod admin;
mod canaries;
pub(crate) mod connection;

mod families;
pub use families::FAMILIES;

/// Upper bounds of the request duration histogram, in seconds. Few, because every service, method and status has
/// its own set.
const DURATION_BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// The host label of requests no service answers for, and of services that have no label of their own.
pub(crate) const NO_SERVICE: &str = "other";
/// The service label of connections that were made for agents.
const FORWARDED: &str = "forwarded";
/// Who asks, as long as clients have no identities of their own.
const ANONYMOUS: &str = "anonymous";
/// How many series one service may have: a histogram is eleven, a counter one, and clients and upstreams choose methods
/// and statuses. With these and [`UNROUTED`] a flood of everything there is stays below 150 series.
const ROUTED: Bounds = Bounds { counted: 20, timed: 5 };
/// The same for requests that reach no service; most of them are 404 to a GET.
const UNROUTED: Bounds = Bounds { counted: 8, timed: 1 };

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRequest {
    code: CodeLabel,
    host: Arc<str>,
    method: Method,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByControlRequest {
    code: u16,
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Carrier {
    /// The transport: `tls` or `websocket`.
    pub(crate) transport: &'static str,
    /// How TLS began: `full` or `resumed`.
    pub(crate) tls: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTransport {
    transport: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    service: Arc<str>,
    direction: &'static str,
}

/// The gateway's counters. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Observe {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    log: Switch,
    connected: Gauge,
    control_requests: Family<ByControlRequest, Counter>,
    traffic: Traffic,
    ports: connection::Ports,
    /// Of the connected agents, those that offer TCP services.
    tcp_connected: Gauge,
    refusals: Family<ByReason, Counter>,
    flows: Gauge,
    connections: Gauge,
    sessions: Family<ByTransport, Gauge>,
    handshakes: Family<Carrier, Counter>,
    sessions_opened: Counter,
    sessions_ended: Family<ByReason, Counter>,
    takeovers: Counter,
    dials: Counter,
    offers_denied: Family<ByReason, Counter>,
    grants: Gauge,
    revocations: Family<ByKind, Counter>,
    canaries: Canaries,
    auth_failures: Family<ByReason, Counter>,
    admin: admin::Admin,
    config: Reloads,
    /// Requests that reached no service.
    unrouted: ServiceCounters,
    /// Connections that were made for agents.
    forwarded: ServiceCounters,
}

/// The families that are counted for each service. Clones count together.
#[derive(Debug, Clone)]
struct Traffic {
    requests: Family<ByRequest, Counter>,
    durations: Family<ByRequest, Histogram, fn() -> Histogram>,
    bytes: Family<ByDirection, Counter>,
}

impl Traffic {
    fn new() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(duration_histogram as fn() -> Histogram),
            bytes: Family::default(),
        }
    }
}

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

impl Observe {
    pub(crate) fn new(
        log: Option<LineWriter>,
        process_log: Option<LineWriter>,
        revision: &'static str,
        workers: &Workers,
    ) -> Self {
        let traffic = Traffic::new();
        let unrouted = ServiceCounters::new(&NO_SERVICE.into(), UNROUTED, &traffic, None);
        let forwarded = ServiceCounters::new(&FORWARDED.into(), UNROUTED, &traffic, None);
        let inner = Inner {
            metrics: Metrics::new(),
            log: Switch::new(log),
            connected: Gauge::default(),
            control_requests: Family::default(),
            traffic,
            ports: connection::Ports::default(),
            tcp_connected: Gauge::default(),
            refusals: Family::default(),
            flows: Gauge::default(),
            connections: Gauge::default(),
            sessions: Family::default(),
            handshakes: Family::default(),
            sessions_opened: Counter::default(),
            sessions_ended: Family::default(),
            takeovers: Counter::default(),
            dials: Counter::default(),
            offers_denied: Family::default(),
            grants: Gauge::default(),
            revocations: Family::default(),
            canaries: Canaries::new(),
            auth_failures: Family::default(),
            admin: admin::Admin::default(),
            config: Reloads::default(),
            unrouted,
            forwarded,
        };
        // There from the start, so that an alert need not tell "none" from "not known".
        for kind in ["session", "offer", "stream"] {
            drop(inner.revocations.get_or_create_owned(&ByKind { kind }));
        }
        let denied = ByReason { reason: Reason::NotPermitted.label() };
        drop(inner.offers_denied.get_or_create_owned(&denied));
        families::register(&inner, process_log, revision, workers);
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Writes the request log there from now on, or nowhere.
    pub(crate) fn request_log(&self, log: Option<LineWriter>) {
        self.inner.log.replace(log);
    }

    /// Told of every configuration that is read.
    pub(crate) fn config(&self) -> &Reloads {
        &self.inner.config
    }

    /// A service's counters, with their series made once. Services under [`NO_SERVICE`] share theirs, or each of
    /// them would add its own choice of series to the same label.
    pub(crate) fn service(&self, label: &Arc<str>) -> ServiceCounters {
        let inner = &self.inner;
        if **label == *NO_SERVICE {
            return inner.unrouted.clone();
        }
        ServiceCounters::new(label, ROUTED, &inner.traffic, None)
    }

    /// The counters of a TCP service. Those without a label of their own share theirs, and count for no port.
    pub(crate) fn port(&self, label: &Arc<str>, port: u16) -> ServiceCounters {
        let inner = &self.inner;
        if **label == *NO_SERVICE {
            return inner.unrouted.clone();
        }
        ServiceCounters::new(label, ROUTED, &inner.traffic, Some(inner.ports.port(port)))
    }

    /// Takes a service's series out of the metrics. What is still counted with these counters shows no more.
    pub(crate) fn forget(&self, service: &ServiceCounters) {
        let (inner, gone) = (&self.inner, &service.inner);
        if Arc::ptr_eq(gone, &inner.unrouted.inner) {
            return;
        }
        for made in gone.made.read().iter() {
            let host = Arc::clone(&gone.label);
            inner.traffic.requests.remove(&ByRequest {
                code: made.code,
                host: Arc::clone(&host),
                method: made.method,
            });
            let (code, method) = made.timed_as;
            inner.traffic.durations.remove(&ByRequest { code, host, method });
        }
        if let Some(port) = &gone.port {
            inner.ports.forget(port);
        }
        for direction in ["in", "out"] {
            inner.traffic.bytes.remove(&ByDirection { service: Arc::clone(&gone.label), direction });
        }
    }

    pub(crate) fn session_opened(&self, carrier: Carrier, offers_tcp: bool) {
        self.inner.connected.inc();
        self.inner.tcp_connected.inc_by(i64::from(offers_tcp));
        self.inner.sessions.get_or_create_owned(&ByTransport { transport: carrier.transport }).inc();
        self.inner.handshakes.get_or_create_owned(&carrier).inc();
        self.inner.sessions_opened.inc();
    }

    pub(crate) fn session_ended(&self, carrier: Carrier, reason: Reason, offered_tcp: bool) {
        self.inner.connected.dec();
        self.inner.tcp_connected.dec_by(i64::from(offered_tcp));
        self.inner.sessions.get_or_create_owned(&ByTransport { transport: carrier.transport }).dec();
        self.inner.sessions_ended.get_or_create_owned(&ByReason { reason: reason.label() }).inc();
    }

    pub(crate) fn takeover(&self) {
        self.inner.takeovers.inc();
    }

    /// An offer was not taken.
    pub(crate) fn offer_denied(&self, reason: Reason) {
        self.inner.offers_denied.get_or_create_owned(&ByReason { reason: reason.label() }).inc();
    }

    /// So many rights are in use.
    pub(crate) fn grants(&self, count: usize) {
        self.inner.grants.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many of a kind were ended because they are not permitted any more.
    pub(crate) fn revoked(&self, kind: &'static str, count: usize) {
        self.inner.revocations.get_or_create_owned(&ByKind { kind }).inc_by(count as u64);
    }

    /// A canary came back, or did not.
    pub(crate) fn canary(&self, outcome: Result<Duration, Reason>) {
        self.inner.canaries.count(outcome);
    }

    /// How long ago a canary came back last.
    pub(crate) fn canary_age(&self) -> Option<Duration> {
        self.inner.canaries.age()
    }

    pub(crate) fn auth_failed(&self, reason: Reason) {
        self.inner.auth_failures.get_or_create_owned(&ByReason { reason: reason.label() }).inc();
    }

    /// Counts an answer of the control port; `path` is one of its own.
    pub(crate) fn control_request(&self, code: u16, path: &'static str) {
        self.inner.control_requests.get_or_create_owned(&ByControlRequest { code, path }).inc();
    }

    /// Counts a public connection until the guard is dropped.
    pub(crate) fn connection(&self) -> OpenConnection {
        self.inner.connections.inc();
        OpenConnection(self.clone())
    }

    /// A head that was refused before it became a request.
    pub(crate) fn head_refused(&self, reason: Reason, client: IpAddr) {
        self.inner.refusals.get_or_create_owned(&ByReason { reason: reason.label() }).inc();
        let (requests, _) = self.inner.unrouted.by(reason.status(), Method::Other);
        requests.inc();
        if let Some(log) = self.inner.log.now() {
            let line = RequestLine {
                time: SystemTime::now(),
                identity: Some(ANONYMOUS),
                service: None,
                route: None,
                client,
                method: "-",
                host: "-",
                target: "-",
                protocol: "HTTP/1.1",
                status: Some(reason.status()),
                reason: Some(reason.label()),
                bytes_in: 0,
                bytes_out: 0,
                duration: Duration::ZERO,
                wait: None,
                upstream_wait: None,
                agent: None,
                upstream: None,
                user_agent: None,
            };
            line.write(&log);
        }
    }

    /// Starts a flow's record.
    pub(crate) fn begin<B>(&self, request: &Request<B>, connection: &Connection) -> Record {
        self.inner.flows.inc();
        let text = self.inner.log.is_on().then(|| Box::new(Text::of(request)));
        Record {
            observe: self.clone(),
            started: Instant::now(),
            method: Method::from_name(request.method().as_str()),
            is_http1: request.version() <= Version::HTTP_11,
            client: connection.peer.ip().to_canonical(),
            guard: connection.guard.clone(),
            service: None,
            text,
            status: None,
            reason: Reason::ClientGone,
            bytes_in: 0,
            bytes_out: 0,
            wait: None,
            upstream_wait: None,
            lease: None,
        }
    }
}

/// A public connection, counted while it is open.
#[derive(Debug)]
pub(crate) struct OpenConnection(Observe);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.inner.connections.dec();
    }
}

/// One service's counters.
#[derive(Debug, Clone)]
pub(crate) struct ServiceCounters {
    inner: Arc<ServiceInner>,
}

#[derive(Debug)]
struct ServiceInner {
    label: Arc<str>,
    bounds: Bounds,
    /// Series that exist already; a handful, found faster by looking at each than by hashing.
    made: RwLock<Vec<Made>>,
    traffic: Traffic,
    /// Set for a TCP service.
    port: Option<connection::PortCounters>,
    bytes_in: Counter,
    bytes_out: Counter,
}

/// How many pairs of code and method are exact. Those that come later share: counters the class of their code, under
/// the method `other`; histograms one that has `other` for both.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    counted: usize,
    timed: usize,
}

/// The series of one pair of code and method.
#[derive(Debug)]
struct Made {
    code: CodeLabel,
    method: Method,
    requests: Counter,
    durations: Histogram,
    timed_as: (CodeLabel, Method),
}

/// The series for this pair if they exist, else the pair they are to be made for. Once a pair is exact it stays so,
/// and once it shares it does: what was counted never moves.
fn find(
    made: &[Made],
    bounds: Bounds,
    code: CodeLabel,
    method: Method,
) -> Result<&Made, (CodeLabel, Method)> {
    let of = |code, method| made.iter().find(move |made| made.code == code && made.method == method);
    if let Some(found) = of(code, method) {
        return Ok(found);
    }
    if made.len() < bounds.counted {
        return Err((code, method));
    }
    of(code.class(), Method::Other).ok_or_else(|| (code.class(), Method::Other))
}

impl ServiceCounters {
    fn new(
        label: &Arc<str>,
        bounds: Bounds,
        traffic: &Traffic,
        port: Option<connection::PortCounters>,
    ) -> Self {
        let by = |direction| ByDirection { service: Arc::clone(label), direction };
        let inner = ServiceInner {
            label: Arc::clone(label),
            bounds,
            made: RwLock::default(),
            traffic: traffic.clone(),
            port,
            bytes_in: traffic.bytes.get_or_create_owned(&by("in")),
            bytes_out: traffic.bytes.get_or_create_owned(&by("out")),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Bytes of a request's body, as they move.
    pub(crate) fn bytes_in(&self, bytes: u64) {
        self.inner.bytes_in.inc_by(bytes);
    }

    fn by(&self, status: u16, method: Method) -> (Counter, Histogram) {
        let inner = &self.inner;
        let code = CodeLabel::of(status);
        if let Ok(found) = find(&inner.made.read(), inner.bounds, code, method) {
            return (found.requests.clone(), found.durations.clone());
        }
        let mut made = inner.made.write();
        // Another may have made them since.
        let (code, method) = match find(&made, inner.bounds, code, method) {
            Ok(found) => return (found.requests.clone(), found.durations.clone()),
            Err(missing) => missing,
        };
        let timed_as =
            if made.len() < inner.bounds.timed { (code, method) } else { (CodeLabel::OTHER, Method::Other) };
        let by = |(code, method)| ByRequest { code, host: Arc::clone(&inner.label), method };
        let requests = inner.traffic.requests.get_or_create_owned(&by((code, method)));
        let durations = inner.traffic.durations.get_or_create_owned(&by(timed_as));
        made.push(Made { code, method, requests: requests.clone(), durations: durations.clone(), timed_as });
        (requests, durations)
    }
}

/// What the request log says and nothing else needs.
#[derive(Debug)]
struct Text {
    time: SystemTime,
    method: String,
    host: String,
    target: String,
    protocol: &'static str,
    user_agent: Option<String>,
}

impl Text {
    fn of<B>(request: &Request<B>) -> Self {
        let text = |name| {
            request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let host = request.uri().authority().map(ToString::to_string).or_else(|| text(header::HOST));
        Self {
            time: SystemTime::now(),
            method: request.method().to_string(),
            host: host.unwrap_or_default(),
            target: request.uri().path().to_owned(),
            protocol: match request.version() {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            user_agent: text(header::USER_AGENT),
        }
    }
}

/// One flow's story so far. Everything it counts, it counts when dropped, except bytes, which count as they move.
#[derive(Debug)]
pub(crate) struct Record {
    observe: Observe,
    started: Instant,
    method: Method,
    is_http1: bool,
    client: IpAddr,
    guard: Option<GuardHandle>,
    service: Option<Arc<Service>>,
    text: Option<Box<Text>>,
    status: Option<u16>,
    /// Until something else is known, a record that is dropped belongs to a client that went away.
    reason: Reason,
    bytes_in: u64,
    bytes_out: u64,
    wait: Option<Duration>,
    upstream_wait: Option<Duration>,
    lease: Option<(String, Arc<str>)>,
}

impl Record {
    pub(crate) const fn is_http1(&self) -> bool {
        self.is_http1
    }

    /// Whom it is for; while that is not known, the peer stands for it.
    pub(crate) const fn subject(&mut self, subject: &Subject) {
        if let Some(address) = subject.address {
            self.client = address;
        }
    }

    pub(crate) fn routed(&mut self, service: &Arc<Service>) {
        self.service = Some(Arc::clone(service));
    }

    pub(crate) fn service_counters(&self) -> Option<ServiceCounters> {
        self.service.as_ref().map(|service| service.counters.clone())
    }

    /// A connection to the upstream is at hand.
    pub(crate) fn leased(&mut self, lease: &Lease) {
        self.wait = Some(self.started.elapsed());
        if self.text.is_some() {
            self.lease = Some((lease.endpoint.instance.to_string(), Arc::clone(&lease.endpoint.upstream)));
        }
    }

    /// The head of the upstream's response has arrived.
    pub(crate) fn head_received(&mut self) {
        self.upstream_wait = Some(self.started.elapsed());
    }

    /// The client is being answered with the upstream's response.
    pub(crate) const fn answered(&mut self, status: StatusCode) {
        self.status = Some(status.as_u16());
    }

    /// The client is being answered with a refusal.
    pub(crate) fn refused(&mut self, reason: Reason) {
        self.status = Some(reason.status());
        self.reason = reason;
        self.observe.inner.refusals.get_or_create_owned(&ByReason { reason: reason.label() }).inc();
    }

    /// The response is complete.
    pub(crate) const fn completed(&mut self) {
        self.reason = Reason::Done;
    }

    /// The response was cut after it had begun.
    pub(crate) fn cut(&mut self, reason: Reason) {
        self.reason = reason;
        if let Some(guard) = &self.guard {
            guard.cut();
        }
        self.observe.inner.refusals.get_or_create_owned(&ByReason { reason: reason.label() }).inc();
    }

    /// An upgraded connection has ended.
    pub(crate) const fn ended(&mut self, reason: Reason) {
        self.reason = reason;
    }

    /// Bytes of the request's body in all; they were counted as they moved.
    pub(crate) const fn bytes_in(&mut self, bytes: u64) {
        self.bytes_in += bytes;
    }

    /// Counts bytes from the client that no body counted.
    pub(crate) fn count_in(&self, bytes: u64) {
        if let Some(service) = &self.service {
            service.counters.inner.bytes_in.inc_by(bytes);
        }
    }

    /// Bytes towards the client, as they move.
    pub(crate) fn bytes_out(&mut self, bytes: u64) {
        self.bytes_out += bytes;
        let counters =
            self.service.as_ref().map_or(&self.observe.inner.unrouted, |service| &service.counters);
        counters.inner.bytes_out.inc_by(bytes);
    }

    fn log(&self, log: &LineWriter, text: &Text, status: u16, duration: Duration) {
        let service = self.service.as_ref().map(|service| service.name.to_string());
        let line = RequestLine {
            time: text.time,
            identity: Some(ANONYMOUS),
            service: service.as_deref(),
            route: service.as_deref(),
            client: self.client,
            method: &text.method,
            host: &text.host,
            target: &text.target,
            protocol: text.protocol,
            status: Some(status),
            reason: Some(self.reason.label()),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration,
            wait: self.wait,
            upstream_wait: self.upstream_wait,
            agent: self.lease.as_ref().map(|(agent, _)| agent.as_str()),
            upstream: self.lease.as_ref().map(|(_, upstream)| &**upstream),
            user_agent: text.user_agent.as_deref(),
        };
        line.write(log);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let inner = &self.observe.inner;
        inner.flows.dec();
        // A client that went before its answer never saw a status; 499 is what operators know it by.
        let status = self.status.unwrap_or_else(|| Reason::ClientGone.status());
        let duration = self.started.elapsed();
        let counters = self.service.as_ref().map_or(&inner.unrouted, |service| &service.counters);
        let (requests, durations) = counters.by(status, self.method);
        requests.inc();
        // How long a WebSocket stays open is no answer time.
        let answered = self.upstream_wait.filter(|_| status == StatusCode::SWITCHING_PROTOCOLS.as_u16());
        durations.observe(answered.unwrap_or(duration).as_secs_f64());
        if let (Some(log), Some(text)) = (inner.log.now(), &self.text) {
            self.log(&log, text, status, duration);
        }
        if let Some(guard) = &self.guard {
            guard.request_done();
        }
    }
}
