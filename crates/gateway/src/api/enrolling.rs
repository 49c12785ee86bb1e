//! The endpoints by which identities come to certificates. Two of them are for whoever has an invitation or a
//! certificate, and need no right.

use std::time::Duration;

use adit_control::model::{Kind, rfc3339};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::Response;
use http::header::HeaderMap;
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::json;
use super::asked::{At, document, name, number, optional_document};
use super::problem::Problem;
use super::resources::find;
use super::{Api, Asker};
use crate::control_port::Caller;
use crate::enrolling::{EnrollRequest, RenewRequest};
use crate::grants::now;

/// Bytes of a request for a certificate at most.
const MAX_REQUEST: usize = 64 * 1024;
/// The longest time that an invitation is good: 30 days.
const MAX_LIFE: u64 = 30 * 24 * 60 * 60;

/// How an identity is invited.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Invite {
    /// How long the invitation is good, in seconds; what the gateway is configured with if it is left out.
    #[serde(default, deserialize_with = "number")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    ttl_seconds: Option<u64>,
}

/// An invitation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Invited {
    /// The one-time token for `adit enroll`.
    jwt: String,
    /// When it ends.
    expires_at: String,
}

pub(super) async fn invite(
    State(api): State<Api>,
    asker: Asker,
    At(at): At<String>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let stored = find(&api, Kind::Identity, &name(&at)?)?;
    let identity = stored.resource.name();
    let asked: Invite = optional_document(&headers, request.into_body()).await?;
    let ttl = match asked.ttl_seconds {
        None => api.enrolling.life(),
        Some(seconds @ 1..=MAX_LIFE) => Duration::from_secs(seconds),
        Some(other) => {
            let message = format!("ttl_seconds is {other}; it is between 1 and {MAX_LIFE}");
            return Err(Problem::client("invalid", 422, message, "choose another time"));
        }
    };
    let now = now();
    let invitation = api.changes.invite(&asker.actor(), identity, ttl, now).await?;
    api.credential_counted("invite");
    let jwt = api.enrolling.token(identity, &invitation.jti, invitation.expires_at, now)?;
    Ok(json(StatusCode::OK, &Invited { jwt, expires_at: rfc3339(invitation.expires_at) }))
}

pub(super) async fn enroll(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let asked: EnrollRequest = document(&headers, request.into_body(), MAX_REQUEST).await?;
    let certified = api.enrolling.enroll(&api.changes, &asked, Some(caller.peer()), now()).await?;
    api.credential_counted("enroll");
    Ok(json(StatusCode::OK, &certified))
}

pub(super) async fn renew(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let Some(peer) = caller.certificate() else {
        let next = "connect with the identity's certificate, or enroll with an invitation";
        return Err(Problem::client("unauthorized", 401, "no certificate was shown to be renewed", next));
    };
    let asked: RenewRequest = document(&headers, request.into_body(), MAX_REQUEST).await?;
    let certified = api.enrolling.renew(&api.changes, peer, &asked, Some(caller.peer()), now()).await?;
    caller.proved();
    api.credential_counted("renew");
    Ok(json(StatusCode::OK, &certified))
}
