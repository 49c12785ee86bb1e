//! The other way round: connections to an address here become streams to where the gateway connects.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::names::ServiceName;
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Meter, Terms, relay};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::Session;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::board::Board;
use crate::config::Forward;
use crate::dialing;
use crate::observe::{Observe, ServiceCounters};

/// Forwarded connections at once; more wait in the kernel.
const MAX_CONNECTIONS: usize = 4096;
/// How often the log says why something was not carried.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client that is told by a close may take to notice, and how much of what it sends meanwhile is read away:
/// a close in front of unread bytes would be a reset.
const GOODBYE: (Duration, u64) = (Duration::from_secs(1), 64 * 1024);
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);
/// Silence ends no connection, as it ends none that comes the other way.
const TERMS: Terms = Terms { lost: Reason::ClientGone, patience: None };

/// A bound address and where its connections lead.
pub(crate) struct Forwarder {
    listener: Arc<TcpListener>,
    service: ServiceName,
    counters: ServiceCounters,
    board: Board,
    slots: Arc<Semaphore>,
    /// When the log last said why something was not carried, and how often it was not said since.
    told: Mutex<(Option<Instant>, u64)>,
}

/// Counts as for every other service: `in` is what goes to the far end.
struct Reversed<'a>(&'a ServiceCounters);

impl Meter for Reversed<'_> {
    fn sent(&self, bytes: u64) {
        self.0.received(bytes);
    }

    fn received(&self, bytes: u64) {
        self.0.sent(bytes);
    }
}

impl Forwarder {
    /// Binds an address.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) async fn bind(addr: SocketAddr) -> io::Result<Arc<TcpListener>> {
        let listener = TcpListener::bind(addr).await?;
        adit_tunnel::socket::keep_alive(&listener)?;
        tracing::info!(addr = %listener.local_addr()?, purpose = "forward", "listening");
        Ok(Arc::new(listener))
    }

    /// What leads from a bound address to where the gateway connects.
    pub(crate) fn new(
        listener: Arc<TcpListener>,
        forward: &Forward,
        observe: &Observe,
        board: &Board,
    ) -> Self {
        let service = ServiceName::from(forward.to.clone());
        let counters = observe.service(&service.to_string().into());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { listener, service, counters, board: board.clone(), slots, told: Mutex::default() }
    }

    /// Forwards for ever; connections run in `streams`.
    pub(crate) async fn run(self, streams: Scope) {
        let this = Arc::new(self);
        loop {
            let Ok(slot) = Arc::clone(&this.slots).acquire_owned().await else { return };
            let accepted = this.listener.accept().await;
            let Ok((tcp, peer)) =
                accepted.and_then(|(tcp, peer)| tcp.set_nodelay(true).map(|()| (tcp, peer)))
            else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let forwarder = Arc::clone(&this);
            streams.spawn("forwarded connection", async move {
                forwarder.carry(tcp, peer).await;
                drop(slot);
            });
        }
    }

    /// Says in the log why a connection was not carried to its end, once a second at most.
    async fn tell(&self, session: Option<&Session>, reason: Reason) {
        if matches!(reason, Reason::Done | Reason::ClientGone) {
            return;
        }
        let suppressed = {
            let mut told = self.told.lock();
            if told.0.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
                told.1 += 1;
                return;
            }
            told.0 = Some(Instant::now());
            std::mem::take(&mut told.1)
        };
        let text = match (&self.service, session) {
            (ServiceName::Named(name), Some(session)) => dialing::why(session, name, reason).await,
            _ => None,
        };
        let text = match (&text, reason) {
            (Some(text), _) => text,
            (None, Reason::AgentLost) => "there is no session to a gateway, or it ended",
            (None, reason) => reason.explanation(),
        };
        tracing::warn!(service = %self.service, %reason, suppressed = (suppressed > 0).then_some(suppressed), "a connection was not carried to its end: {text}");
    }

    async fn carry(&self, mut tcp: TcpStream, peer: SocketAddr) {
        let mut open = self.counters.open();
        // The bytes of the client travel right behind the opening.
        let (session, reason) = match dialing::open(&self.board, &self.service, Some(peer)).await {
            Ok((session, stream)) => {
                let outcome = relay(stream, &mut tcp, TERMS, &Reversed(&self.counters)).await;
                (Some(session), outcome.reason)
            }
            Err(reason) => (None, reason),
        };
        open.reason = reason;
        match reason {
            Reason::Done => {}
            // Nothing has been carried, and nothing will be: the client is told by an ordinary end.
            Reason::ForwardingDenied | Reason::NotPermitted => say_goodbye(&mut tcp).await,
            _ => {
                if let Err(error) = tcp.set_zero_linger() {
                    tracing::debug!(%error, "a connection cannot be reset");
                }
            }
        }
        // Nobody waits for what the log says.
        drop(tcp);
        self.tell(session.as_ref(), reason).await;
    }
}

/// Closes a connection on which nothing was said, so that its client finds the end and no reset.
async fn say_goodbye(tcp: &mut TcpStream) {
    let (patience, most) = GOODBYE;
    let goodbye = async {
        tcp.shutdown().await?;
        tcp.take(most).read_to_end(&mut Vec::new()).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(patience, goodbye).await {
        tracing::debug!(%error, "a client has not waited for the end");
    }
}
