//! Services reached by their names, from this side: streams of a session that the gateway joins to whoever offers them.

use std::net::SocketAddr;
use std::time::Duration;

use adit_proto::handshake::capabilities;
use adit_proto::header::StreamHeader;
use adit_proto::name::Name;
use adit_proto::names::{ServiceName, explain};
use adit_proto::reason::Reason;
use adit_tunnel::session::{Session, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::board::Board;

/// How long the far end may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an opening waits for a session.
const SESSION_WAIT: Duration = Duration::from_secs(5);
/// How long the gateway may take to explain.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an explanation that are read.
const MAX_TEXT: u64 = 4096;

/// Why a dial did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// The reason from the closed list.
    pub reason: Reason,
    /// The same for a person, as far as the gateway tells.
    pub text: String,
}

/// Opens a stream in the first session that takes one. Bytes may be written at once. Cancel safe.
pub(crate) async fn open(
    board: &Board,
    service: &ServiceName,
    client: Option<SocketAddr>,
) -> Result<(Session, Stream), Reason> {
    if tokio::time::timeout(SESSION_WAIT, board.ready()).await.is_err() {
        return Err(Reason::AgentLost);
    }
    let header =
        StreamHeader { service: service.clone(), client_addr: client, connect_timeout: CONNECT_TIMEOUT };
    let mut refused = Reason::AgentLost;
    let wanted = match service {
        ServiceName::Dial(_) => capabilities::FORWARDING,
        _ => capabilities::DIALING,
    };
    for session in board.sessions_for(wanted) {
        match session.open(&header) {
            Ok(stream) => return Ok((session, stream)),
            Err(reason) => refused = reason,
        }
    }
    Err(refused)
}

/// Dials a service, and waits until its upstream is connected. Cancel safe.
pub(crate) async fn dial(board: &Board, service: &Name) -> Result<Stream, Refused> {
    let name = ServiceName::Named(service.clone());
    let plain = |reason: Reason| Refused { reason, text: reason.explanation().to_owned() };
    let (session, stream) = open(board, &name, None).await.map_err(plain)?;
    let watch = stream.watch();
    watch.opened().await;
    if watch.is_opened() {
        return Ok(stream);
    }
    let reason = watch.end().unwrap_or(Reason::AgentLost);
    Err(match why(&session, service, reason).await {
        Some(text) => Refused { reason, text },
        None => plain(reason),
    })
}

/// What the gateway says about a dial that ended like this, if that is its own word.
pub(crate) async fn why(session: &Session, service: &Name, reason: Reason) -> Option<String> {
    if !matches!(reason, Reason::NotPermitted | Reason::Revoked | Reason::NoAgent) {
        return None;
    }
    let asked = async {
        let header = StreamHeader { service: explain(), client_addr: None, connect_timeout: EXPLAIN_TIMEOUT };
        let mut stream = session.open(&header).ok()?;
        stream.write_all(service.as_str().as_bytes()).await.ok()?;
        stream.shutdown().await.ok()?;
        let mut text = String::new();
        stream.take(MAX_TEXT).read_to_string(&mut text).await.ok()?;
        // It goes to terminals and logs.
        Some(text.chars().filter(|c| !c.is_control()).collect())
    };
    tokio::time::timeout(EXPLAIN_TIMEOUT, asked).await.ok()?
}
