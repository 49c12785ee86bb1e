//! Sends a permitted request to an endpoint's upstream and brings the response back.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request};
use adit_control::{Permit, Subject};
use adit_proto::reason::{Fault, Reason};
use adit_tunnel::stream::StreamError;
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::ext::on_informational;
use tokio::time::Instant;

use self::body::{Progress, RequestBody, ResponseBody, Upload};
use crate::balancer::{self, Errand, Lease, Wanted};
use crate::flow::{Connection, DataPlane};
use crate::grants::Grant;
use crate::http::guard::GuardHandle;
use crate::observe::Record;
use crate::refusal::Refusal;
use crate::sessions::Service;

pub(crate) mod body;
pub(crate) mod headers;
mod upgrade;

/// Endpoints or connections tried for one request.
const MAX_TRIES: usize = 4;

/// Who is behind a request, for the headers that tell the upstream.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(crate) connection: &'a Connection,
    /// Who asks.
    pub(crate) subject: &'a Subject,
    /// What its right rests on.
    pub(crate) grant: &'a Grant,
    /// The peer is a proxy whose forwarding headers are kept and extended.
    pub(crate) trusted: bool,
    /// This gateway's name in `Via`.
    pub(crate) via: &'a str,
}

/// A response on its way to the client, and what has to go along with it.
#[derive(Debug)]
pub(crate) struct Forwarded {
    response: Response<Incoming>,
    lease: Lease,
    progress: Arc<Progress>,
    upgrade: Option<upgrade::Upgrade>,
}

impl Forwarded {
    /// The answer to the client; `record` is written when its last byte is through.
    pub(crate) fn into_response(self, record: Record) -> Response<ResponseBody> {
        let Self { mut response, mut lease, progress, upgrade } = self;
        // The library answers an older version in kind from then on, and chunks nothing any more.
        lease.is_reusable = response.version() == Version::HTTP_11;
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let mut record = record;
        record.answered(response.status());
        headers::to_client(response.headers_mut(), is_upgrade);
        if progress.is_body_refused() && record.is_http1() {
            // The client may take it that its body is not wanted, or send it; what comes next is in doubt.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        *response.version_mut() = Version::HTTP_11;
        if let Some(upgrade) = upgrade.filter(|_| is_upgrade) {
            upgrade.spawn(hyper::upgrade::on(&mut response), lease.watch, record);
            return response.map(|_empty| ResponseBody::none());
        }
        response.map(|incoming| ResponseBody::upstream(incoming, lease, progress, record))
    }
}

/// Sends the request and waits for the head of its response.
///
/// # Errors
/// A refusal that says which hop failed.
pub(crate) async fn forward(
    mut request: Request<Incoming>,
    permit: &Permit,
    service: &Arc<Service>,
    client: Client<'_>,
    plane: &Arc<DataPlane>,
    record: &mut Record,
) -> Result<Forwarded, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::new(Reason::NotImplemented, "CONNECT is not served here."));
    }
    let upgrade = headers::wants_upgrade(&request)
        .then(|| upgrade::Upgrade::of(&mut request, client.connection, plane));
    let mut head = Head::of(&mut request, &client, upgrade.is_some())?;
    let expects_continue = headers::expects_continue(&head.parts.headers);
    let body = request.into_body();
    let has_body = !body.is_end_stream();
    if has_body && !head.parts.headers.contains_key(header::CONTENT_LENGTH) {
        // Said outright, because the library takes a GET without a length for one without a body.
        head.parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let upload = match (has_body, expects_continue) {
        (false, _) => Upload::Empty,
        (true, false) => Upload::AtOnce,
        (true, true) => Upload::HeldBack,
    };
    let progress = Progress::new(record.service_counters(), upload);
    let mut body = Some(body);
    let errand = Errand {
        grant: client.grant,
        client: Some(client.connection.peer),
        connect_timeout: plane.live.limits().connect_timeout,
    };

    let mut wanted = if head.is_safe_to_repeat() { Wanted::Any } else { Wanted::Fresh };
    if upgrade.is_some() {
        wanted = Wanted::New;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let lease = balancer::lease(service, permit, wanted, &errand, plane).await?;
        plane.still_permitted(permit, client.subject, client.grant)?;
        record.leased(&lease);
        if has_body && !lease.is_reused {
            // A body can be sent once. Until the upstream is connected there is nothing to send it to, and if it
            // does not connect, another agent's may.
            drop(tokio::time::timeout(errand.connect_timeout, lease.watch.opened()).await);
            if let Some(reason) = lease.watch.end() {
                if !is_agents_word(reason) || tries >= tries_after(reason, service) {
                    return Err(reason.into());
                }
                wanted = Wanted::New;
                continue;
            }
        }
        let this_body = match body.take() {
            Some(body) if has_body => RequestBody::incoming(body, Arc::clone(&progress)),
            Some(_) | None => RequestBody::empty(),
        };
        let guard = client.connection.guard.as_ref().filter(|_| client_is_http11(&head));
        let request = head.request(this_body, guard, &lease, &progress);
        match try_once(request, lease, &progress, plane).await {
            Ok((response, lease)) => {
                record.head_received();
                let offered = head.parts.headers.get(header::UPGRADE).filter(|_| upgrade.is_some());
                if let Err(fault) = headers::check_response(&response, offered) {
                    tracing::debug!(fault, "the upstream's response is not passed on");
                    lease.watch.reset(Reason::UpstreamInvalid);
                    return Err(Reason::UpstreamInvalid.into());
                }
                return Ok(Forwarded { response, lease, progress, upgrade });
            }
            Err(failure) => {
                // The client's own failure explains the upstream's.
                if let Some(reason) = progress.client_failure() {
                    return Err(reason.into());
                }
                let untouched = failure.unsent || !has_body && !failure.reached_upstream;
                let may_repeat = untouched || failure.was_stale && head.is_safe_to_repeat() && !has_body;
                let is_last = tries >= tries_after(failure.reason, service);
                if !may_repeat || is_last || (has_body && failure.body.is_none()) {
                    return Err(failure.reason.into());
                }
                body = failure.body.and_then(RequestBody::into_incoming);
                wanted = Wanted::New;
            }
        }
    }
}

