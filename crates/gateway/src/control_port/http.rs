//! The control port's HTTP face: the admin interface below `/v1/`, `/status`, `/metrics`, `/healthz`, `/ready`, `/connect`, `/.well-known/ca.crt`.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use adit_control::Who;
use adit_proto::reason::Reason;
use adit_tunnel::transport::{CONNECT_PATH, WebSocketIo, limits};
use aws_lc_rs::digest;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_websockets::ServerBuilder;

use super::remainder::{self, Lent};
use super::{Caller, ControlPort};
use crate::api::{Admin, Problem};
use crate::refusal::REASON;
use crate::status::{self, Client, Info, Status, rfc3339};

/// The header with the gateway's own proof, in answer to a proof of the caller's.
const PROOF: HeaderName = HeaderName::from_static("adit-proof");
/// Appended to a WebSocket key before it is hashed (RFC 6455 §1.3).
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT: &str = "text/plain; charset=utf-8";

/// How long a connection may last, after TLS, without having proved a token. hyper has no limit on writing: who asks
/// and never reads would stay for ever.
const UNPROVED_LIFETIME: Duration = Duration::from_secs(30);
/// How long it may last after each request that proved one, the time to read the answer included.
const PROVED_LIFETIME: Duration = Duration::from_secs(120);

/// Serves one connection until it ends.
pub(super) async fn serve<IO>(io: IO, caller: Caller, port: Arc<ControlPort>)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let asking = port.asking.clone();
    let (peer, patience, proved) = (caller.peer, caller.patience, Arc::clone(&caller.proved));
    let service = service_fn(move |request| {
        let (caller, port) = (caller.clone(), Arc::clone(&port));
        async move { Ok::<_, Infallible>(answer(request, &caller, &port).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut served = pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = asking.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                result = served.as_mut() => result,
                () = overdue(&proved) => return,
            }
        }
        () = overdue(&proved) => {
            tracing::debug!(%peer, "a control connection lasted too long");
            return;
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a control connection ended early");
    }
}

/// Returns when a connection has not proved itself for too long. Cancel safe, but counts anew.
async fn overdue(proved: &Notify) {
    let mut lifetime = UNPROVED_LIFETIME;
    while tokio::time::timeout(lifetime, proved.notified()).await.is_ok() {
        lifetime = PROVED_LIFETIME;
    }
}

/// What a path asks for; everything else is `other` in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Status,
    Metrics,
    Healthz,
    Ready,
    Connect,
    Authority,
    Admin,
    Other,
}

impl Endpoint {
    fn of<B>(request: &Request<B>) -> Self {
        match request.uri().path() {
            "/status" => Self::Status,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthz,
            "/ready" => Self::Ready,
            "/.well-known/ca.crt" => Self::Authority,
            // A client that was given the bare URL of the port upgrades at its root.
            "/" if request.headers().contains_key(header::UPGRADE) => Self::Connect,
            CONNECT_PATH => Self::Connect,
            path if Admin::is_for(path) => Self::Admin,
            _ => Self::Other,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Status => "/status",
            Self::Metrics => "/metrics",
            Self::Healthz => "/healthz",
            Self::Ready => "/ready",
            Self::Connect => CONNECT_PATH,
            Self::Authority => "/.well-known/ca.crt",
            Self::Admin => "/v1",
            Self::Other => "other",
        }
    }
}

async fn answer(request: Request<Incoming>, caller: &Caller, port: &Arc<ControlPort>) -> Response<Body> {
    let endpoint = Endpoint::of(&request);
    if endpoint == Endpoint::Connect && !has_two_credentials(&request) {
        return match upgrade(request, caller, port) {
            Ok(response) => response,
            Err(mut response) => {
                response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
                port.observe.control_request(response.status().as_u16(), endpoint.label());
                response
            }
        };
    }
    let (request, remainder) = remainder::lend(request);
    let response = answer_to(endpoint, request, caller, port).await;
    remainder.read_away().await;
    response
}

fn has_two_credentials<B>(request: &Request<B>) -> bool {
    request.headers().get_all(header::AUTHORIZATION).iter().nth(1).is_some()
}

