//! Every no of the admin interface, as JSON: a code, what is wrong, whose fault it is, and what to do next.

use adit_control::ChangeError;
use adit_proto::reason::{Fault, Reason};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;

/// An error, with headers that belong to its status.
#[derive(Debug)]
pub(crate) struct Problem {
    error: Box<ChangeError>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// In the extensions of an answer to somebody who has shown a one-time token that is not good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unaccepted;

/// How an error is answered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorAnswer {
    error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// A word for programs.
    code: String,
    /// A sentence for people.
    message: String,
    /// Whose move it is: `client`, `policy`, `gateway`…
    fault: String,
    /// What to do.
    next: String,
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        Self { error: Box::new(error), header: None }
    }
}

impl Problem {
    pub(super) fn client(code: &'static str, status: u16, message: impl Into<String>, next: &str) -> Self {
        ChangeError::client(code, status, message, next).into()
    }

    /// The request is not what this endpoint takes.
    pub(super) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::client(code, 400, message, "see GET /v1/openapi.json for what it takes")
    }

    pub(super) fn gateway(code: &'static str, status: u16, message: impl Into<String>, next: &str) -> Self {
        let (message, next) = (message.into(), next.to_owned());
        ChangeError { code, status, message, fault: Fault::Gateway, next }.into()
    }

    /// The same no, as one to what was demanded of the state.
    pub(super) fn into_precondition(mut self) -> Self {
        if matches!(self.error.code, "exists" | "not_found") {
            self.error.status = 412;
        }
        self
    }

    /// There is no one credential to look at.
    pub(crate) fn two_credentials() -> Self {
        let next = "send one Authorization header";
        Self::client("bad_header", 400, "there are two Authorization headers", next)
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// Who asks has failed too often, and hears no more for so many seconds.
    pub(crate) fn barred(seconds: u64) -> Self {
        let (code, status) = (Reason::RateLimited.label(), Reason::RateLimited.status());
        let next = "wait a minute; the right token is let in all the same";
        let mut problem = Self::client(code, status, "too many failed attempts from this address", next);
        problem.header = Some((header::RETRY_AFTER, HeaderValue::from(seconds)));
        problem
    }

    /// Who asks has not shown who it is.
    pub(crate) fn unproven(reason: Reason) -> Self {
        let (code, status) = (reason.label(), reason.status());
        let next = "send the token of an administrator as `Authorization: Bearer TOKEN`, or use an identity's certificate";
        let message = match reason {
            Reason::Unauthorized => "this needs a credential, and none that is good was shown",
            _ => reason.explanation(),
        };
        Self::client(code, status, message, next).with(header::WWW_AUTHENTICATE, "Bearer realm=\"adit\"")
    }

    /// Who asks has no right to.
    pub(super) fn not_admin(who: &str) -> Self {
        ChangeError {
            code: "not_admin",
            status: 403,
            message: format!("{who} may not use the admin interface"),
            fault: Fault::Policy,
            next: who.strip_prefix("identity:").map_or_else(
                || "use the token of an administrator, or an identity with the admin right".to_owned(),
                |name| format!("an administrator can give it the right: adit identity update {name} --admin"),
            ),
        }
        .into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let ChangeError { code, status, message, fault, next } = *self.error;
        let (fault, message) = (fault.label().to_owned(), shortened(message));
        let body = ErrorAnswer { error: ErrorDetail { code: code.to_owned(), message, fault, next } };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = answer::json(status, &body);
        if body.error.code.starts_with("enrollment_") {
            response.extensions_mut().insert(Unaccepted);
        }
        let headers: &mut HeaderMap = response.headers_mut();
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response
    }
}

/// Characters of what stands in quotes, most often the asker's own, that an answer repeats.
const QUOTED: usize = 100;
/// Characters of a whole message, of its begin and of its end. Most of it is quoted whatever its quotes are.
const ENDS: (usize, usize) = (3000, 1000);

/// A message as it was, unless it repeats at length what it is about.
fn shortened(message: String) -> String {
    if message.len() <= QUOTED {
        return message;
    }
    let mut short = String::new();
    // Where a quote opens, and its mark; whatever has no end is none.
    let mut rest = message.as_str();
    while let Some((at, mark)) = rest.char_indices().find(|(_, c)| matches!(c, '`' | '"')) {
        let (before, quote) = rest.split_at(at);
        let inner = quote.strip_prefix(mark).unwrap_or_default();
        let Some((inner, behind)) = inner.split_once(mark) else { break };
        short.push_str(before);
        short.push(mark);
        match inner.char_indices().nth(QUOTED) {
            Some((cut, _)) => short.extend([inner.get(..cut).unwrap_or_default(), "…"]),
            None => short.push_str(inner),
        }
        short.push(mark);
        rest = behind;
    }
    short.push_str(rest);
    let count = short.chars().count();
    if count <= ENDS.0 + ENDS.1 {
        return short;
    }
    let begin = short.chars().take(ENDS.0);
    begin.chain(" … ".chars()).chain(short.chars().skip(count - ENDS.1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_repeated_at_length() {
        let long = "x".repeat(500_000);
        let short = "x".repeat(QUOTED);
        for (message, answered) in [
            (format!("`{long}`: too long"), format!("`{short}…`: too long")),
            (
                format!("type: string \"{long}\", expected `{long}` at line 1"),
                format!("type: string \"{short}…\", expected `{short}…` at line 1"),
            ),
            (format!("`{short}` and `a` it's"), format!("`{short}` and `a` it's")),
            (
                format!("service `wiki` {short} has no end: `"),
                format!("service `wiki` {short} has no end: `"),
            ),
            ("é".repeat(4000), "é".repeat(4000)),
            ("é".repeat(4001), format!("{} … {}", "é".repeat(3000), "é".repeat(1000))),
        ] {
            assert_eq!(shortened(message), answered);
        }
        assert!(shortened(format!("`{long} is open")).chars().count() < 4100);
    }
}
