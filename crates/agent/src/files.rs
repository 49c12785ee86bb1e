//! Serves one directory over HTTP, and nothing outside it.
//!
//! A request passes through four steps: `target` reads the path, `lookup` opens what it names, `conditional` and
//! `range` decide how much of it is sent, and `body` streams it.

mod auth;
mod body;
mod conditional;
mod listing;
mod lookup;
mod range;
mod target;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderName, HeaderValue, LAST_MODIFIED, LOCATION, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use auth::Credentials;
use body::{FileBody, Piece};
use conditional::Verdict;
use listing::{Format, Page};
use lookup::{Found, Opened};
use range::{Selection, Span};
use target::Target;

/// The body of every answer. It errs when a file cannot be read to its announced end; the connection must then be
/// cut, because the length has already been promised.
pub type Body = BoxBody<Bytes, io::Error>;

/// The message that scripts written for the usual tunnel's file server look for.
const NOT_FOUND: &str = "unable to find requested file\n";
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A directory that is served. Clones share the open directory.
///
/// The directory is held open: renaming it does not change what is served, and replacing it does not either.
#[derive(Clone, Debug)]
pub struct Files {
    root: Arc<Dir>,
    browsing: bool,
    credentials: Option<Credentials>,
}

impl Files {
    /// Opens the directory to serve; `browsing` lets directories without an `index.html` be listed. It blocks for
    /// one system call, and is called when an agent or a file server starts.
    ///
    /// # Errors
    /// What the system says when `root` does not exist, is no directory, or may not be opened.
    pub fn open(root: &Path, browsing: bool) -> io::Result<Self> {
        let root = Arc::new(Dir::open_ambient_dir(root, ambient_authority())?);
        Ok(Self { root, browsing, credentials: None })
    }

    /// Demands these credentials of every request (RFC 7617). The username must not contain a colon, because the
    /// protocol ends it there.
    #[must_use]
    pub fn with_basic_auth(self, username: &str, password: &str) -> Self {
        Self { credentials: Some(Credentials::new(username, password)), ..self }
    }

    /// Answers one request. The request's body is dropped unread, and a HEAD is answered with the headers of its
    /// GET. The answer's body reads the file 64 KiB at a time, only when polled, and must be polled inside a Tokio
    /// runtime; dropping it closes the file.
    ///
    /// Cancel safe: a look-up that was under way ends on its own and is discarded.
    pub async fn serve<B>(&self, request: Request<B>) -> Response<Body> {
        let (head, body) = request.into_parts();
        drop(body);
        let mut response = self.answer(&head).await;
        if head.method == Method::HEAD {
            *response.body_mut() = empty();
        }
        response
    }

    async fn answer(&self, head: &Parts) -> Response<Body> {
        if self.credentials.as_ref().is_some_and(|known| !known.admit(&head.headers)) {
            return unauthorized();
        }
        match head.method {
            Method::GET | Method::HEAD => self.read(head).await,
            Method::OPTIONS => with(status(StatusCode::NO_CONTENT), ALLOW, METHODS),
            _ => with(text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"), ALLOW, METHODS),
        }
    }

    async fn read(&self, head: &Parts) -> Response<Body> {
        let target = match Target::parse(head.uri.path()) {
            Ok(target) => target,
            Err(refusal) => return refusal.response(),
        };
        let listing = self.browsing.then(|| Format::preferred(&head.headers));
        let root = Arc::clone(&self.root);
        let found = tokio::task::spawn_blocking(move || lookup::find(&root, &target, listing)).await;
        match found {
            Ok(Ok(Found::File(opened))) => file(head, opened),
            Ok(Ok(Found::Directory)) => redirect(&head.uri),
            Ok(Ok(Found::Listing(page))) => listed(page),
            Ok(Err(refusal)) => refusal.response(),
            // The runtime is shutting down, so the look-up never ran.
            Err(_) => Refusal::Failed.response(),
        }
    }
}

/// Why a path is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The request's path is not one that a URL can have, or holds a NUL.
    Malformed,
    /// Nothing is there, or nothing that may be seen.
    NotFound,
    /// It is there, and this process may not read it.
    Forbidden,
    /// The system failed.
    Failed,
}

impl Refusal {
    fn response(self) -> Response<Body> {
        match self {
            Self::Malformed => text(StatusCode::BAD_REQUEST, "malformed request path\n"),
            Self::NotFound => text(StatusCode::NOT_FOUND, NOT_FOUND),
            Self::Forbidden => text(StatusCode::FORBIDDEN, "not permitted to read requested file\n"),
            Self::Failed => text(StatusCode::INTERNAL_SERVER_ERROR, "unable to read requested file\n"),
        }
    }
}