async fn answer_to(
    endpoint: Endpoint,
    request: Request<Lent<Incoming>>,
    caller: &Caller,
    port: &Arc<ControlPort>,
) -> Response<Body> {
    if has_two_credentials(&request) {
        // Which one counts would be a matter of who reads them: a proxy in front might see the other one.
        let mut response = match endpoint {
            Endpoint::Admin => port.admin.refuse(request.uri().path(), Problem::two_credentials()),
            _ => refusal(Reason::BadRequest, "two Authorization headers; send one\n"),
        };
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        port.observe.control_request(response.status().as_u16(), endpoint.label());
        return response;
    }
    if endpoint == Endpoint::Admin {
        let mut response = admin(request, caller, port).await;
        if !caller.is_proved() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        port.observe.control_request(response.status().as_u16(), endpoint.label());
        return response;
    }
    let mut response = if matches!(*request.method(), Method::GET | Method::HEAD) {
        match endpoint {
            Endpoint::Healthz => plain(StatusCode::OK, TEXT, "ok\n"),
            Endpoint::Ready if port.draining.is_cancelled() => {
                plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: draining\n")
            }
            Endpoint::Ready => plain(StatusCode::OK, TEXT, ready(port)),
            Endpoint::Authority => port.authority.as_ref().map_or_else(
                || plain(StatusCode::NOT_FOUND, TEXT, "this gateway has no authority of its own\n"),
                |pem| plain(StatusCode::OK, "application/x-pem-file", pem.clone()),
            ),
            Endpoint::Status | Endpoint::Metrics => protected(endpoint, &request, caller, port),
            Endpoint::Connect | Endpoint::Admin | Endpoint::Other => plain(
                StatusCode::NOT_FOUND,
                TEXT,
                "not found; there are /status, /metrics, /healthz, /ready, /connect, /.well-known/ca.crt and the admin interface below /v1/\n",
            ),
        }
    } else {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are served here\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    };
    if !caller.is_proved() {
        // Who might be anybody asks once and makes room.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    port.observe.control_request(response.status().as_u16(), endpoint.label());
    response
}

/// The admin interface. Who asks is known before anything of the body is read.
async fn admin(request: Request<Lent<Incoming>>, caller: &Caller, port: &Arc<ControlPort>) -> Response<Body> {
    let path = request.uri().path();
    if Admin::is_open(request.method(), path) {
        let failed = || port.held_against(caller).err().map(|reason| no_proof(reason, caller, port));
        return port.admin.answer_anybody(request, caller, failed).await;
    }
    match port.prove(request.method(), path, request.headers(), caller) {
        Ok(proven) => port.admin.answer(request, proven, caller.clone()).await,
        Err(reason) => port.admin.refuse(path, no_proof(reason, caller, port)),
    }
}

fn no_proof(reason: Reason, caller: &Caller, port: &ControlPort) -> Problem {
    match reason {
        Reason::RateLimited => Problem::barred(port.penalties.retry_after(caller.peer.ip())),
        _ => Problem::unproven(reason),
    }
}

/// Ready means that traffic passes. A gateway whose store is gone or cannot be written is: what was decided last stays
/// in force, and to take it out of a balancer would turn a full disk into an outage. It is said all the same.
fn ready(port: &ControlPort) -> String {
    let canary = match port.observe.canary_age() {
        Some(age) => format!("{} s ago", age.as_secs()),
        None => "none yet".to_owned(),
    };
    let store = if !port.admin.is_current() {
        "store: gone; resources cannot be changed\n"
    } else if port.admin.is_writable() {
        ""
    } else {
        "store: cannot be written; resources cannot be changed, certificates not be renewed\n"
    };
    format!("ready\nlast canary: {canary}\n{store}")
}

fn protected<B>(
    endpoint: Endpoint,
    request: &Request<B>,
    caller: &Caller,
    port: &Arc<ControlPort>,
) -> Response<Body> {
    let proven = match port.prove(request.method(), request.uri().path(), request.headers(), caller) {
        Ok(proven) => proven,
        Err(reason) => return unproven(reason, || port.penalties.retry_after(caller.peer.ip())),
    };
    let snapshot = port.snapshots.current();
    let may = match endpoint {
        Endpoint::Metrics => snapshot.may_read_metrics(&proven.who),
        _ => snapshot.may_look_around(&proven.who),
    };
    if !may {
        return refusal(Reason::NotPermitted, not_for(endpoint, &proven.who));
    }
    let (content_type, body) = match endpoint {
        Endpoint::Metrics => {
            let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
            let rendered = port.observe.metrics().render(accept);
            (rendered.content_type, rendered.body)
        }
        _ => {
            let body = serde_json::to_string(&port.status()).unwrap_or_default();
            ("application/json", body + "\n")
        }
    };
    let mut response = plain(StatusCode::OK, content_type, body.clone());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(key) = proven.key
        && let Ok(value) = HeaderValue::from_str(&caller.proof_of(&key, body.as_bytes()))
    {
        response.headers_mut().insert(PROOF, value);
    }
    response
}

/// What is missing, and the command that gives it to somebody.
fn not_for(endpoint: Endpoint, who: &Who) -> String {
    if endpoint == Endpoint::Metrics {
        return format!(
            "{who} may not read /metrics: it has no right to; create a token that has: \
             adit token create prometheus --metrics -o prometheus.token\n"
        );
    }
    format!("{who} may not read /status: that takes a token without limits, or the admin right\n")
}

fn unproven(reason: Reason, retry_after: impl FnOnce() -> u64) -> Response<Body> {
    match reason {
        Reason::RateLimited => {
            let text = "too many failed attempts from this address; the right token is let in all the same, so this is not it\n";
            let mut response = refusal(reason, text);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after()));
            response
        }
        Reason::Revoked => refusal(reason, "this certificate is not good any more; enroll again\n"),
        _ => {
            let text = "unauthorized: send the gateway's token as `Authorization: Bearer TOKEN`\n";
            let mut response = refusal(reason, text);
            let realm = HeaderValue::from_static("Bearer realm=\"adit\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
            response
        }
    }
}

