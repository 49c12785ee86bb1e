//! Carries one connection of a TCP service from its public port to its upstream: what `flow` is for HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use adit_control::{Subject, authorize};
use adit_proto::proxy_header::{Ends, Version};
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Terms, relay};
use adit_tunnel::session::Stream;
use tokio::net::TcpStream;

use crate::config::TcpServices;
use crate::flow::DataPlane;
use crate::grants::Grant;
use crate::http::guard::Abort as _;
use crate::observe::connection::ConnectionRecord;
use crate::proxied;
use crate::reach::{self, Early, Flow};
use crate::sessions::Service;

pub(crate) mod ports;

/// Silence ends no TCP connection: nobody knows what it means. Keep-alive finds clients that are gone.
const TERMS: Terms = Terms { lost: Reason::ClientGone, patience: None };

/// A client's connection. Unless it ended in order it ends with a reset, so that nobody takes what it received for
/// the whole.
struct Client {
    tcp: TcpStream,
    is_done: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_done {
            self.tcp.abort();
        }
    }
}

/// What is said about clients on the way, before their own first byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// To the upstream.
    proxy_protocol: Option<Version>,
    /// By a balancer in front.
    lb_proxy_protocol: bool,
}

impl Way {
    pub(crate) const fn of(settings: &TcpServices) -> Self {
        let TcpServices { proxy_protocol, lb_proxy_protocol, .. } = *settings;
        Self { proxy_protocol, lb_proxy_protocol }
    }
}

/// The outer half: whatever happens inside, including cancellation, ends in one record.
pub(crate) async fn carry(
    tcp: TcpStream,
    peer: SocketAddr,
    way: Way,
    (service, grant): (&Arc<Service>, Arc<Grant>),
    plane: &Arc<DataPlane>,
) {
    let mut client = Client { tcp, is_done: false };
    let mut record = plane.observe.begin_connection(service, peer);
    record.rests_on(Arc::clone(&grant));
    // On the heap, because it is over soon and the connection may be idle for long.
    let connecting = Box::pin(connect(&mut client.tcp, peer, way, (service, &grant), plane, &mut record));
    let reason = match connecting.await {
        Ok(stream) => relay(stream, &mut client.tcp, TERMS, &record).await.reason,
        Err(reason) => {
            tracing::debug!(%reason, service = %service.name, "refused");
            reason
        }
    };
    client.is_done = reason == Reason::Done;
    record.ended(reason);
}

/// The inner half: the phases in order, up to a stream whose upstream is connected; each needs what the one before it
/// returned.
async fn connect(
    client: &mut TcpStream,
    peer: SocketAddr,
    way: Way,
    (service, grant): (&Arc<Service>, &Grant),
    plane: &DataPlane,
    record: &mut ConnectionRecord,
) -> Result<Stream, Reason> {
    let snapshot = plane.snapshots.current();
    let told = if way.lb_proxy_protocol {
        let timeout = plane.live.limits().header_timeout;
        proxied::ends(client, peer, snapshot.rules(), timeout).await?
    } else {
        None
    };
    let source = told.map_or(peer, |ends| ends.source);
    let subject = Subject::public(Some(source.ip().to_canonical()));
    record.subject(&subject);
    record.counts_for(plane.live.share(source.ip(), snapshot.rules())?);
    let permit = authorize(&snapshot, &subject, &service.name).map_err(|denial| denial.reason)?;
    let flow = Flow { client: source, permit: &permit, subject: &subject, grant };
    let mut early = Early::default();
    if let Some(version) = way.proxy_protocol {
        let here = || client.local_addr().map_err(|_lost| Reason::ClientGone);
        let destination = told.map_or_else(here, |ends| Ok(ends.destination))?;
        Ends { source, destination }.encode(version, &mut early.bytes);
        early.added = early.bytes.len();
    }
    reach::open(client, service, flow, early, plane, record).await
}
