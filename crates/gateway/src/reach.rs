//! Opens a stream whose upstream is connected, for a connection of a TCP service or a dial: at one endpoint after
//! another, with what the client says meanwhile right behind each opening.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use adit_control::{Permit, Subject};
use adit_proto::reason::{Fault, Reason};
use adit_tunnel::session::Stream;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::balancer::{Endpoint, Errand};
use crate::flow::DataPlane;
use crate::grants::Grant;
use crate::observe::connection::ConnectionRecord;
use crate::sessions::Service;

/// Bytes of a client that may travel before its upstream is connected.
const EARLY: usize = 16 * 1024;
/// What an agent may take beyond its own timeout to say that it has passed.
const MARGIN: Duration = Duration::from_secs(2);
/// Pause before endpoints that took no stream are asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// What a flow rests on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow<'a> {
    /// Who connected, for the agent's log.
    pub(crate) client: SocketAddr,
    pub(crate) permit: &'a Permit,
    pub(crate) subject: &'a Subject,
    pub(crate) grant: &'a Grant,
}

/// What is to reach the upstream first: what is said about the client, and what it sent before its upstream was
/// connected.
#[derive(Default)]
pub(crate) struct Early {
    pub(crate) bytes: Vec<u8>,
    /// So many of them are not the client's.
    pub(crate) added: usize,
    /// Nothing more is read early.
    is_read: bool,
}

/// Whoever waits for an upstream.
pub(crate) trait Caller: Send {
    /// Reads what there is once, without a buffer while there is nothing. The end is left for the relay to find. Cancel
    /// safe.
    fn read_early(&mut self, bytes: &mut Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits until it is certain that nobody waits any longer: a reset, or the end of the session. One who has only said
    /// all there is to say may well wait for an answer. Cancel safe.
    fn gone(&self) -> impl Future<Output = ()> + Send;
}

impl Caller for TcpStream {
    async fn read_early(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        loop {
            self.readable().await?;
            bytes.reserve_exact(EARLY);
            // Unlike `try_read` this notes that there is no more, so that the relay need not find out.
            match poll_fn(|cx| Poll::Ready(poll_read_buf(Pin::new(&mut *self), cx, bytes))).await {
                Poll::Ready(read) => return read.map(drop),
                Poll::Pending => bytes.shrink_to_fit(),
            }
        }
    }

    async fn gone(&self) {
        // The system tells of an error when the connection was reset, and never for an end.
        while !self.ready(Interest::ERROR).await.is_ok_and(|ready| ready.is_error()) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Caller for Stream {
    async fn read_early(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if let Some(chunk) = self.read_chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    }

    async fn gone(&self) {
        Self::gone(self).await;
    }
}

/// Opens a stream whose upstream is connected, at one endpoint after another. What the client has sent meanwhile
/// travels behind each opening, and is kept until one has succeeded.
///
/// # Errors
/// Why the last one failed; [`Reason::NoAgent`] when there is none; [`Reason::ClientGone`]; [`Reason::Revoked`].
pub(crate) async fn open(
    caller: &mut impl Caller,
    service: &Service,
    flow: Flow<'_>,
    mut early: Early,
    plane: &DataPlane,
    record: &mut ConnectionRecord,
) -> Result<Stream, Reason> {
    debug_assert_eq!(flow.permit.service(), &service.name, "a permit is for one service");
    let limits = plane.live.limits().clone();
    let limits = &*limits;
    let errand =
        Errand { grant: flow.grant, client: Some(flow.client), connect_timeout: limits.connect_timeout };
    let deadline = Instant::now() + limits.agent_wait;
    loop {
        let mut refused = Reason::NoAgent;
        for endpoint in service.endpoints().filter(|endpoint| endpoint.is_open()) {
            record.tried(&endpoint);
            let attempt = attempt(caller, &endpoint, &errand, &mut early);
            match tokio::time::timeout(limits.connect_timeout + MARGIN, attempt).await {
                Ok(Ok(stream)) => {
                    plane.still_permitted(flow.permit, flow.subject, flow.grant)?;
                    record.leased(&endpoint, early.bytes.len() - early.added);
                    return Ok(stream);
                }
                Ok(Err(Reason::ClientGone)) => return Err(Reason::ClientGone),
                Ok(Err(reason)) => refused = reason,
                Err(_elapsed) => refused = Reason::UpstreamTimeout,
            }
            plane.still_permitted(flow.permit, flow.subject, flow.grant)?;
        }
        // An upstream that cannot be connected to has been tried everywhere; an agent may come back.
        let is_away = refused.fault() == Fault::Agent;
        let is_back = async { is_away && service.wait_for_endpoint(deadline).await };
        let is_back = tokio::select! {
            is_back = is_back => is_back,
            () = caller.gone() => return Err(Reason::ClientGone),
        };
        if !is_back || Instant::now() >= deadline {
            plane.still_permitted(flow.permit, flow.subject, flow.grant)?;
            return Err(refused);
        }
        if refused != Reason::NoAgent {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Opens a stream at one endpoint and waits until its upstream is connected. Until that is so, nothing has reached
/// the upstream.
async fn attempt(
    caller: &mut impl Caller,
    endpoint: &Endpoint,
    errand: &Errand<'_>,
    early: &mut Early,
) -> Result<Stream, Reason> {
    let mut stream = endpoint.open_stream(errand)?;
    let watch = stream.watch();
    if !early.is_read {
        tokio::select! {
            biased;
            () = watch.opened() => {}
            read = caller.read_early(&mut early.bytes) => {
                read.map_err(|_lost| Reason::ClientGone)?;
                early.is_read = true;
            }
        }
    }
    if !early.bytes.is_empty() && stream.write_all(&early.bytes).await.is_err() {
        return Err(watch.end().unwrap_or(Reason::AgentLost));
    }
    tokio::select! {
        biased;
        () = watch.opened() => {}
        // Its place is for somebody who waits; the agent hears of it when the stream is dropped.
        () = caller.gone() => return Err(Reason::ClientGone),
    }
    if watch.is_opened() { Ok(stream) } else { Err(watch.end().unwrap_or(Reason::AgentLost)) }
}
