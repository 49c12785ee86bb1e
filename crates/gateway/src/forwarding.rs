//! The other way round: streams that agents open, connected to addresses on the gateway's side. Only where an
//! operator has allowed it.

use std::net::SocketAddr;
use std::sync::Arc;

use adit_control::{DialPermit, authorize_dial};
use adit_proto::handshake::{Hello, capabilities};
use adit_proto::header::StreamHeader;
use adit_proto::names::{Destination, ServiceName};
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Terms, relay};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::Stream;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::flow::DataPlane;
use crate::http::guard::Abort as _;
use crate::observe::connection::ConnectionRecord;
use crate::sessions::AgentSession;

/// How long a half-open stream may stand still is the client's decision; it is on the agent's side.
const TERMS: Terms = Terms { lost: Reason::UpstreamClosed, patience: None };

/// What forwarding needs.
#[derive(Debug)]
pub(crate) struct Forwarding {
    pub(crate) plane: Arc<DataPlane>,
    /// Connections at once; those of public listeners count as well.
    pub(crate) slots: Arc<Semaphore>,
}

impl Forwarding {
    /// The capabilities that an agent is granted.
    ///
    /// # Errors
    /// It asks to have connections made here, and nobody has allowed that.
    pub(crate) fn grant(&self, hello: &Hello) -> Result<u64, (Reason, String)> {
        if hello.offers.iter().any(|offer| matches!(offer.service, ServiceName::Dial(_))) {
            return Err((Reason::BadRequest, "the agent offers what nobody can be offered".to_owned()));
        }
        let asked = hello.capabilities & capabilities::FORWARDING;
        if asked == 0 || self.plane.snapshots.current().rules().client_forwarding {
            return Ok(asked);
        }
        let text = "this gateway connects nowhere on behalf of agents; start it with --client-forwarding, or \
                    leave --local out";
        Err((Reason::ForwardingDenied, text.to_owned()))
    }

    /// Connects what this agent asks for, until its session ends.
    pub(crate) fn serve(&self, agent: &Arc<AgentSession>, scope: &Scope) {
        agent.session.take_opens();
        // One on each worker, because a worker takes the streams of its own lanes.
        for worker in 0..scope.workers().count() {
            let (plane, slots) = (Arc::clone(&self.plane), Arc::clone(&self.slots));
            let (session, remote, instance) = (agent.session.clone(), agent.remote, agent.instance);
            scope.spawn_on(worker, "forwarding", async move {
                while let Some((header, stream)) = session.accept().await {
                    let ServiceName::Dial(to) = &header.service else {
                        stream.reset(Reason::NotOffered);
                        continue;
                    };
                    let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                        stream.reset(Reason::Overloaded);
                        continue;
                    };
                    let record =
                        plane.observe.begin_forwarded(to, instance, header.client_addr.unwrap_or(remote));
                    let (to, plane) = (to.clone(), Arc::clone(&plane));
                    let scope = plane.scope.clone();
                    scope.spawn("forwarded connection", async move {
                        carry(stream, &to, &header, record, &plane).await;
                        drop(slot);
                    });
                }
            });
        }
    }
}

async fn carry(
    stream: Stream,
    to: &Destination,
    header: &StreamHeader,
    mut record: ConnectionRecord,
    plane: &DataPlane,
) {
    let timeout = header.connect_timeout.min(plane.limits.connect_timeout);
    let connected = tokio::time::timeout(timeout, Box::pin(connect(to, plane))).await;
    let reason = match connected.unwrap_or(Err(Reason::UpstreamTimeout)) {
        Ok(mut tcp) => {
            stream.confirm();
            let outcome = relay(stream, &mut tcp, TERMS, &record.reversed()).await;
            if outcome.reason != Reason::Done {
                tcp.abort();
            }
            outcome.reason
        }
        Err(reason) => {
            tracing::debug!(%to, %reason, "cannot connect for an agent");
            stream.reset(reason);
            reason
        }
    };
    record.ended(reason);
}

/// Connects to the first address that is allowed and answers.
async fn connect(to: &Destination, plane: &DataPlane) -> Result<TcpStream, Reason> {
    let snapshot = plane.snapshots.current();
    let host = to.host.as_str();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let addresses = tokio::net::lookup_host((bare, to.port)).await;
    let addresses = addresses.map_err(|_unknown| Reason::UpstreamUnreachable)?;
    let mut refused = Reason::UpstreamUnreachable;
    for address in addresses {
        match authorize_dial(&snapshot, address) {
            Ok(permit) => match dial(permit).await {
                Ok(tcp) => return Ok(tcp),
                Err(reason) => refused = reason,
            },
            Err(denial) => refused = denial.reason,
        }
    }
    Err(refused)
}

async fn dial(permit: DialPermit) -> Result<TcpStream, Reason> {
    let address: SocketAddr = permit.address();
    let connected = async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        adit_tunnel::socket::keep_alive(&tcp)?;
        Ok(tcp)
    };
    connected.await.map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => {
            Reason::UpstreamRefused
        }
        std::io::ErrorKind::TimedOut => Reason::UpstreamTimeout,
        _ => Reason::UpstreamUnreachable,
    })
}
