//! Carries one connection of a TCP service from its public port to its upstream: what `flow` is for HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_control::{Subject, authorize};
use adit_proto::header::StreamHeader;
use adit_proto::proxy_header::{Ends, Version};
use adit_proto::reason::{Fault, Reason};
use adit_tunnel::relay::{Terms, relay};
use adit_tunnel::session::Stream;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::balancer::Endpoint;
use crate::config::TcpServices;
use crate::flow::DataPlane;
use crate::http::guard::Abort as _;
use crate::observe::connection::ConnectionRecord;
use crate::proxied;
use crate::sessions::Service;

pub(crate) mod ports;

/// Bytes of a client that may travel before its upstream is connected.
const EARLY: usize = 16 * 1024;
/// What an agent may take beyond its own timeout to say that it has passed.
const MARGIN: Duration = Duration::from_secs(2);
/// Pause before endpoints that took no stream are asked again.
const PAUSE: Duration = Duration::from_millis(20);
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
    service: &Arc<Service>,
    plane: &Arc<DataPlane>,
) {
    let mut client = Client { tcp, is_done: false };
    let mut record = plane.observe.begin_connection(service, peer);
    // On the heap, because it is over soon and the connection may be idle for long.
    let connecting = Box::pin(connect(&mut client.tcp, peer, way, service, plane, &mut record));
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
    service: &Arc<Service>,
    plane: &DataPlane,
    record: &mut ConnectionRecord,
) -> Result<Stream, Reason> {
    let snapshot = plane.snapshots.current();
    let told = if way.lb_proxy_protocol {
        proxied::ends(client, peer, snapshot.rules(), plane.limits.header_timeout).await?
    } else {
        None
    };
    let source = told.map_or(peer, |ends| ends.source);
    let subject = Subject::public(Some(source.ip().to_canonical()));
    record.subject(&subject);
    let permit = authorize(&snapshot, &subject, &service.name).map_err(|denial| denial.reason)?;
    let mut early = Early::default();
    if let Some(version) = way.proxy_protocol {
        let here = || client.local_addr().map_err(|_lost| Reason::ClientGone);
        let destination = told.map_or_else(here, |ends| Ok(ends.destination))?;
        Ends { source, destination }.encode(version, &mut early.bytes);
        early.added = early.bytes.len();
    }
    let header = StreamHeader {
        service: permit.service().clone(),
        client_addr: Some(source),
        connect_timeout: plane.limits.connect_timeout,
    };
    open(client, service, &header, early, plane, record).await
}

/// Opens a stream whose upstream is connected, at one endpoint after another. What the client has sent meanwhile
/// travels behind each opening, and is kept until one has succeeded.
///
/// # Errors
/// Why the last one failed; [`Reason::NoAgent`] when there is none; [`Reason::ClientGone`].
async fn open(
    client: &TcpStream,
    service: &Service,
    header: &StreamHeader,
    mut early: Early,
    plane: &DataPlane,
    record: &mut ConnectionRecord,
) -> Result<Stream, Reason> {
    let limits = &plane.limits;
    let deadline = Instant::now() + limits.agent_wait;
    loop {
        let mut refused = Reason::NoAgent;
        for endpoint in service.endpoints().filter(|endpoint| endpoint.is_open()) {
            let attempt = attempt(client, &endpoint, header, &mut early);
            match tokio::time::timeout(limits.connect_timeout + MARGIN, attempt).await {
                Ok(Ok(stream)) => {
                    record.leased(&endpoint, early.bytes.len() - early.added);
                    return Ok(stream);
                }
                Ok(Err(Reason::ClientGone)) => return Err(Reason::ClientGone),
                Ok(Err(reason)) => refused = reason,
                Err(_elapsed) => refused = Reason::UpstreamTimeout,
            }
        }
        // An upstream that cannot be connected to has been tried everywhere; an agent may come back.
        let is_away = refused.fault() == Fault::Agent;
        if !is_away || !service.wait_for_endpoint(deadline).await || Instant::now() >= deadline {
            return Err(refused);
        }
        if refused != Reason::NoAgent {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What is to reach the upstream first: what is said about the client, and what it sent before its upstream was
/// connected.
#[derive(Default)]
struct Early {
    bytes: Vec<u8>,
    /// So many of them are not the client's.
    added: usize,
    /// Nothing more is read early.
    is_read: bool,
}

/// Opens a stream at one endpoint and waits until its upstream is connected. Until that is so, nothing has reached
/// the upstream.
async fn attempt(
    client: &TcpStream,
    endpoint: &Endpoint,
    header: &StreamHeader,
    early: &mut Early,
) -> Result<Stream, Reason> {
    let mut stream = endpoint.open_stream(header)?;
    let watch = stream.watch();
    if !early.is_read {
        tokio::select! {
            biased;
            () = watch.opened() => {}
            read = read_early(client, &mut early.bytes) => {
                read.map_err(|_lost| Reason::ClientGone)?;
                early.is_read = true;
            }
        }
    }
    if !early.bytes.is_empty() && stream.write_all(&early.bytes).await.is_err() {
        return Err(watch.end().unwrap_or(Reason::AgentLost));
    }
    watch.opened().await;
    if watch.is_opened() { Ok(stream) } else { Err(watch.end().unwrap_or(Reason::AgentLost)) }
}

/// Reads what there is once, without a buffer while there is nothing. The end is left for the relay to find. Cancel
/// safe.
async fn read_early(client: &TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        client.readable().await?;
        bytes.reserve_exact(EARLY);
        match client.try_read_buf(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bytes.shrink_to_fit(),
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}
