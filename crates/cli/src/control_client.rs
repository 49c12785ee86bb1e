//! One authenticated request to a gateway's control port.
//!
//! With a verified certificate the token is sent as `Authorization: Bearer`. With `--auto-tls` any certificate is
//! accepted, so the token is not sent at all: both sides prove that they know it, bound to this TLS channel.

use std::sync::Arc;
use std::time::Duration;

use adit_agent::config::{GatewayUrl, Verify};
use adit_tunnel::proof::{Exporter, Prover, TokenKey};
use adit_tunnel::proxy::Egress;
use adit_tunnel::tls::{self, Trust};
use adit_tunnel::transport::{DialError, Route};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::CliError;
use crate::token::Token;

/// How long the whole exchange may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read.
const MAX_BODY: usize = 16 << 20;
/// The name of the proof, as an authorization scheme and as the answer's header.
const PROOF: &str = "Adit-Proof";

/// Asks for a path and returns the body of a 200 answer.
///
/// # Errors
/// The gateway cannot be reached, is not what it claims to be, refuses the token, or answers otherwise.
pub(crate) async fn get(
    url: &GatewayUrl,
    egress: &Egress,
    verify: &Verify,
    token: &Token,
    path: &'static str,
) -> Result<Bytes, CliError> {
    tokio::time::timeout(TIMEOUT, exchange(url, egress, verify, token, path)).await.map_err(|_elapsed| {
        CliError::failure(format!("{url} did not answer within {} seconds", TIMEOUT.as_secs()))
            .next("check that a gateway's control port is there, and that nothing between swallows packets")
    })?
}

async fn exchange(
    url: &GatewayUrl,
    egress: &Egress,
    verify: &Verify,
    token: &Token,
    path: &'static str,
) -> Result<Bytes, CliError> {
    let stream = connect(url, egress, verify).await?;
    let channel = match verify {
        Verify::TokenProof => Some(Channel::new(&stream, token.key())?),
        Verify::System | Verify::Ca(_) => None,
    };
    let authorization = match &channel {
        Some(channel) => format!("{PROOF} {}", channel.proves("GET", path)),
        None => format!("Bearer {}", token.secret().expose()),
    };
    let mut authorization = HeaderValue::try_from(authorization)
        .map_err(|cause| CliError::usage(format!("{} cannot be sent", token.source())).caused_by(&cause))?;
    authorization.set_sensitive(true);
    let request = Request::get(path)
        .header(header::HOST, authority(url))
        .header(header::AUTHORIZATION, authorization)
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|cause| CliError::failure("cannot make the request").caused_by(&cause))?;
    let (status, headers, body) = send(stream, request)
        .await
        .map_err(|cause| CliError::failure(format!("{url} did not answer")).caused_by(cause.as_ref()))?;
    judge(url, token, channel.as_ref(), status, &headers, body)
}

fn authority(url: &GatewayUrl) -> String {
    let host = &url.host;
    if host.contains(':') { format!("[{host}]:{}", url.port) } else { format!("{host}:{}", url.port) }
}

fn judge(
    url: &GatewayUrl,
    token: &Token,
    channel: Option<&Channel>,
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Bytes, CliError> {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(CliError::failure(format!("{url} refuses the token from {}", token.source()))
                .because(format!("it answered {status}"))
                .next("use the token that the gateway was started with"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            return Err(CliError::failure(format!("{url} does not listen to this address for now"))
                .because("too many attempts with a wrong token came from it")
                .next("wait a minute, then try again with the right token"));
        }
        StatusCode::OK => {}
        other => {
            return Err(CliError::failure(format!("{url} answered {other}"))
                .because("a gateway's control port answers 200")
                .next("check that the URL names a control port (8123 by default), not a public one"));
        }
    }
    if channel.is_none_or(|channel| channel.is_proven(headers, &body)) {
        return Ok(body);
    }
    Err(CliError::failure(format!("the answer of {url} is not from a gateway that knows the token"))
        .because(format!("its {PROOF} header is missing or wrong"))
        .next("somebody may stand between you and the gateway; check the address, or verify with --auto-tls=false --ca FILE"))
}

/// What proves are bound to.
struct Channel {
    exporter: Exporter,
    key: TokenKey,
}

impl Channel {
    fn new(stream: &TlsStream<TcpStream>, key: TokenKey) -> Result<Self, CliError> {
        let exporter = tls::exporter(stream.get_ref().1).map_err(|cause| {
            CliError::failure("cannot bind the token to the TLS channel").caused_by(&cause)
        })?;
        Ok(Self { exporter, key })
    }

    fn proves(&self, method: &str, path: &str) -> String {
        hex(&self.key.prove(Prover::Caller, &self.exporter, format!("{method} {path}").as_bytes()))
    }

    fn is_proven(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        headers
            .get(PROOF)
            .and_then(|value| unhex(value.as_bytes()))
            .is_some_and(|proof| self.key.check(Prover::Answerer, &self.exporter, body, &proof))
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

type Answer = (StatusCode, HeaderMap, Bytes);

async fn send(
    stream: TlsStream<TcpStream>,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
        Ok((head.status, head.headers, body))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            // The connection may end as soon as the answer is complete; what arrived is still there to be read.
            Ok(()) => exchange.await,
            Err(cause) => Err(cause.into()),
        },
    }
}

async fn connect(
    url: &GatewayUrl,
    egress: &Egress,
    verify: &Verify,
) -> Result<TlsStream<TcpStream>, CliError> {
    let proxy = egress.proxy_for(&url.host, url.port);
    let route = Route { host: &url.host, port: url.port, address: None, proxy };
    let tcp = route.connect().await.map_err(|cause| {
        let next = match cause {
            DialError::ProxyUnreachable { .. } | DialError::Proxy { .. } => {
                "check --proxy-url, or HTTPS_PROXY and NO_PROXY in the environment"
            }
            _ => "check the address, and that a gateway is running there",
        };
        CliError::failure(format!("cannot connect to {url}")).caused_by(&cause).next(next)
    })?;
    let name = ServerName::try_from(url.host.clone())
        .map_err(|cause| CliError::usage(format!("{url} names no host")).caused_by(&cause))?;
    TlsConnector::from(client_config(verify)?).connect(name, tcp).await.map_err(|cause| {
        CliError::failure(format!("no TLS session with {url}")).caused_by(&cause).next(match verify {
            Verify::TokenProof => "check that the URL names a control port (8123 by default), not a public one",
            Verify::System | Verify::Ca(_) => {
                "check the certificate's name and authority (--ca FILE), or use --auto-tls if the gateway makes its own"
            }
        })
    })
}

fn client_config(verify: &Verify) -> Result<Arc<ClientConfig>, CliError> {
    let trust = match verify {
        Verify::TokenProof => Trust::Anyone,
        Verify::System => Trust::System,
        Verify::Ca(file) => Trust::Ca(file.clone()),
    };
    tls::session_client(&trust, &[b"http/1.1"]).map_err(|cause| {
        CliError::failure("cannot prepare TLS")
            .caused_by(&cause)
            .next("check the file of --ca: PEM, with one or more certificates")
    })
}

#[cfg(test)]
mod tests;
