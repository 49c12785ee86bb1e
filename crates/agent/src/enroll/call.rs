//! One small request to a control port over HTTPS: bounded in time and size, and no redirect is followed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adit_tunnel::proxy::Egress;
use adit_tunnel::transport::{DialError, Route};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsConnector;

/// How long the whole exchange may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How much of an answer that explains nothing is shown.
const MAX_SAID: usize = 200;

/// Why a control port could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no way to it.
    #[error("there is no connection to it")]
    Dial(#[from] DialError),
    /// TLS failed: it is another one, or something between ends TLS.
    #[error("there is no TLS connection to it")]
    Tls(#[source] std::io::Error),
    /// TLS could not be set up here.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
    /// It did not answer, or with too much.
    #[error("it did not answer as a control port does")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

impl CallError {
    /// Whether the other side may have received the request.
    pub(super) const fn was_sent(&self) -> bool {
        matches!(self, Self::Exchange(_) | Self::Timeout)
    }
}

/// A control port, as `https://host:port` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Host name or address literal (IPv6 without brackets).
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// `https://host[:port][/]`, nothing else: no other scheme, no user, no path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        if uri.scheme_str() != Some("https") || uri.path() != "/" || uri.query().is_some() {
            return None;
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 443,
            _ => authority.port_u16().filter(|port| *port > 0)?,
        };
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }

    fn authority(&self) -> String {
        let host = &self.host;
        if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// What was answered, and by whom.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// The certificate chain that was shown.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// Posts JSON and reads the answer. Not cancel safe: whether it was received is not known then.
pub(crate) async fn post(
    address: &Address,
    egress: &Egress,
    tls: Result<Arc<ClientConfig>, rustls::Error>,
    path: &str,
    body: &impl Serialize,
) -> Result<Answer, CallError> {
    let connected = async {
        let proxy = egress.proxy_for(&address.host, address.port);
        let route = Route { host: &address.host, port: address.port, address: None, proxy };
        let tcp = route.connect().await?;
        let name = ServerName::try_from(address.host.clone())
            .map_err(|error| CallError::Tls(std::io::Error::other(error)))?;
        TlsConnector::from(tls.map_err(CallError::Setup)?).connect(name, tcp).await.map_err(CallError::Tls)
    };
    let unreached = || CallError::Tls(std::io::Error::new(std::io::ErrorKind::TimedOut, "it takes too long"));
    let stream =
        tokio::time::timeout(TIMEOUT, connected).await.unwrap_or_else(|_elapsed| Err(unreached()))?;
    let chain: Vec<_> = stream
        .get_ref()
        .1
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| CallError::Exchange(error);
    let body = serde_json::to_vec(body).map_err(|error| broken(error.into()))?;
    let request = Request::post(path)
        .header(header::HOST, address.authority())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| broken(error.into()))?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
            Ok((head.status, body))
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                // It may end as soon as the answer is complete; what arrived is still there to be read.
                Ok(()) => exchange.await,
                Err(error) => Err(error.into()),
            },
        }
    };
    let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_elapsed| CallError::Timeout)?
        .map_err(broken)?;
    Ok(Answer { status, body, chain })
}

/// The words of an answer that is a refusal.
pub(crate) fn said(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        message: String,
        #[serde(default)]
        next: String,
    }
    // What a stranger says is shown on a terminal.
    let plain =
        |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(4 * MAX_SAID).collect() };
    match serde_json::from_slice::<Body>(&answer.body) {
        Ok(Body { error: Said { message, next } }) if next.is_empty() => plain(&message),
        Ok(Body { error: Said { message, next } }) => format!("{}; {}", plain(&message), plain(&next)),
        Err(_other) => {
            let text = String::from_utf8_lossy(&answer.body);
            let text: String = plain(text.trim()).chars().take(MAX_SAID).collect();
            if text.is_empty() { answer.status.to_string() } else { format!("{}: {text}", answer.status) }
        }
    }
}
