//! Composition: keeps a session to the gateway, serves its streams, and drains.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::name::Name;
use adit_proto::names::InstanceId;
use adit_proto::reason::Reason;
use adit_telemetry::reloads::{Answer, Reloads};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::Stream;
use adit_tunnel::workers::Workers;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::Config;
use crate::board::Board;
use crate::clock;
use crate::dialing::{self, Refused};
use crate::observe::Observe;
use crate::running::{Lasting, Running};

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener of its own could not be bound: its metrics, or what it forwards.
    #[error("cannot listen on {addr}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Something it was told to use cannot be used.
    #[error("{what}")]
    Setup {
        /// What was tried, on which file.
        what: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    pub(crate) fn setup(
        what: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Setup { what: what.into(), source: Box::new(source) }
    }
}

/// A running agent. Dropping it aborts everything it carries; [`Agent::drain`] is the polite way.
#[derive(Debug)]
pub struct Agent {
    instance: InstanceId,
    /// Where its own metrics are.
    metrics: parking_lot::Mutex<Option<MetricsListener>>,
    board: Board,
    gateways: usize,
    lasting: Lasting,
    /// One reload at a time.
    running: Mutex<Running>,
    /// The metrics listener.
    scope: Scope,
    /// The loops that keep sessions.
    keeping: Scope,
    /// The sessions' drivers, and what accepts their streams.
    sessions: Scope,
    /// Streams.
    streams: Scope,
    drain_timeout: parking_lot::Mutex<Duration>,
    _abort: [DropGuard; 4],
}

impl Agent {
    /// Starts the agent. It connects in the background and for ever; use [`Agent::connected`] to wait for it.
    ///
    /// # Errors
    /// [`StartError`] when something it was told to use cannot be used.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_over(config, &Workers::default()).await
    }

    /// As [`Agent::start`]; a session's lanes are spread over these workers.
    ///
    /// # Errors
    /// As there.
    pub async fn start_over(config: Config, workers: &Workers) -> Result<Self, StartError> {
        let (scope, sessions, streams) = (Scope::new(), Scope::over(workers), Scope::over(workers));
        let observe = Observe::new(config.process_log.clone(), config.revision, workers);
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|source| StartError::setup("the system has no random numbers", source))?;
        let instance = InstanceId::from_bytes(random);
        let board = Board::default();

        let metrics = match config.listen {
            None => None,
            Some(addr) => Some(BoundMetrics::bind(addr).await?.serve(observe.clone(), board.clone(), &scope)),
        };
        let awoken = watch::Sender::new(());
        let keeping = Scope::new();
        let (gateways, drain_timeout) = (config.gateways.len(), config.drain_timeout);
        let lasting = Lasting {
            instance,
            observe: observe.clone(),
            board: board.clone(),
            awoken: awoken.subscribe(),
            generation: Arc::default(),
            keeping: keeping.clone(),
            sessions: sessions.clone(),
            streams: streams.clone(),
        };
        let running = Running::start(config, &lasting).await?;
        keeping.spawn("clock", clock::watch(awoken, observe));
        Ok(Self {
            instance,
            metrics: parking_lot::Mutex::new(metrics),
            board,
            gateways,
            lasting,
            running: Mutex::new(running),
            _abort: [&scope, &keeping, &sessions, &streams].map(Scope::cancel_on_drop),
            scope,
            keeping,
            sessions,
            streams,
            drain_timeout: parking_lot::Mutex::new(drain_timeout),
        })
    }

    /// Puts another configuration in the place of the one in force: gateways, token, services, what is forwarded, where
    /// the metrics are and how long a drain may take. Streams go on, and what is new takes the new way once a new
    /// session stands. Not cancel safe.
    ///
    /// # Errors
    /// [`StartError`], and nothing has changed.
    pub async fn reload(&self, config: Config) -> Result<(), StartError> {
        let mut running = self.running.lock().await;
        let standing = self.metrics.lock().as_ref().map(|metrics| metrics.configured);
        let bound = match config.listen {
            Some(addr) if standing != Some(addr) => Some(BoundMetrics::bind(addr).await?),
            _ => None,
        };
        let (listen, drain_timeout) = (config.listen, config.drain_timeout);
        running.replace(config, &self.lasting).await?;
        *self.drain_timeout.lock() = drain_timeout;
        if standing != listen {
            let Lasting { observe, board, .. } = &self.lasting;
            let served = bound.map(|bound| {
                tracing::info!(addr = %bound.addr, purpose = "metrics", "listening");
                bound.serve(observe.clone(), board.clone(), &self.scope)
            });
            // The one before stops listening as it is dropped; whoever it answers hears the rest.
            *self.metrics.lock() = served;
        }
        Ok(())
    }

    /// To be told of every configuration that is read.
    #[must_use]
    pub const fn reloads(&self) -> &Reloads {
        &self.lasting.observe.config
    }

    /// Which process this is, as `clientID` in the gateway's status.
    #[must_use]
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Where its own `/metrics` listens, when asked to.
    #[must_use]
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.metrics.lock().as_ref().map(|metrics| metrics.addr)
    }

    /// Waits until a session stands, with whichever gateway. Cancel safe.
    pub async fn connected(&self) {
        self.board.ready().await;
    }

    /// Waits until a gateway has refused this agent for a reason that trying again will not mend soon, and
    /// returns the refusal's text. The agent keeps trying all the same. Cancel safe.
    pub async fn refused(&self) -> String {
        let (gateway, text) = self.board.refused().await;
        if self.gateways > 1 { format!("{gateway}: {text}") } else { text }
    }

    /// Waits until a try to reach each gateway has come to nothing, and tells why. They are tried again all the same.
    /// Cancel safe.
    pub async fn failed(&self) -> String {
        let failures = self.board.failed().await;
        let lines: Vec<String> = failures.iter().map(|(gateway, why)| format!("{gateway}: {why}")).collect();
        lines.join("; ")
    }

    /// Dials a service by its name, through whichever gateway the agent has a session with, and waits until whoever
    /// offers it has connected. Only for an agent that was told to dial. Cancel safe.
    ///
    /// # Errors
    /// Why there is no connection, in the gateway's words where they are meant for this agent.
    pub async fn dial(&self, service: &Name) -> Result<Stream, Refused> {
        dialing::dial(&self.board, service).await
    }

    /// Tells the gateways, takes no new streams, lets open ones finish within the configured time, then ends the
    /// rest. Returns how many streams had to be cut.
    pub async fn drain(self) -> usize {
        let deadline = Instant::now() + *self.drain_timeout.lock();
        for session in self.board.sessions() {
            session.announce(Reason::AgentDraining);
        }
        // From here on nobody opens another session.
        self.keeping.drain(Duration::ZERO).await;
        let sessions = self.board.sessions();
        let drains = FuturesUnordered::new();
        for session in &sessions {
            drains.push(session.drain(Reason::AgentDraining));
        }
        drop(tokio::time::timeout_at(deadline, drains.collect::<()>()).await);
        // Relays end right behind their streams; what is left at the deadline has had its time.
        let cut = self.streams.drain(deadline.saturating_duration_since(Instant::now())).await;
        for session in &sessions {
            session.close(Reason::AgentDraining);
        }
        self.sessions.drain(Duration::from_secs(1)).await;
        self.scope.drain(Duration::ZERO).await;
        cut
    }
}

