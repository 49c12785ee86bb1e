//! Composition: keeps a session to the gateway, serves its streams, and drains.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::names::InstanceId;
use adit_proto::reason::Reason;
use adit_tunnel::scope::Scope;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::Config;
use crate::connect::{Keeper, State};
use crate::dial::Dialer;
use crate::expose::Exposed;
use crate::observe::Observe;

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its own metrics listener could not be bound.
    #[error("cannot listen on {addr} (the agent's own metrics)")]
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
    fn setup(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Setup { what: what.into(), source: Box::new(source) }
    }
}

/// A running agent. Dropping it aborts everything it carries; [`Agent::drain`] is the polite way.
#[derive(Debug)]
pub struct Agent {
    instance: InstanceId,
    listen_addr: Option<SocketAddr>,
    state: watch::Receiver<State>,
    /// The session loop and the metrics listener.
    scope: Scope,
    /// The session's driver.
    sessions: Scope,
    /// Streams.
    streams: Scope,
    drain_timeout: Duration,
    _abort: [DropGuard; 3],
}

impl Agent {
    /// Starts the agent. It connects in the background and for ever; use [`Agent::connected`] to wait for it.
    ///
    /// # Errors
    /// [`StartError`] when something it was told to use cannot be used.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (scope, sessions, streams) = (Scope::new(), Scope::new(), Scope::new());
        let observe = Observe::new(config.process_log, config.revision);
        let exposed = Exposed::prepare(&config.services, &observe, streams.clone())
            .map_err(|(what, source)| StartError::setup(what, source))?;
        let gateway = Dialer::new(config.gateway, &config.verify, &config.egress, observe.clone())
            .map_err(|source| StartError::setup("cannot set up TLS towards the gateway", source))?;
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|source| StartError::setup("the system has no random numbers", source))?;
        let instance = InstanceId::from_bytes(random);
        let (sender, state) = watch::channel(State::Connecting);

        let listen_addr = match config.listen {
            None => None,
            Some(addr) => {
                let bind = |source| StartError::Bind { addr, source };
                let listener = TcpListener::bind(addr).await.map_err(bind)?;
                let bound = listener.local_addr().map_err(bind)?;
                scope.spawn(
                    "metrics listener",
                    serve_metrics(listener, observe.clone(), state.clone(), scope.clone()),
                );
                Some(bound)
            }
        };
        let keeper = Keeper {
            gateway,
            key: config.token,
            instance,
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            exposed: Arc::new(exposed),
            observe,
            state: sender,
            sessions: sessions.clone(),
        };
        scope.spawn("session loop", keeper.run());
        Ok(Self {
            instance,
            listen_addr,
            state,
            _abort: [&scope, &sessions, &streams].map(Scope::cancel_on_drop),
            scope,
            sessions,
            streams,
            drain_timeout: config.drain_timeout,
        })
    }

    /// Which process this is, as `clientID` in the gateway's status.
    #[must_use]
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Where its own `/metrics` listens, when asked to.
    #[must_use]
    pub const fn listen_addr(&self) -> Option<SocketAddr> {
        self.listen_addr
    }

    /// Waits until a session stands. Cancel safe.
    pub async fn connected(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| matches!(state, State::Connected(_))).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until the gateway has refused this agent for a reason that trying again will not mend soon, and
    /// returns the refusal's text. The agent keeps trying all the same. Cancel safe.
    pub async fn refused(&self) -> String {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, State::Refused(_))).await.as_deref() {
            Ok(State::Refused(text)) => text.clone(),
            _ => std::future::pending().await,
        }
    }

    /// Tells the gateway, takes no new streams, lets open ones finish within the configured time, then ends the
    /// rest. Returns how many streams had to be cut.
    pub async fn drain(self) -> usize {
        let session = match &*self.state.borrow() {
            State::Connected(session) => Some(session.clone()),
            State::Connecting | State::Refused(_) => None,
        };
        let deadline = Instant::now() + self.drain_timeout;
        if let Some(session) = &session {
            drop(tokio::time::timeout_at(deadline, session.drain(Reason::AgentDraining)).await);
        }
        // Relays end right behind their streams; what is left at the deadline has had its time.
        let cut = self.streams.drain(deadline.saturating_duration_since(Instant::now())).await;
        // First nobody opens another session, then the last one says goodbye.
        self.scope.drain(Duration::ZERO).await;
        if let Some(session) = &session {
            session.close(Reason::AgentDraining);
        }
        self.sessions.drain(Duration::from_secs(1)).await;
        cut
    }
}

#[expect(clippy::infinite_loop, reason = "ends with its scope")]
async fn serve_metrics(listener: TcpListener, observe: Observe, state: watch::Receiver<State>, scope: Scope) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            // Out of file descriptors, most likely; accepting again at once would only spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (observe, state) = (observe.clone(), state.clone());
        scope.spawn("metrics connection", async move {
            let service = service_fn(|request| {
                let response = answer(&request, &observe, &state);
                async move { Ok::<_, Infallible>(response) }
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

fn answer<B>(
    request: &Request<B>,
    observe: &Observe,
    state: &watch::Receiver<State>,
) -> Response<Full<Bytes>> {
    let connected = matches!(*state.borrow(), State::Connected(_));
    let (status, content_type, body) = match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
            let rendered = observe.metrics.render(accept);
            (StatusCode::OK, rendered.content_type, rendered.body)
        }
        "/healthz" => (StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
        "/ready" if connected => (StatusCode::OK, "text/plain; charset=utf-8", "ready\n".to_owned()),
        "/ready" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain; charset=utf-8",
            "not ready: no session to the gateway\n".to_owned(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "not found; there are /metrics, /healthz and /ready\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
