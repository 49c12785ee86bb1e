//! The endpoints about what opens doors: invitations, certificates, secrets of tokens.

use std::time::Duration;

use adit_control::changes::Revoked;
use adit_control::model::{Kind, rfc3339};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::HeaderMap;
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::answer::{empty, json};
use super::asked::{At, name, number, optional_document};
use super::problem::Problem;
use super::resources::find;
use super::{Api, Asker};
use crate::grants::now;

/// The longest time that an old secret stays good beside a new one: 30 days.
const MAX_WINDOW: u64 = 30 * 24 * 60 * 60;
/// How long it is if nothing is said.
const WINDOW: u64 = 60 * 60;

/// How a secret is rotated.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    /// How long the old secrets stay good, in seconds; an hour if it is left out. 0 ends them at once.
    #[serde(default, deserialize_with = "number")]
    #[schema(maximum = 2_592_000, minimum = 0)]
    window_seconds: Option<u64>,
}

/// A rotated secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rotated {
    /// The new secret. It is told this once.
    token: String,
    /// Its id.
    id: String,
    /// Until when the old ones are good, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_until: Option<String>,
}

pub(super) async fn rotate(
    State(api): State<Api>,
    asker: Asker,
    At(at): At<String>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let token = name(&at)?;
    find(&api, Kind::Token, &token)?;
    let asked: Rotate = optional_document(&headers, request.into_body()).await?;
    let window = asked.window_seconds.unwrap_or(WINDOW);
    if window > MAX_WINDOW {
        let message = format!("window_seconds is {window}; {MAX_WINDOW} is the most");
        return Err(Problem::client("invalid", 422, message, "choose a shorter time"));
    }
    let window = Duration::from_secs(window);
    let (secret, until) = api.changes.rotate_secret(&asker.actor(), &token, window, now()).await?;
    api.credential_counted("rotate-secret");
    let token = secret.secret.expose().to_owned();
    let answer = Rotated { token, id: secret.id, old_until: until.map(rfc3339) };
    Ok(json(StatusCode::OK, &answer))
}

pub(super) async fn revoke_secrets(
    State(api): State<Api>,
    asker: Asker,
    At(at): At<String>,
) -> Result<Response<Body>, Problem> {
    api.changes.revoke_secret(&asker.actor(), &name(&at)?, None, now()).await?;
    api.credential_counted("revoke-secret");
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn revoke_secret(
    State(api): State<Api>,
    asker: Asker,
    At((at, id)): At<(String, String)>,
) -> Result<Response<Body>, Problem> {
    api.changes.revoke_secret(&asker.actor(), &name(&at)?, Some(&id), now()).await?;
    api.credential_counted("revoke-secret");
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn revoke_credentials(
    State(api): State<Api>,
    asker: Asker,
    At(at): At<String>,
) -> Result<Response<Body>, Problem> {
    let revoked = api.changes.revoke_credentials(&asker.actor(), &name(&at)?, None, now()).await?;
    api.credential_counted("revoke-credential");
    Ok(told(&revoked))
}

pub(super) async fn revoke_credential(
    State(api): State<Api>,
    asker: Asker,
    At((at, serial)): At<(String, String)>,
) -> Result<Response<Body>, Problem> {
    let serial = serial.to_ascii_lowercase();
    let revoked = api.changes.revoke_credentials(&asker.actor(), &name(&at)?, Some(&serial), now()).await?;
    api.credential_counted("revoke-credential");
    Ok(told(&revoked))
}

fn told(Revoked { serials, remaining }: &Revoked) -> Response<Body> {
    let count = serials.len();
    json(StatusCode::OK, &json!({ "revoked": count, "serials": serials, "remaining": remaining }))
}
