//! How one gateway is reached: which transports, and with what TLS. Knows nothing of sessions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adit_tunnel::proof::Exporter;
use adit_tunnel::tls::{self, TlsError, Trust};
use adit_tunnel::transport::{self, DialError, Framing, Transport as Connected};
use rustls::ClientConfig;

use crate::config::{GatewayUrl, Transport, Verify};

/// How long TCP, TLS and the WebSocket upgrade may take together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Reaches one gateway, again and again. One for each gateway, because what it learns belongs to that one.
#[derive(Debug)]
pub(crate) struct Dialer {
    gateway: GatewayUrl,
    framing: Framing,
    tls: Arc<ClientConfig>,
}

/// A connected transport over which nothing has been said yet.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// The bytes.
    pub(crate) io: Connected,
    /// What proofs on it are bound to.
    pub(crate) exporter: Exporter,
    /// The word for the transport in logs.
    pub(crate) transport: &'static str,
}

impl Dialer {
    /// # Errors
    /// [`TlsError`] when the authorities to check the gateway by cannot be loaded.
    pub(crate) fn new(gateway: GatewayUrl, verify: &Verify) -> Result<Self, TlsError> {
        let trust = match verify {
            Verify::TokenProof => Trust::Anyone,
            Verify::System => Trust::System,
            Verify::Ca(path) => Trust::Ca(path.clone()),
        };
        let framing = match gateway.transport {
            Transport::Auto => Framing::Either,
            Transport::Tls => Framing::Bare,
            Transport::WebSocket => Framing::WebSocket,
        };
        let tls = tls::session_client(&trust, framing.alpn())?;
        Ok(Self { gateway, framing, tls })
    }

    /// Connects, once. Cancel safe: a dropped dial leaves nothing behind.
    ///
    /// # Errors
    /// [`DialError`] says which step failed.
    pub(crate) async fn dial(&self) -> Result<Dialled, DialError> {
        let GatewayUrl { host, port, transport: _ } = &self.gateway;
        let (io, exporter) = transport::dial(host, *port, &self.tls, self.framing, DIAL_TIMEOUT).await?;
        let transport = io.label();
        Ok(Dialled { io, exporter, transport })
    }
}

/// The gateway, as people write it.
impl fmt::Display for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gateway.fmt(f)
    }
}

/// Why a dial failed, in a word from a closed list, for the metric.
pub(crate) const fn label(error: &DialError) -> &'static str {
    match error {
        DialError::Connect { .. } | DialError::Name(_) => "unreachable",
        DialError::Tls { .. } => "tls",
        DialError::NoSessionProtocol(_) | DialError::WebSocket { .. } => "no_gateway",
        DialError::Timeout { .. } => "timeout",
    }
}
