//! How one gateway is reached: which transports, and with what TLS. Knows nothing of sessions.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use adit_tunnel::proof::Exporter;
use adit_tunnel::proxy::{Egress, Proxy, ProxyError};
use adit_tunnel::tls::{self, TlsError, Trust};
use adit_tunnel::transport::{self, DialError, Framing, Route, Transport as Connected};
use prometheus_client::encoding::EncodeLabelSet;
use rustls::ClientConfig;

use crate::config::{Credential, GatewayUrl, Transport, Verify};
use crate::observe::Observe;

/// How long TCP, a proxy, TLS and the WebSocket upgrade may take together; so long may QUIC take, too. Twice as long after
/// a dial that took longer, and twice that after the next: a gateway to which all its agents come back at once serves
/// them one after the other, and who gives up goes to the end of the line.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the time is doubled.
const DOUBLINGS: u32 = 2;
/// How long TCP is tried alone before QUIC is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// How much longer TCP may take once QUIC is there: it is preferred, but not at any price.
const PREFERENCE: Duration = Duration::from_millis(750);

/// How long QUIC is tried when TCP is refused, for each refusal in a row, and at most.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
const LONGEST_AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// How long QUIC is tried when TCP or TLS failed in another way.
const AFTER_FAILURE: Duration = Duration::from_secs(3);

/// How long a name may take to be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that get a session each.
const MAX_ADDRESSES: usize = 16;

/// Reaches one gateway, again and again. One for each gateway, because what it learns belongs to that one: tickets.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    gateway: GatewayUrl,
    /// The one of its addresses to go to; `None`: whichever answers first.
    address: Option<IpAddr>,
    proxy: Option<Proxy>,
    framing: Framing,
    tls: Arc<ClientConfig>,
    /// For QUIC, which has tickets of its own.
    quic: Arc<ClientConfig>,
    observe: Observe,
    /// Dials that took too long, since the last that did not.
    late: Arc<AtomicU32>,
    /// Refusals of TCP, since a dial that had another end.
    refusals: Arc<AtomicU32>,
}

/// A connected transport over which nothing has been said yet.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// The bytes.
    pub(crate) io: Connected,
    /// What proofs on it are bound to.
    pub(crate) exporter: Exporter,
    /// What it is.
    pub(crate) carrier: Carrier,
}

/// What carries a session, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Carrier {
    /// The transport: `tls`, `websocket` or `quic`.
    pub(crate) transport: &'static str,
    /// Why this one.
    pub(crate) why: &'static str,
    /// Its TLS handshake: `full`, `resumed`, or `unknown` where the library does not say.
    pub(crate) tls: &'static str,
}

/// It was asked for.
const CONFIGURED: &str = "configured";
/// It is what `auto` takes where it can.
const PREFERRED: &str = "preferred";
/// TCP did not get through.
const TCP_FAILED: &str = "tcp_failed";
/// TCP took much longer.
const TCP_SLOW: &str = "tcp_slow";

impl Dialer {
    /// # Errors
    /// [`TlsError`] when the authorities to check the gateway by cannot be loaded.
    pub(crate) fn new(
        gateway: GatewayUrl,
        credential: &Credential,
        verify: &Verify,
        egress: &Egress,
        observe: Observe,
    ) -> Result<Self, TlsError> {
        let proxy = egress.proxy_for(&gateway.host, gateway.port).cloned();
        let trust = match verify {
            Verify::TokenProof => Trust::Anyone,
            Verify::System => Trust::System,
            Verify::Ca(path) => Trust::Ca(path.clone()),
        };
        let framing = match gateway.transport {
            Transport::Auto => Framing::Either,
            Transport::Tls | Transport::Quic => Framing::Bare,
            Transport::WebSocket => Framing::WebSocket,
        };
        let client = |alpn: &[&[u8]]| match credential {
            Credential::Token(_) => tls::session_client(&trust, alpn),
            Credential::Identity(identity) => tls::session_client_with(identity, alpn),
        };
        let (tls, quic) = (client(framing.alpn())?, client(Framing::Bare.alpn())?);
        let (late, refusals) = (Arc::default(), Arc::default());
        Ok(Self { gateway, address: None, proxy, framing, tls, quic, observe, late, refusals })
    }

