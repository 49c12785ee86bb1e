//! The other way round: streams that agents open, connected to addresses on the gateway's side. Only where an
//! operator has allowed it.

use std::net::SocketAddr;

use adit_control::{DialPermit, Snapshot, authorize_dial};
use adit_proto::header::StreamHeader;
use adit_proto::names::Destination;
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Terms, relay};
use adit_tunnel::session::Stream;
use tokio::net::TcpStream;

use crate::flow::DataPlane;
use crate::http::guard::Abort as _;
use crate::observe::connection::ConnectionRecord;

/// How long a half-open stream may stand still is the client's decision; it is on the agent's side.
const TERMS: Terms = Terms { lost: Reason::UpstreamClosed, patience: None };

/// Whether an agent that asks to have connections made here may be granted it.
///
/// # Errors
/// Nobody has allowed that.
pub(crate) fn grant(snapshot: &Snapshot) -> Result<(), (Reason, String)> {
    if snapshot.rules().client_forwarding {
        return Ok(());
    }
    let text = "this gateway connects nowhere on behalf of agents; start it with --client-forwarding, or \
                leave --local out";
    Err((Reason::ForwardingDenied, text.to_owned()))
}

/// Connects one stream to where it is for, and moves its bytes.
pub(crate) async fn carry(
    stream: Stream,
    to: &Destination,
    header: &StreamHeader,
    mut record: ConnectionRecord,
    plane: &DataPlane,
) {
    let timeout = header.connect_timeout.min(plane.live.limits().connect_timeout);
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
    // Before anybody is asked for addresses.
    grant(&snapshot).map_err(|(reason, _)| reason)?;
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
