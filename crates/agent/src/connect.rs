//! Keeps a session to one gateway: dials for ever, proves who it is, serves, and starts again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use adit_proto::handshake::{Hello, MIN_VERSION, PROOF_LEN, VERSION, capabilities};
use adit_proto::names::InstanceId;
use adit_proto::reason::Reason;
use adit_tunnel::handshake::{Credential, HandshakeError, greet};
use adit_tunnel::identity::LiveIdentity;
use adit_tunnel::reconnect::Backoff;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Session, Side};
use adit_tunnel::transport::DialError;
use adit_tunnel::watchdog::Progress;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::board::{Place, State};
use crate::dial::{self, Dialer, Dialled};
use crate::expose::Exposed;
use crate::lanes;
use crate::observe::GatewayCounters;

/// How long the gateway may take to answer a hello.
const GREET_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent that was refused waits, beside its ordinary pause.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// How long one try may take in all before the loop counts as stuck; far more than its own timeouts.
const TRY: Duration = Duration::from_secs(120);
/// How much longer than announced a pause may take before the loop counts as stuck.
const SLACK: Duration = Duration::from_secs(30);
/// How long a session that was announced to end may carry nothing and stay.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Keeps a session up: what it takes to open one, again and again.
pub(crate) struct Keeper {
    pub(crate) gateway: Arc<Dialer>,
    pub(crate) credential: Credential,
    /// Whose certificate it is, where it is one.
    pub(crate) identity: Option<Arc<LiveIdentity>>,
    pub(crate) instance: InstanceId,
    pub(crate) hostname: String,
    pub(crate) exposed: Arc<Exposed>,
    /// What the gateway has to grant.
    pub(crate) capabilities: u64,
    pub(crate) observe: GatewayCounters,
    pub(crate) place: Place,
    /// Counts the sessions of this process.
    pub(crate) generation: Arc<AtomicU64>,
    /// Told when a session has ended or could not be opened.
    pub(crate) failed: Arc<Notify>,
    /// By when the loop will have got on, for whoever watches it.
    pub(crate) progress: Progress,
    /// The link is wanted. When it is not any more, its session stays until it ends.
    pub(crate) wanted: watch::Receiver<bool>,
    /// Ticks when the clock has jumped.
    pub(crate) awoken: watch::Receiver<()>,
    /// Owner of the sessions, which outlive the loop that opens them.
    pub(crate) sessions: Scope,
    /// Another loop's session stands and is in order; the first one here takes its place.
    pub(crate) succeeds: AtomicBool,
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the gateway did not answer the hello within {} s", GREET_TIMEOUT.as_secs())]
    Silent,
    #[error(
        "the gateway does not forward connections of agents, or serve their dials; it is too old, or another one than \
         was meant"
    )]
    NotGranted,
}

impl ConnectError {
    /// Whether the other end was reached and there is no session to be had from it. One that leaves says no as well,
    /// but whoever takes its place may answer at any moment.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Handshake(HandshakeError::Refused(_)) => !self.is_draining(),
            Self::Handshake(HandshakeError::GatewayUnproved) | Self::NotGranted => true,
            Self::Dial(_) | Self::Handshake(_) | Self::Silent => false,
        }
    }

    fn is_draining(&self) -> bool {
        matches!(self, Self::Handshake(HandshakeError::Refused(refused)) if refused.reason == Reason::Draining)
    }

    /// A word from a closed list, for the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::Dial(error) => dial::label(error),
            Self::Silent => "timeout",
            Self::NotGranted => Reason::ForwardingDenied.label(),
            Self::Handshake(HandshakeError::Refused(refused)) => refused.reason.label(),
            Self::Handshake(HandshakeError::GatewayUnproved) => "gateway_unproved",
            Self::Handshake(_) => "handshake",
        }
    }
}