/// How many tries a request has that failed like this. An upstream that refuses is not asked again by the same agent;
/// an agent that leaves is not among the endpoints any more, however many there are.
fn tries_after(reason: Reason, service: &Service) -> usize {
    let is_refusal = reason.fault() == Fault::Upstream && is_agents_word(reason);
    if is_refusal { service.endpoint_count().min(MAX_TRIES) } else { MAX_TRIES }
}

fn client_is_http11(head: &Head) -> bool {
    head.parts.version == Version::HTTP_11
}

/// What is sent, ready to be sent again.
#[derive(Debug)]
struct Head {
    parts: request::Parts,
}

impl Head {
    fn of(request: &mut Request<Incoming>, client: &Client<'_>, is_upgrade: bool) -> Result<Self, Refusal> {
        headers::to_upstream(request, client, is_upgrade)?;
        let mut parts = Request::new(()).into_parts().0;
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        parts.headers = std::mem::take(request.headers_mut());
        Ok(Self { parts })
    }

    /// Safe methods may be sent again when no answer came (RFC 9110 §9.2.2 allows it for idempotent ones; `PUT` and
    /// `DELETE` are left to the client, who knows what they do).
    fn is_safe_to_repeat(&self) -> bool {
        matches!(self.parts.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
    }

    fn request(
        &self,
        body: RequestBody,
        guard: Option<&GuardHandle>,
        lease: &Lease,
        progress: &Arc<Progress>,
    ) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.parts.uri.clone();
        *request.headers_mut() = self.parts.headers.clone();
        let (guard, watch, progress) = (guard.cloned(), lease.watch.clone(), Arc::clone(progress));
        on_informational(&mut request, move |interim| {
            if progress.is_over_interims() {
                // An upstream that goes on saying that it is about to answer is not going to.
                watch.reset(Reason::UpstreamInvalid);
            } else if interim.status() == StatusCode::CONTINUE {
                // The client gets its own 100 when its body is asked for.
                progress.go_on();
            } else if let Some(guard) = &guard {
                guard.inject(interim_head(interim.status(), interim.headers()));
            }
        });
        request
    }
}

