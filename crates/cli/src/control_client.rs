//! Authenticated requests to a gateway's control port, one after another on one connection.
//!
//! With a verified certificate a token is sent as `Authorization: Bearer`. With `--auto-tls` any certificate is
//! accepted, so the token is not sent at all: both sides prove that they know it, bound to this TLS channel. Nothing
//! but questions leaves before the gateway has proven itself on the channel that the rest will take.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_agent::config::{GatewayUrl, Verify};
use adit_tunnel::identity::LiveIdentity;
use adit_tunnel::proof::{Exporter, Prover, TokenKey};
use adit_tunnel::proxy::Egress;
use adit_tunnel::tls::{self, Trust};
use adit_tunnel::transport::{DialError, Route};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::CliError;
use crate::output::printable;
use crate::token::Token;

/// How long one exchange may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read.
const MAX_BODY: usize = 64 << 20;
/// The longest line of a gateway that is passed on.
const MAX_LINE: usize = 500;
/// The name of the proof, as an authorization scheme and as the answer's header.
const PROOF: &str = "Adit-Proof";
/// What a gateway is asked first, so that it proves itself.
const FIRST_QUESTION: &str = "/v1/whoami";

/// Which gateway, by which way, and how both sides know each other.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its control port.
    pub(crate) url: GatewayUrl,
    /// The way out.
    pub(crate) egress: Egress,
    /// How its certificate is checked.
    pub(crate) verify: Verify,
    /// Who asks.
    pub(crate) credential: Credential,
}

/// How the caller shows who it is.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// By a token.
    Token(Token),
    /// By a certificate; the identity also says by which authorities the gateway is known.
    Certificate(Arc<LiveIdentity>),
}