impl Keeper {
    /// Runs for as long as the link is wanted; ends earlier only with its scope.
    pub(crate) async fn run(&self) {
        let mut wanted = self.wanted.clone();
        let mut backoff = Backoff::new(u64::from_be_bytes(seed(self.instance)));
        // A session that takes no new streams: the next one is opened while it finishes.
        let mut leaving = None;
        while *wanted.borrow_and_update() {
            self.progress.expect_within(TRY);
            let started = Instant::now();
            let mut extra = Duration::ZERO;
            match self.connect().await {
                Ok((session, granted)) => {
                    self.progress.stands();
                    leaving = self.keep(session, granted).await;
                    backoff.stood(started.elapsed());
                    if leaving.is_some() {
                        backoff.forget();
                    }
                }
                Err(error) => {
                    self.report(&error);
                    if self.identity.as_ref().is_some_and(|identity| identity.look_again()) {
                        tracing::info!("the identity's file holds another certificate now, which is taken");
                        backoff.forget();
                    } else if error.is_refusal() {
                        // Asking again soon changes nothing, and a gateway counts wrong tokens against the address
                        // this agent shares with others.
                        extra = REFUSED_PAUSE;
                    }
                }
            }
            self.failed.notify_one();
            let pause = backoff.next_pause() + extra;
            self.progress.expect_within(pause + SLACK);
            let mut awoken = self.awoken.clone();
            awoken.mark_unchanged();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = awoken.changed() => backoff.forget(),
                Ok(()) = wanted.changed() => {}
                () = ended(leaving.as_ref()) => {
                    // Until now its port was most likely still taken.
                    leaving = None;
                    backoff.forget();
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    fn report(&self, error: &ConnectError) {
        self.observe.connect_failed(error.label());
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        tracing::warn!(gateway = %self.gateway, result = error.label(), "cannot open a session: {error}{cause}");
        if error.is_refusal() {
            self.place.set(State::Refused(error.to_string()));
        } else if !error.is_draining() {
            self.place.set(State::Failed(format!("{error}{cause}")));
        }
    }

    /// Opens a session, and says what was granted.
    async fn connect(&self) -> Result<(Session, u64), ConnectError> {
        let Dialled { mut io, exporter, carrier } = self.gateway.dial().await?;
        let succession = if self.succeeds.load(Ordering::Relaxed) { capabilities::SUCCESSION } else { 0 };
        let hello = Hello {
            versions: (MIN_VERSION, VERSION),
            capabilities: self.capabilities
                | capabilities::CANARIES
                | capabilities::NOTICES
                | capabilities::PARTIAL
                | succession,
            instance: self.instance,
            generation: self.generation.fetch_add(1, Ordering::Relaxed) + 1,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.hostname.clone(),
            offers: self.exposed.offers().to_vec(),
            proof: [0; PROOF_LEN],
        };
        let greeting = greet(&mut io, hello.clone(), &self.credential, &exporter);
        let welcome = tokio::time::timeout(GREET_TIMEOUT, greeting)
            .await
            .map_err(|_elapsed| ConnectError::Silent)??;
        let missing = self.capabilities & !welcome.capabilities;
        let has_more = !self.exposed.offers().is_empty() || self.capabilities & capabilities::DIALING != 0;
        if missing & !capabilities::FORWARDING != 0 || (missing != 0 && !has_more) {
            return Err(ConnectError::NotGranted);
        }
        self.succeeds.store(false, Ordering::Relaxed);
        let session = Session::start(io, Side::Agent, &self.sessions);
        if welcome.capabilities & capabilities::LANES != 0 {
            lanes::keep(&session, &self.gateway, &self.credential, hello, &self.sessions);
        }
        for notice in &welcome.notices {
            let (service, reason, message) = (&notice.service, notice.reason, &notice.message);
            let what = match reason {
                Reason::NoListener => "nobody reaches an offer",
                _ => "the gateway does not take an offer",
            };
            tracing::warn!(gateway = %self.gateway, %service, %reason, "{what}: {message}");
        }
        if missing != 0 {
            let reason = Reason::ForwardingDenied;
            tracing::warn!(
                gateway = %self.gateway, %reason,
                "the gateway connects nowhere on behalf of agents: what is forwarded to its side is closed until it is \
                 started with --client-forwarding, or its file says tcp.client_forwarding; everything else works"
            );
        }
        tracing::info!(gateway = %self.gateway, transport = carrier.transport, tls = carrier.tls, release = welcome.release, "session opened");
        Ok((session, welcome.capabilities))
    }

    /// Waits until the session has ended, or takes no new streams: then it is returned, and finishes by itself.
    async fn keep(&self, session: Session, granted: u64) -> Option<Session> {
        self.observe.connected();
        let counted = self.observe.session();
        let missing = self.capabilities & !granted;
        let _connected = self.place.connected(missing & capabilities::FORWARDING == 0);
        let (listed, exposed) = (self.place.session(session.clone(), granted), Arc::clone(&self.exposed));
        let (observe, served) = (self.observe.clone(), session.clone());
        let gateway = Arc::clone(self.place.gateway());
        let listed = Arc::new(listed);
        let sung = {
            let (observe, listed) = (observe.clone(), Arc::downgrade(&listed));
            move || {
                observe.canary();
                if let Some(listed) = listed.upgrade() {
                    listed.canary();
                }
            }
        };
        for worker in 1..self.sessions.workers().count() {
            let (exposed, served, sung) = (Arc::clone(&exposed), session.clone(), sung.clone());
            self.sessions.spawn_on(
                worker,
                "session streams",
                async move { exposed.serve(&served, sung).await },
            );
        }
        self.sessions.spawn("session streams", async move {
            exposed.serve(&served, sung).await;
            let reason = served.closed().await;
            observe.disconnected(reason);
            tracing::warn!(%reason, %gateway, "session ended");
            drop((listed, counted));
        });
        let mut awoken = self.awoken.clone();
        awoken.mark_unchanged();
        let reason = loop {
            tokio::select! {
                reason = session.draining() => break reason,
                // Nobody knows how long ago the other end was there last.
                Ok(()) = awoken.changed() => session.probe(),
            }
        };
        if session.end().is_some() {
            return None;
        }
        tracing::info!(%reason, gateway = %self.gateway, "{}", why_it_leaves(reason));
        self.sessions.spawn("session that leaves", let_go(session.clone()));
        Some(session)
    }
}

/// Why a session takes no new streams any more.
const fn why_it_leaves(reason: Reason) -> &'static str {
    match reason {
        Reason::Replaced => "a newer session has taken the place of this one, which finishes what it carries",
        Reason::Revoked => {
            "the gateway takes this session no more for what it was let in by; it finishes what it may, and another one is \
             asked for"
        }
        _ => "the gateway is leaving; opening another session",
    }
}

/// Waits for the end of a session; for ever if there is none.
async fn ended(session: Option<&Session>) {
    match session {
        Some(session) => drop(session.closed().await),
        None => std::future::pending().await,
    }
}

/// The other end closes a session that it has announced to leave. One that forgets is closed here, when nothing has
/// been carried for long.
async fn let_go(session: Session) {
    let mut unused = 0;
    while unused < 2 {
        tokio::select! {
            _ended = session.closed() => return,
            () = tokio::time::sleep(FORGOTTEN / 2) => {
                unused = if session.streams() == 0 { unused + 1 } else { 0 };
            }
        }
    }
    session.close(Reason::Done);
}

fn seed(instance: InstanceId) -> [u8; 8] {
    let mut seed = [0; 8];
    seed.copy_from_slice(&instance.as_bytes()[..8]);
    seed
}
