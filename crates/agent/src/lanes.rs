//! Further lanes of a session. One stream at a time does with the first; as soon as streams share it there is another,
//! so that a connection that is full, stalls or is lost does not hold everything up.

use std::sync::Arc;
use std::time::Duration;

use adit_proto::handshake::{Hello, PROOF_LEN, capabilities};
use adit_proto::limits;
use adit_proto::reason::Reason;
use adit_tunnel::handshake::{Credential, HandshakeError, greet};
use adit_tunnel::reconnect::Backoff;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Beginning, Session};
use adit_tunnel::transport::Transport;
use tokio::time::Instant;

use crate::dial::{Dialer, Dialled};

/// Lanes of a session in use, at least. There is one for each worker, as far as a session may have so many.
const LANES: usize = 2;
/// How long dialling a lane and its handshake may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Keeps the further lanes of a session, each on a worker of its own, in tasks of `scope`. `hello` is the one that opened
/// the session.
pub(crate) fn keep(
    session: &Session,
    gateway: &Arc<Dialer>,
    credential: &Credential,
    hello: Hello,
    scope: &Scope,
) {
    let hello =
        Hello { capabilities: capabilities::LANES, offers: Vec::new(), proof: [0; PROOF_LEN], ..hello };
    let workers = scope.workers().count();
    for number in 1..workers.clamp(LANES, limits::MAX_LANES) {
        let (gateway, credential, hello) = (Arc::clone(gateway), credential.clone(), hello.clone());
        let lane = Lane { session: session.clone(), gateway, credential, hello };
        scope.spawn_on(number % workers, "lane", lane.keep());
    }
}

/// What it takes to open a lane of one session.
struct Lane {
    session: Session,
    gateway: Arc<Dialer>,
    credential: Credential,
    hello: Hello,
}

impl Lane {
    /// Opens the lane when it is needed and moves its bytes, again and again until the session ends or is about to.
    async fn keep(self) {
        let mut backoff = Backoff::new(self.hello.generation);
        loop {
            self.session.shared().await;
            if self.session.end().is_some() || self.session.is_leaving() {
                return;
            }
            let opened = tokio::time::timeout(TIMEOUT, Box::pin(self.open())).await;
            let started = Instant::now();
            match opened {
                Ok(Ok((beginning, io))) => Box::pin(beginning.run(io)).await,
                Ok(Err(Some(Reason::Replaced))) => return,
                Ok(Err(_)) => {}
                Err(_elapsed) => tracing::debug!(gateway = %self.gateway, "a lane took too long to open"),
            }
            backoff.stood(started.elapsed());
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// # Errors
    /// The gateway's reason, if it is the gateway that does not want the lane.
    async fn open(&self) -> Result<(Beginning, Transport), Option<Reason>> {
        let dialled = self.gateway.dial().await;
        let Dialled { mut io, exporter, carrier } = dialled.map_err(|error| {
            tracing::debug!(gateway = %self.gateway, %error, "cannot open a further lane");
            None
        })?;
        greet(&mut io, self.hello.clone(), &self.credential, &exporter).await.map_err(|error| {
            tracing::debug!(gateway = %self.gateway, %error, "cannot open a further lane");
            if let HandshakeError::Refused(refused) = error { Some(refused.reason) } else { None }
        })?;
        let beginning = self.session.add_lane(&[]).map_err(Some)?;
        tracing::debug!(gateway = %self.gateway, transport = carrier.transport, "lane opened");
        Ok((beginning, io))
    }
}