/// The metrics listener before it answers.
struct BoundMetrics {
    configured: SocketAddr,
    addr: SocketAddr,
    listener: TcpListener,
}

/// The metrics listener, for as long as this is kept.
#[derive(Debug)]
struct MetricsListener {
    configured: SocketAddr,
    addr: SocketAddr,
    _accepting: DropGuard,
}

impl BoundMetrics {
    async fn bind(configured: SocketAddr) -> Result<Self, StartError> {
        let failed = |source| StartError::Bind { addr: configured, source };
        let listener = TcpListener::bind(configured).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { configured, addr, listener })
    }

    /// Answers; what it answers belongs to `scope`.
    fn serve(self, observe: Observe, board: Board, scope: &Scope) -> MetricsListener {
        let Self { configured, addr, listener } = self;
        let accepting = scope.child();
        accepting.spawn("metrics listener", serve_metrics(listener, observe, board, scope.clone()));
        MetricsListener { configured, addr, _accepting: accepting.cancel_on_drop() }
    }
}

#[expect(clippy::infinite_loop, reason = "ends with its scope")]
async fn serve_metrics(listener: TcpListener, observe: Observe, board: Board, scope: Scope) {
    loop {
        let Ok((tcp, peer)) = listener.accept().await else {
            // Out of file descriptors, most likely; accepting again at once would only spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (observe, board) = (observe.clone(), board.clone());
        scope.spawn("metrics connection", async move {
            let service = service_fn(async |request: Request<Incoming>| {
                let response = if request.uri().path() == RELOAD {
                    reload(request.method(), peer, &observe.config).await
                } else {
                    answer(&request, &observe, &board)
                };
                Ok::<_, Infallible>(response)
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(tcp), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a metrics connection ended early");
            }
        });
    }
}

/// Where a reload is asked for, as with Prometheus.
const RELOAD: &str = "/-/reload";

/// Has the configuration file read again. Only for whoever is on this machine: the listener asks for no credentials.
async fn reload(method: &Method, peer: SocketAddr, reloads: &Reloads) -> Response<Full<Bytes>> {
    if !peer.ip().to_canonical().is_loopback() {
        return text(StatusCode::FORBIDDEN, "a reload is asked for from this machine only\n".to_owned());
    }
    if method != Method::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "ask for a reload with POST\n".to_owned());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    match reloads.ask().await {
        Answer::Taken(waiting) if waiting.is_empty() => text(StatusCode::OK, "reloaded\n".to_owned()),
        Answer::Taken(waiting) => {
            let keys = waiting.join(", ");
            text(StatusCode::OK, format!("reloaded; these take effect only after a restart: {keys}\n"))
        }
        Answer::Refused(what) => text(StatusCode::UNPROCESSABLE_ENTITY, format!("not reloaded: {what}\n")),
        Answer::NoFile => {
            let what = "there is no file to read again: this agent was started from flags\n";
            text(StatusCode::CONFLICT, what.to_owned())
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}

fn answer<B>(request: &Request<B>, observe: &Observe, board: &Board) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match request.uri().path() {
        "/metrics" => {
            board.measure(observe);
            let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
            let rendered = observe.metrics.render(accept);
            (StatusCode::OK, rendered.content_type, rendered.body)
        }
        "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/ready" if board.is_ready() => (StatusCode::OK, TEXT, format!("ready\n{}", board.text())),
        "/ready" => {
            let text = format!("not ready: no session to the gateway\n{}", board.text());
            (StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
        }
        _ => (
            StatusCode::NOT_FOUND,
            TEXT,
            "not found; there are /metrics, /healthz, /ready and /-/reload\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
