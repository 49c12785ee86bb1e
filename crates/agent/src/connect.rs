//! Keeps a session to the gateway: dials for ever, proves who it is, serves, and starts again.

use std::sync::Arc;
use std::time::Duration;

use adit_proto::handshake::{Hello, MIN_VERSION, PROOF_LEN, VERSION};
use adit_proto::names::InstanceId;
use adit_proto::reason::Reason;
use adit_tunnel::handshake::{HandshakeError, greet};
use adit_tunnel::proof::TokenKey;
use adit_tunnel::reconnect::Backoff;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Session, Side};
use adit_tunnel::transport::DialError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::dial::{self, Dialer, Dialled};
use crate::expose::Exposed;
use crate::observe::Observe;

/// How long the gateway may take to answer a hello.
const GREET_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent that was refused waits, beside its ordinary pause.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// How often the round trip gauge is brought up to date.
const RTT_INTERVAL: Duration = Duration::from_secs(1);

/// How the session stands, for whoever waits for it.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Not connected; maybe trying, maybe pausing.
    Connecting,
    /// The gateway said no, in these words. Tried again all the same.
    Refused(String),
    /// A session stands.
    Connected(Session),
}

/// Keeps a session up: what it takes to open one, again and again.
pub(crate) struct Keeper {
    pub(crate) gateway: Dialer,
    pub(crate) key: TokenKey,
    pub(crate) instance: InstanceId,
    pub(crate) hostname: String,
    pub(crate) exposed: Arc<Exposed>,
    pub(crate) observe: Observe,
    pub(crate) state: watch::Sender<State>,
    /// Owner of the sessions, which outlive the loop that opens them by their last words.
    pub(crate) sessions: Scope,
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the gateway did not answer the hello within {} s", GREET_TIMEOUT.as_secs())]
    Silent,
}

impl ConnectError {
    /// Whether the other end was reached and there is no session to be had from it.
    const fn is_refusal(&self) -> bool {
        matches!(self, Self::Handshake(HandshakeError::Refused(_) | HandshakeError::GatewayUnproved))
    }

    /// A word from a closed list, for the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::Dial(error) => dial::label(error),
            Self::Silent => "timeout",
            Self::Handshake(HandshakeError::Refused(refused)) => refused.reason.label(),
            Self::Handshake(HandshakeError::GatewayUnproved) => "gateway_unproved",
            Self::Handshake(_) => "handshake",
        }
    }
}

impl Keeper {
    /// Runs for ever; ends only with its scope.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(u64::from_be_bytes(seed(self.instance)));
        for generation in 1.. {
            let started = Instant::now();
            match self.connect(generation).await {
                Ok(session) => {
                    let reason = self.serve(session).await;
                    backoff.stood(started.elapsed());
                    self.observe.disconnected(reason);
                    tracing::warn!(%reason, gateway = %self.gateway, "session ended; connecting again");
                }
                Err(error) => {
                    self.report(&error);
                    if error.is_refusal() {
                        // Asking again soon changes nothing, and a gateway counts wrong tokens against the address
                        // this agent shares with others.
                        tokio::time::sleep(REFUSED_PAUSE).await;
                    }
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    fn report(&self, error: &ConnectError) {
        self.observe.connect_failed(error.label());
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        tracing::warn!(gateway = %self.gateway, result = error.label(), "cannot open a session: {error}{cause}");
        if error.is_refusal() {
            self.state.send_replace(State::Refused(error.to_string()));
        }
    }

    async fn connect(&self, generation: u64) -> Result<Session, ConnectError> {
        let Dialled { mut io, exporter, carrier } = self.gateway.dial().await?;
        let hello = Hello {
            versions: (MIN_VERSION, VERSION),
            capabilities: 0,
            instance: self.instance,
            generation,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.hostname.clone(),
            offers: self.exposed.offers().to_vec(),
            proof: [0; PROOF_LEN],
        };
        let greeting = greet(&mut io, hello, &self.key, &exporter);
        let welcome = tokio::time::timeout(GREET_TIMEOUT, greeting)
            .await
            .map_err(|_elapsed| ConnectError::Silent)??;
        let session = Session::start(io, Side::Agent, &self.sessions);
        tracing::info!(gateway = %self.gateway, transport = carrier.transport, tls = carrier.tls, release = welcome.release, "session opened");
        Ok(session)
    }

    async fn serve(&self, session: Session) -> Reason {
        self.observe.connected();
        self.state.send_replace(State::Connected(session.clone()));
        // However this ends, also by cancellation, nobody is told any longer that a session stands.
        let _disconnected = Disconnected(&self.state);
        let mut tick = tokio::time::interval(RTT_INTERVAL);
        loop {
            tokio::select! {
                () = self.exposed.serve(&session) => return session.closed().await,
                _ = tick.tick() => if let Some(rtt) = session.rtt() {
                    self.observe.round_trip(rtt);
                },
            }
        }
    }
}

struct Disconnected<'a>(&'a watch::Sender<State>);

impl Drop for Disconnected<'_> {
    fn drop(&mut self) {
        self.0.send_replace(State::Connecting);
    }
}

fn seed(instance: InstanceId) -> [u8; 8] {
    let mut seed = [0; 8];
    seed.copy_from_slice(&instance.as_bytes()[..8]);
    seed
}
