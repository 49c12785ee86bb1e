//! Further lanes of a session. One stream at a time does with the first; as soon as streams share it there is another,
//! so that a connection that is full, stalls or is lost does not hold everything up.

use std::sync::Arc;
use std::time::Duration;

use adit_proto::handshake::{Hello, PROOF_LEN, capabilities};
use adit_proto::reason::Reason;
use adit_tunnel::handshake::{HandshakeError, greet};
use adit_tunnel::proof::TokenKey;
use adit_tunnel::reconnect::Backoff;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::Session;

use crate::dial::{Dialer, Dialled};

/// Lanes of a session in use.
const LANES: usize = 2;
/// How long dialling a lane and its handshake may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What it takes to open a lane of one session.
pub(crate) struct Lanes {
    gateway: Arc<Dialer>,
    key: TokenKey,
    /// What opened the session, but for the services.
    hello: Hello,
    scope: Scope,
}

impl Lanes {
    /// `hello` is the one that opened the session. Lanes run in `scope`.
    pub(crate) fn new(gateway: Arc<Dialer>, key: TokenKey, hello: Hello, scope: Scope) -> Self {
        let hello =
            Hello { capabilities: capabilities::LANES, offers: Vec::new(), proof: [0; PROOF_LEN], ..hello };
        Self { gateway, key, hello, scope }
    }

    /// Opens lanes as they are needed, until the session ends or is about to.
    pub(crate) async fn keep(self, session: Session) {
        let mut backoff = Backoff::new(self.hello.generation);
        loop {
            session.shared().await;
            session.lanes_below(LANES).await;
            if session.end().is_some() || session.is_leaving() {
                return;
            }
            match tokio::time::timeout(TIMEOUT, self.open(&session)).await {
                Ok(Ok(())) => continue,
                Ok(Err(Some(Reason::Replaced))) => return,
                Ok(Err(_)) => {}
                Err(_elapsed) => tracing::debug!(gateway = %self.gateway, "a lane took too long to open"),
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// # Errors
    /// The gateway's reason, if it is the gateway that does not want the lane.
    async fn open(&self, session: &Session) -> Result<(), Option<Reason>> {
        let dialled = self.gateway.dial().await;
        let Dialled { mut io, exporter, carrier } = dialled.map_err(|error| {
            tracing::debug!(gateway = %self.gateway, %error, "cannot open a further lane");
            None
        })?;
        greet(&mut io, self.hello.clone(), &self.key, &exporter).await.map_err(|error| {
            tracing::debug!(gateway = %self.gateway, %error, "cannot open a further lane");
            if let HandshakeError::Refused(refused) = error { Some(refused.reason) } else { None }
        })?;
        session.add_lane(&[]).map_err(Some)?.start(io, &self.scope);
        tracing::debug!(gateway = %self.gateway, transport = carrier.transport, "lane opened");
        Ok(())
    }
}
