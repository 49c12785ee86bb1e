//! The other way round: connections to an address here become streams to where the gateway connects.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::header::StreamHeader;
use adit_proto::names::ServiceName;
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Meter, Terms, relay};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::board::Board;
use crate::config::Forward;
use crate::observe::{Observe, ServiceCounters};

/// Forwarded connections at once; more wait in the kernel.
const MAX_CONNECTIONS: usize = 4096;
/// How long the gateway may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection waits for a session.
const SESSION_WAIT: Duration = Duration::from_secs(5);
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
        let service = ServiceName::Dial(forward.to.clone());
        let counters = observe.service(&service.to_string().into());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { listener, service, counters, board: board.clone(), slots }
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

    async fn carry(&self, mut tcp: TcpStream, peer: SocketAddr) {
        let mut open = self.counters.open();
        open.reason = match self.open(peer).await {
            Ok(stream) => relay(stream, &mut tcp, TERMS, &Reversed(&self.counters)).await.reason,
            Err(reason) => reason,
        };
        if open.reason != Reason::Done {
            tracing::debug!(service = %self.service, reason = %open.reason, "a forwarded connection was cut");
            if let Err(error) = tcp.set_zero_linger() {
                tracing::debug!(%error, "a connection cannot be reset");
            }
        }
    }

    /// A stream in the first session that takes one. The bytes of the client travel right behind.
    async fn open(&self, peer: SocketAddr) -> Result<Stream, Reason> {
        if tokio::time::timeout(SESSION_WAIT, self.board.ready()).await.is_err() {
            return Err(Reason::AgentLost);
        }
        let header = StreamHeader {
            service: self.service.clone(),
            client_addr: Some(peer),
            connect_timeout: CONNECT_TIMEOUT,
        };
        let mut refused = Reason::AgentLost;
        for session in self.board.sessions() {
            match session.open(&header) {
                Ok(stream) => return Ok(stream),
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }
}