    /// One that goes to this address of the same gateway.
    pub(crate) fn to(&self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self.clone() }
    }

    /// Whether the gateway's addresses are looked up here: it has a name, and no proxy stands between.
    pub(crate) fn resolves(&self) -> bool {
        self.proxy.is_none() && self.gateway.host.parse::<IpAddr>().is_err()
    }

    /// The gateway's addresses now, at most [`MAX_ADDRESSES`]. Cancel safe.
    ///
    /// # Errors
    /// What the system said, or that it said nothing in time.
    pub(crate) async fn addresses(&self) -> io::Result<BTreeSet<IpAddr>> {
        let lookup = tokio::net::lookup_host((self.gateway.host.as_str(), self.gateway.port));
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await??;
        Ok(found
            .map(|address| address.ip())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .take(MAX_ADDRESSES)
            .collect())
    }

    /// Connects, once. Cancel safe: a dropped dial leaves nothing behind.
    ///
    /// # Errors
    /// [`DialError`] says which step failed.
    pub(crate) async fn dial(&self) -> Result<Dialled, DialError> {
        let dialled = self.by_transport().await;
        match &dialled {
            Err(DialError::Timeout { .. }) => drop(self.late.fetch_add(1, Ordering::Relaxed)),
            Ok(_) | Err(_) => self.late.store(0, Ordering::Relaxed),
        }
        if !dialled.as_ref().is_err_and(is_refusal) {
            self.refusals.store(0, Ordering::Relaxed);
        }
        let (dialled, why) = dialled?;
        let transport::Dialled { io, exporter, handshake } = dialled;
        let carrier = Carrier { transport: io.label(), why, tls: handshake };
        self.observe.dialled(carrier);
        Ok(Dialled { io, exporter, carrier })
    }

    async fn by_transport(&self) -> Result<(transport::Dialled, &'static str), DialError> {
        let reached = AtomicBool::new(false);
        Ok(match self.gateway.transport {
            Transport::Quic => (self.by_quic().await?, CONFIGURED),
            Transport::Auto if self.proxy.is_none() => self.race().await?,
            Transport::Auto => (self.by_tcp(&reached).await?, PREFERRED),
            Transport::Tls | Transport::WebSocket => (self.by_tcp(&reached).await?, CONFIGURED),
        })
    }

    fn timeout(&self) -> Duration {
        DIAL_TIMEOUT * (1 << self.late.load(Ordering::Relaxed).min(DOUBLINGS))
    }

    /// How long QUIC is tried after TCP has failed like this. Where TCP was refused there is most often nobody at all, for
    /// example a gateway that starts again: QUIC would not hear of that, and must not keep the next try waiting.
    fn patience_after(&self, failure: &DialError) -> Duration {
        if !is_refusal(failure) {
            return AFTER_FAILURE;
        }
        let refusals = self.refusals.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        AFTER_REFUSAL.saturating_mul(refusals).min(LONGEST_AFTER_REFUSAL)
    }

    fn route(&self) -> Route<'_> {
        Route {
            host: &self.gateway.host,
            port: self.gateway.port,
            address: self.address,
            proxy: self.proxy.as_ref(),
        }
    }

    async fn by_tcp(&self, reached: &AtomicBool) -> Result<transport::Dialled, DialError> {
        transport::dial(self.route(), &self.tls, self.framing, self.timeout(), reached).await
    }

    async fn by_quic(&self) -> Result<transport::Dialled, DialError> {
        transport::dial_quic(self.route(), &self.quic, self.timeout()).await
    }

    /// TCP; QUIC beside it when that takes long to reach anybody, and in its place when it fails. When neither gets
    /// through, what was wrong with TCP says more.
    async fn race(&self) -> Result<(transport::Dialled, &'static str), DialError> {
        let reached = AtomicBool::new(false);
        let mut by_tcp = pin!(self.by_tcp(&reached));
        let outcome = match tokio::time::timeout(HEAD_START, &mut by_tcp).await {
            Ok(outcome) => Some(outcome),
            // The gateway is there and busy; asking it twice would not help.
            Err(_elapsed) if reached.load(Ordering::Relaxed) => Some(by_tcp.as_mut().await),
            Err(_elapsed) => None,
        };
        match outcome {
            Some(Ok(dialled)) => return Ok((dialled, PREFERRED)),
            Some(Err(failure)) => {
                let patience = self.patience_after(&failure);
                return instead(self.by_quic(), patience, failure).await;
            }
            None => {}
        }
        let mut by_quic = pin!(self.by_quic());
        tokio::select! {
            dialled = &mut by_tcp => match dialled {
                Ok(dialled) => Ok((dialled, PREFERRED)),
                Err(failure) => instead(by_quic, AFTER_FAILURE, failure).await,
            },
            dialled = &mut by_quic => match dialled {
                Err(_failure) => by_tcp.await.map(|dialled| (dialled, PREFERRED)),
                Ok(by_quic) => Ok(match tokio::time::timeout(PREFERENCE, by_tcp).await {
                    Ok(Ok(by_tcp)) => (by_tcp, PREFERRED),
                    Ok(Err(_failure)) => (by_quic, TCP_FAILED),
                    Err(_elapsed) => (by_quic, TCP_SLOW),
                }),
            },
        }
    }
}

/// Whether somebody's machine has answered that nobody listens there.
fn is_refusal(failure: &DialError) -> bool {
    let refused = io::ErrorKind::ConnectionRefused;
    matches!(failure, DialError::Connect { source, .. } if source.kind() == refused)
}

/// QUIC in place of what failed, if it is there in time.
async fn instead(
    by_quic: impl Future<Output = Result<transport::Dialled, DialError>>,
    patience: Duration,
    failure: DialError,
) -> Result<(transport::Dialled, &'static str), DialError> {
    match tokio::time::timeout(patience, by_quic).await {
        Ok(Ok(dialled)) => Ok((dialled, TCP_FAILED)),
        Ok(Err(_as_well)) => Err(failure),
        Err(_elapsed) => Err(failure),
    }
}

/// The gateway, as people write it, and the proxy on the way.
impl fmt::Display for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gateway.fmt(f)?;
        if let Some(address) = self.address {
            write!(f, " at {address}")?;
        }
        self.proxy.as_ref().map_or(Ok(()), |proxy| write!(f, " by way of {proxy}"))
    }
}

/// Why a dial failed, in a word from a closed list, for the metric.
pub(crate) const fn label(error: &DialError) -> &'static str {
    match error {
        DialError::Connect { .. } | DialError::Name(_) => "unreachable",
        DialError::Quic { .. } | DialError::QuicProxy(_) => "quic",
        DialError::ProxyUnreachable { .. } => "proxy_unreachable",
        DialError::Proxy { source: ProxyError::Login { .. }, .. } => "proxy_login",
        DialError::Proxy { .. } => "proxy_refused",
        DialError::Tls { .. } | DialError::Cleartext(_) => "tls",
        DialError::NoSessionProtocol(_) | DialError::WebSocket { .. } => "no_gateway",
        DialError::Timeout { .. } => "timeout",
    }
}
