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

    /// Who asks has not shown who it is.
    pub(crate) fn unproven(reason: Reason) -> Self {
        let (code, status) = (reason.label(), reason.status());
        if reason == Reason::RateLimited {
            let next = "wait a minute; the right token is let in all the same";
            return Self::client(code, status, "too many failed attempts from this address", next)
                .with(header::RETRY_AFTER, "60");
        }
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
        let fault = fault.label().to_owned();
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