impl ControlPort {
    fn status(&self) -> Status {
        let mode = status::mode(&self.live);
        Status {
            info: Info {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                sha: self.revision.to_owned(),
                mode: mode.to_owned(),
                start_time: rfc3339(self.started),
                hostname: self.hostname.clone(),
            },
            clients: self.sessions.list().iter().map(|agent| Client::of(agent, mode)).collect(),
        }
    }
}

/// Agrees to a WebSocket (RFC 6455 §4.2) and opens a session on it.
#[expect(clippy::result_large_err, reason = "both are answers; the error is the shorter path")]
fn upgrade(
    mut request: Request<Incoming>,
    caller: &Caller,
    port: &Arc<ControlPort>,
) -> Result<Response<Body>, Response<Body>> {
    let key =
        websocket_key(request.headers()).filter(|_| request.method() == Method::GET).ok_or_else(|| {
            let mut response =
                plain(StatusCode::UPGRADE_REQUIRED, TEXT, "this is where agents connect by WebSocket\n");
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        })?;
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(&key);
    hash.update(WEBSOCKET_GUID);
    let accept = STANDARD.encode(hash.finish());
    let upgraded = hyper::upgrade::on(&mut request);
    let (owner, caller) = (Arc::clone(port), caller.clone());
    port.scope.spawn("websocket session", async move {
        match upgraded.await {
            Ok(upgraded) => {
                let socket = ServerBuilder::new().limits(limits()).serve(TokioIo::new(upgraded));
                owner.session(WebSocketIo::new(socket), &caller, "websocket").await;
            }
            Err(error) => tracing::debug!(peer = %caller.peer, %error, "a WebSocket was not completed"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}

/// The key of a well-formed WebSocket handshake.
fn websocket_key(headers: &HeaderMap) -> Option<Vec<u8>> {
    let has = |name: HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|element| element.trim().eq_ignore_ascii_case(word))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes();
    let is_key = STANDARD.decode(key).is_ok_and(|decoded| decoded.len() == 16);
    (is_key
        && has(header::UPGRADE, "websocket")
        && has(header::CONNECTION, "upgrade")
        && has(header::SEC_WEBSOCKET_VERSION, "13"))
    .then(|| key.to_vec())
}

fn plain(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn refusal(reason: Reason, text: impl Into<Bytes>) -> Response<Body> {
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = plain(status, TEXT, text);
    response.headers_mut().insert(REASON, HeaderValue::from_static(reason.label()));
    response
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_proves_nothing_is_overdue_and_who_goes_on_proving_is_not() {
        let (proved, begun) = (Notify::new(), tokio::time::Instant::now());
        overdue(&proved).await;
        assert_eq!(begun.elapsed(), UNPROVED_LIFETIME);
        let again = async {
            for _ in 0..9 {
                proved.notify_one();
                tokio::time::sleep(PROVED_LIFETIME - Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = overdue(&proved) => panic!("it proved itself in time, each time"),
            () = again => {}
        }
    }
}