/// A 1xx response as bytes (RFC 9110 §15.2), without what belongs to the upstream's connection.
fn interim_head(status: StatusCode, fields: &::http::HeaderMap) -> Bytes {
    let mut fields = fields.clone();
    headers::to_client(&mut fields, false);
    // RFC 9110 §8.6: there is no content to have a length.
    fields.remove(header::CONTENT_LENGTH);
    let mut out = BytesMut::new();
    let phrase = status.canonical_reason().unwrap_or("");
    out.put_slice(format!("HTTP/1.1 {} {phrase}\r\n", status.as_u16()).as_bytes());
    for (name, value) in &fields {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

/// One failed try.
struct Failure {
    reason: Reason,
    /// Not a byte of the request was written to the stream.
    unsent: bool,
    /// Something of it may have reached the upstream.
    reached_upstream: bool,
    /// It ended without an answer, and had served before or was never said to be connected.
    was_stale: bool,
    /// The request's body, when it was not touched.
    body: Option<RequestBody>,
}

async fn try_once(
    request: Request<RequestBody>,
    mut lease: Lease,
    progress: &Progress,
    plane: &DataPlane,
) -> Result<(Response<Incoming>, Lease), Failure> {
    // If the client goes away while we wait, the upstream must know.
    let answered = lease.watch.received();
    let abort = AbortOnDrop { watch: lease.watch.clone(), armed: true };
    let response_timeout = plane.live.limits().response_timeout;
    let waiting = lease.sender.try_send_request(request);
    let result = tokio::select! {
        result = waiting => result,
        () = no_progress(progress, response_timeout) => {
            lease.watch.reset(Reason::UpstreamTimeout);
            abort.disarm();
            return Err(Failure {
                reason: Reason::UpstreamTimeout,
                unsent: false,
                reached_upstream: true,
                was_stale: false,
                body: None,
            });
        }
    };
    abort.disarm();
    match result {
        Ok(response) => {
            progress.answered(response.status());
            Ok((response, lease))
        }
        Err(mut error) => {
            let returned = error.take_message();
            let reason = failure_reason(error.error(), &lease);
            Err(Failure {
                reason,
                unsent: returned.is_some(),
                reached_upstream: lease.watch.is_opened() || lease.is_reused || !is_agents_word(reason),
                was_stale: if lease.watch.is_opened() {
                    let is_silent = lease.watch.received() == answered;
                    is_silent
                        && lease.is_reused
                        && matches!(reason, Reason::UpstreamClosed | Reason::AgentLost)
                } else {
                    reason.fault() != Fault::Upstream
                },
                body: returned.map(Request::into_body),
            })
        }
    }
}

/// Ends when the request has made no progress for `timeout`.
async fn no_progress(progress: &Progress, timeout: Duration) {
    let mut seen = progress.bytes();
    loop {
        tokio::time::sleep_until(Instant::now() + timeout).await;
        let now = progress.bytes();
        if now == seen {
            return;
        }
        seen = now;
    }
}

fn failure_reason(error: &hyper::Error, lease: &Lease) -> Reason {
    let ended = lease.watch.end().or_else(|| StreamError::find(error).map(|end| end.reason));
    match ended {
        Some(Reason::Cancelled | Reason::Done) | None if error.is_parse() || error.is_parse_too_large() => {
            Reason::UpstreamInvalid
        }
        Some(Reason::Cancelled | Reason::Done) | None => Reason::UpstreamClosed,
        // An agent speaks for itself and its upstream, not for the client or the gateway's rules.
        Some(reason)
            if matches!(reason.fault(), Fault::Client | Fault::Policy) && reason != Reason::NotOffered =>
        {
            Reason::ProtocolError
        }
        Some(reason) => reason,
    }
}

/// Whether an agent that ends a stream with this reason has not passed a byte of it on. A session that was lost says
/// nothing of the kind: its agent may have passed on everything, and its word been lost with it.
const fn is_agents_word(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UpstreamRefused
            | Reason::UpstreamTimeout
            | Reason::UpstreamTls
            | Reason::UpstreamUnreachable
            | Reason::NotOffered
            | Reason::AgentDraining
            | Reason::Overloaded
    )
}

struct AbortOnDrop {
    watch: adit_tunnel::stream::Watch,
    armed: bool,
}

impl AbortOnDrop {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.watch.reset(Reason::ClientGone);
        }
    }
}