/// Answers with a file, after the preconditions and ranges that the request names.
fn file(head: &Parts, opened: Opened) -> Response<Body> {
    // Preconditions are evaluated before Range, because RFC 9110 section 13.2.2 orders them so.
    match conditional::evaluate(&head.headers, &opened.validators) {
        Verdict::Failed => return text(StatusCode::PRECONDITION_FAILED, "precondition failed\n"),
        Verdict::NotModified => return validated(status(StatusCode::NOT_MODIFIED), &opened),
        Verdict::Proceed => {}
    }
    // RFC 9110 section 14.2 defines Range for GET alone, so HEAD describes the whole file.
    let ranged = head.method == Method::GET && conditional::range_applies(&head.headers, &opened.validators);
    let selection = if ranged { range::select(&head.headers, opened.len) } else { Selection::Whole };
    match selection {
        Selection::Whole => whole(opened),
        Selection::Unsatisfiable => {
            let refused = text(StatusCode::RANGE_NOT_SATISFIABLE, "range not satisfiable\n");
            with(refused, CONTENT_RANGE, ascii(&format!("bytes */{}", opened.len)))
        }
        Selection::Single(span) => single(opened, span),
        Selection::Several(spans) => several(opened, &spans),
    }
}

fn whole(opened: Opened) -> Response<Body> {
    let content_type = ascii(&opened.content_type);
    let response = described(StatusCode::OK, content_type, opened.len, &opened);
    let pieces = vec![Piece::File { start: 0, len: opened.len }];
    response.map(|_| FileBody::new(opened.file, pieces).boxed())
}

fn single(opened: Opened, span: Span) -> Response<Body> {
    let content_type = ascii(&opened.content_type);
    let response = described(StatusCode::PARTIAL_CONTENT, content_type, span.len(), &opened);
    let response = with(response, CONTENT_RANGE, ascii(&span.content_range(opened.len)));
    let pieces = vec![Piece::File { start: span.first, len: span.len() }];
    response.map(|_| FileBody::new(opened.file, pieces).boxed())
}

/// RFC 9110 section 15.3.7.2: each range is a part, and only the parts carry Content-Range.
fn several(opened: Opened, spans: &[Span]) -> Response<Body> {
    let boundary = range::boundary();
    let pieces = range::multipart(spans, &boundary, &opened.content_type, opened.len);
    let content_type = ascii(&format!("multipart/byteranges; boundary={boundary}"));
    let len = pieces.iter().map(Piece::len).sum();
    let response = described(StatusCode::PARTIAL_CONTENT, content_type, len, &opened);
    response.map(|_| FileBody::new(opened.file, pieces).boxed())
}

/// The headers that a file's 200 and 206 share.
fn described(code: StatusCode, content_type: HeaderValue, len: u64, opened: &Opened) -> Response<Body> {
    let response = with(status(code), CONTENT_TYPE, content_type);
    let response = with(response, CONTENT_LENGTH, HeaderValue::from(len));
    let response = with(response, ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    validated(with(response, X_CONTENT_TYPE_OPTIONS, NOSNIFF), opened)
}

fn validated(response: Response<Body>, opened: &Opened) -> Response<Body> {
    let response = with(response, ETAG, ascii(&opened.validators.etag));
    let Some(modified) = opened.validators.modified else { return response };
    // RFC 9110 section 8.8.2.1: a time that is yet to come must not be sent, so it is sent as now.
    let now = conditional::http_time(SystemTime::now());
    let shown = now.map_or(modified, |now| modified.min(now));
    with(response, LAST_MODIFIED, ascii(&httpdate::fmt_http_date(shown)))
}

fn listed(page: Page) -> Response<Body> {
    let response = with(status(StatusCode::OK), CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    let response = with(response, CONTENT_LENGTH, HeaderValue::from(page.text.len()));
    let response = with(response, X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    // A name that slipped through the escaping still could not run anything.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    let response = with(response, CONTENT_SECURITY_POLICY, policy);
    with(response, VARY, HeaderValue::from_static("accept")).map(|_| full(page.text.into()))
}

/// Sends a browser from `/dir` to `/dir/`, so that the links in the directory's page resolve below it.
///
/// The path was accepted, so it begins with one slash and a name without slashes of either kind: what is sent can
/// never be read as `//host` (RFC 3986 section 4.2).
fn redirect(uri: &Uri) -> Response<Body> {
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let location = format!("{}/{query}", uri.path());
    // A client may send bytes beyond ASCII unescaped, and a header must not.
    let location = utf8_percent_encode(&location, CONTROLS).to_string();
    with(text(StatusCode::MOVED_PERMANENTLY, "moved permanently\n"), LOCATION, ascii(&location))
}

fn unauthorized() -> Response<Body> {
    let challenge = HeaderValue::from_static("Basic realm=\"adit\", charset=\"UTF-8\"");
    with(text(StatusCode::UNAUTHORIZED, "credentials required\n"), WWW_AUTHENTICATE, challenge)
}

fn text(code: StatusCode, message: &'static str) -> Response<Body> {
    let response = with(status(code), CONTENT_TYPE, TEXT);
    let response = with(response, X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    with(response, CONTENT_LENGTH, HeaderValue::from(message.len()))
        .map(|_| full(Bytes::from_static(message.as_bytes())))
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = code;
    response
}

fn with(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

/// A header value from text that this module wrote, which holds visible ASCII only.
fn ascii(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("the file server writes header values in visible ASCII")
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn full(content: Bytes) -> Body {
    Full::new(content).map_err(|never| match never {}).boxed()
}

#[cfg(test)]
mod tests;