impl Credential {
    /// What it is, for messages.
    fn whose(&self) -> String {
        match self {
            Self::Token(token) => format!("the token from {}", token.source()),
            Self::Certificate(identity) => format!("the certificate of {}", identity.file().leaf().name),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    /// A JSON body.
    pub(crate) body: Option<Bytes>,
    /// The revision that must be the current one.
    pub(crate) if_match: Option<String>,
    /// What is wanted.
    pub(crate) accept: &'static str,
}

impl Question {
    /// A question without a body, to be answered in JSON.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, if_match: None, accept: "application/json" }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The head.
    pub(crate) headers: HeaderMap,
    /// The whole body.
    pub(crate) body: Bytes,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// Asks for a path with a token and returns the body of a 200 answer.
///
/// # Errors
/// The gateway cannot be reached, is not what it claims to be, refuses the token, or answers otherwise.
pub(crate) async fn get(target: Target, path: &'static str) -> Result<Bytes, CliError> {
    let mut client = Client::new(target);
    let answer = client.exchange(Question::new(Method::GET, path)).await?;
    client.judge(&answer)?;
    client.check_proof(&answer)?;
    Ok(answer.body)
}

/// Asks one gateway one thing after another.
pub(crate) struct Client {
    target: Target,
    connection: Option<Connection>,
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    exporter: Exporter,
    is_proven: bool,
}

impl Client {
    /// A client that has not connected yet.
    pub(crate) const fn new(target: Target) -> Self {
        Self { target, connection: None, timeout: TIMEOUT }
    }

    /// The same with less patience.
    pub(crate) const fn patient_for(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whom it asks.
    pub(crate) const fn target(&self) -> &Target {
        &self.target
    }

    /// Asks, once it is certain whom. Every answer of a gateway is one; what its status means is for the caller to say.
    ///
    /// # Errors
    /// The gateway cannot be reached, or cannot prove that it is the one that knows the token.
    pub(crate) async fn ask(&mut self, question: Question) -> Result<Answer, CliError> {
        self.make_certain().await?;
        self.exchange(question).await
    }

    /// Asks, and hands the body of a good answer on as it arrives, for as long as it does and is wanted. The answer's own
    /// body is empty then; that of any other answer is whole.
    ///
    /// # Errors
    /// As [`Client::ask`], and when the connection breaks off.
    pub(crate) async fn follow(
        &mut self,
        question: Question,
        take: impl FnMut(&[u8]) -> bool,
    ) -> Result<Answer, CliError> {
        self.make_certain().await?;
        let url = self.target.url.clone();
        let mut connection = self.connected().await?;
        let request = self.request(question, &connection.exporter)?;
        connection
            .follow(request, take)
            .await
            .map_err(|cause| CliError::failure(format!("{url} broke off")).caused_by(cause.as_ref()))
    }

    /// With a certificate that nobody verified: has the gateway prove that it knows the token, on this very channel.
    async fn make_certain(&mut self) -> Result<(), CliError> {
        if self.target.verify != Verify::TokenProof {
            return Ok(());
        }
        if let Some(connection) = &mut self.connection
            && connection.is_proven
        {
            if connection.is_open().await {
                return Ok(());
            }
            self.connection = None;
        }
        let answer = self.exchange(Question::new(Method::GET, FIRST_QUESTION)).await?;
        self.judge(&answer)?;
        self.check_proof(&answer)?;
        if let Some(connection) = &mut self.connection {
            connection.is_proven = true;
        }
        Ok(())
    }

    async fn exchange(&mut self, question: Question) -> Result<Answer, CliError> {
        let (url, limit) = (self.target.url.clone(), self.timeout);
        tokio::time::timeout(limit, self.exchange_in_time(question)).await.map_err(|_elapsed| {
            CliError::failure(format!("{url} did not answer within {} seconds", limit.as_secs().max(1))).next(
                "check that a gateway's control port is there, and that nothing between swallows packets",
            )
        })?
    }

    async fn exchange_in_time(&mut self, question: Question) -> Result<Answer, CliError> {
        let mut connection = self.connected().await?;
        let request = self.request(question, &connection.exporter)?;
        let answer = connection.send(request).await.map_err(|cause| {
            CliError::failure(format!("{} did not answer", self.target.url)).caused_by(cause.as_ref())
        })?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// The connection that is kept if it stands, or a new one.
    async fn connected(&mut self) -> Result<Connection, CliError> {
        let mut kept = self.connection.take();
        let is_open = match &mut kept {
            Some(connection) => connection.is_open().await,
            None => false,
        };
        match kept.filter(|_| is_open) {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.target).await,
        }
    }

    fn request(&self, question: Question, exporter: &Exporter) -> Result<Request<Full<Bytes>>, CliError> {
        let Question { method, path, body, if_match, accept } = question;
        let mut request = Request::builder()
            .method(method.clone())
            .uri(&path)
            .header(header::HOST, authority(&self.target.url))
            .header(header::USER_AGENT, concat!("adit/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, accept);
        if let Some(authorization) = self.authorization(&method, &path, exporter)? {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(revision) = if_match {
            request = request.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|cause| CliError::failure("cannot make the request").caused_by(&cause))
    }

    fn authorization(
        &self,
        method: &Method,
        path: &str,
        exporter: &Exporter,
    ) -> Result<Option<HeaderValue>, CliError> {
        let Credential::Token(token) = &self.target.credential else { return Ok(None) };
        let text = if self.target.verify == Verify::TokenProof {
            let path = path.split('?').next().unwrap_or(path);
            let said = format!("{method} {path}");
            format!("{PROOF} {}", hex(&token.key().prove(Prover::Caller, exporter, said.as_bytes())))
        } else {
            format!("Bearer {}", token.secret().expose())
        };
        let mut value = HeaderValue::try_from(text).map_err(|cause| {
            CliError::usage(format!("{} cannot be sent", token.source())).caused_by(&cause)
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// What an answer means to a caller who expected to be let in.
    fn judge(&self, answer: &Answer) -> Result<(), CliError> {
        let url = &self.target.url;
        match answer.status {
            StatusCode::OK => Ok(()),
            StatusCode::FORBIDDEN if said(answer).is_some() => {
                Err(CliError::failure(format!("{url} refuses {}", self.target.credential.whose()))
                    .because(said(answer).unwrap_or_default())
                    .next("use another credential, one that has the right to this"))
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(CliError::failure(format!("{url} refuses {}", self.target.credential.whose()))
                    .because(format!("it answered {status}"))
                    .next("use a token that the gateway was started with, or that it issued for this"))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                Err(CliError::failure(format!("{url} does not listen to this address for now"))
                    .because("too many attempts with a wrong token came from it, and this one is wrong too")
                    .next("use the right token: it is let in all the same, without waiting"))
            }
            other => Err(CliError::failure(format!("{url} answered {other}"))
                .because("a gateway's control port answers 200")
                .next("check that the URL names a control port (8123 by default), not a public one")),
        }
    }

    /// Whether the gateway has shown that it knows the token, where nothing else says who it is.
    fn check_proof(&self, answer: &Answer) -> Result<(), CliError> {
        let (Verify::TokenProof, Credential::Token(token)) = (&self.target.verify, &self.target.credential)
        else {
            return Ok(());
        };
        let exporter = self.connection.as_ref().map(|connection| &connection.exporter);
        if exporter.is_some_and(|exporter| is_proven(&token.key(), exporter, answer)) {
            return Ok(());
        }
        let url = &self.target.url;
        Err(CliError::failure(format!("the answer of {url} is not from a gateway that knows the token"))
            .because(format!("its {PROOF} header is missing or wrong"))
            .next("somebody may stand between you and the gateway; check the address, or verify its certificate with --ca FILE"))
    }
}

/// What the gateway says itself, where that is a line for people.
fn said(answer: &Answer) -> Option<String> {
    let text = std::str::from_utf8(&answer.body).ok()?.trim();
    let is_line = !text.is_empty()
        && text.len() <= MAX_LINE
        && !text.starts_with(['{', '<'])
        && text.lines().count() == 1;
    is_line.then(|| printable(text))
}

fn is_proven(key: &TokenKey, exporter: &Exporter, answer: &Answer) -> bool {
    answer
        .headers
        .get(PROOF)
        .and_then(|value| unhex(value.as_bytes()))
        .is_some_and(|proof| key.check(Prover::Answerer, exporter, &answer.body, &proof))
}

fn authority(url: &GatewayUrl) -> String {
    let host = &url.host;
    if host.contains(':') { format!("[{host}]:{}", url.port) } else { format!("{host}:{}", url.port) }
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

impl Connection {
    async fn open(target: &Target) -> Result<Self, CliError> {
        let stream = connect(target).await?;
        let exporter = tls::exporter(stream.get_ref().1).map_err(|cause| {
            CliError::failure("cannot bind the token to the TLS channel").caused_by(&cause)
        })?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|cause| CliError::failure(format!("{} did not answer", target.url)).caused_by(&cause))?;
        Ok(Self { sender, driver: Box::pin(driver), exporter, is_proven: false })
    }

    /// Whether another request can go out here. Nothing drives the connection between two exchanges, so this does.
    async fn is_open(&mut self) -> bool {
        let Self { sender, driver, .. } = self;
        tokio::select! {
            biased;
            _ended = driver => false,
            ready = sender.ready() => ready.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, BoxError> {
        let Self { sender, driver, .. } = self;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        driven(driver, exchange).await
    }

    async fn follow(
        &mut self,
        request: Request<Full<Bytes>>,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<Answer, BoxError> {
        let Self { sender, driver, .. } = self;
        let exchange = async {
            let (head, mut body) = sender.send_request(request).await?.into_parts();
            let answer = |body| Answer { status: head.status, headers: head.headers, body };
            if !head.status.is_success() {
                return Ok(answer(Limited::new(body, MAX_BODY).collect().await?.to_bytes()));
            }
            while let Some(frame) = body.frame().await {
                if frame?.data_ref().is_some_and(|bytes| !take(bytes)) {
                    break;
                }
            }
            Ok(answer(Bytes::new()))
        };
        driven(driver, exchange).await
    }
}

/// An exchange, with the connection that carries it.
async fn driven(
    driver: &mut Driver,
    exchange: impl Future<Output = Result<Answer, BoxError>>,
) -> Result<Answer, BoxError> {
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut *driver => {
            // What was polled to its end must not be polled again.
            *driver = Box::pin(std::future::pending());
            match ended {
                // The connection may end as soon as the answer is complete; what arrived is still there to be read.
                Ok(()) => exchange.await,
                Err(cause) => Err(cause.into()),
            }
        }
    }
}

async fn connect(target: &Target) -> Result<TlsStream<TcpStream>, CliError> {
    let Target { url, egress, verify, credential } = target;
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
    TlsConnector::from(client_config(target)?).connect(name, tcp).await.map_err(|cause| {
        let next = match verify {
            _ if matches!(credential, Credential::Certificate(_)) => {
                "check that the URL names the control port of the gateway that the identity was enrolled with"
            }
            Verify::TokenProof => "check that the URL names a control port (8123 by default), not a public one",
            Verify::System | Verify::Ca(_) => {
                "check the certificate's name and authority (--ca FILE), or use --auto-tls if the gateway makes its own"
            }
        };
        CliError::failure(format!("no TLS session with {url}")).caused_by(&cause).next(next)
    })
}

fn client_config(target: &Target) -> Result<Arc<ClientConfig>, CliError> {
    if let Credential::Certificate(identity) = &target.credential {
        return tls::session_client_with(identity, &[b"http/1.1"])
            .map_err(|cause| CliError::failure("cannot prepare TLS").caused_by(&cause));
    }
    let trust = match &target.verify {
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
