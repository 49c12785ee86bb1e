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
    /// When the log last said why something was not carried.
    told: Mutex<Option<Instant>>,
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

    /// Says in the log why a service cannot be reached, once a second at most.
    async fn tell(&self, session: &Session, reason: Reason) {
        let ServiceName::Named(name) = &self.service else { return };
        let is_due = {
            let mut told = self.told.lock();
            let is_due = told.is_none_or(|at| at.elapsed() > LOG_INTERVAL);
            if is_due {
                *told = Some(Instant::now());
            }
            is_due
        };
        if is_due && let Some(text) = dialing::why(session, name, reason).await {
            tracing::warn!(service = %name, %reason, "a connection was not carried: {text}");
        }
    }

    async fn carry(&self, mut tcp: TcpStream, peer: SocketAddr) {
        let mut open = self.counters.open();
        // The bytes of the client travel right behind the opening.
        open.reason = match dialing::open(&self.board, &self.service, Some(peer)).await {
            Ok((session, stream)) => {
                let reason = relay(stream, &mut tcp, TERMS, &Reversed(&self.counters)).await.reason;
                self.tell(&session, reason).await;
                reason
            }
            Err(reason) => reason,
        };
        if open.reason != Reason::Done {
            tracing::debug!(service = %self.service, reason = %open.reason, "a forwarded connection was cut");
            if let Err(error) = tcp.set_zero_linger() {
                tracing::debug!(%error, "a connection cannot be reset");
            }
        }
    }
}
