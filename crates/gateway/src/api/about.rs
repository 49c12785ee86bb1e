//! The endpoints about the gateway itself and whoever asks.

use adit_telemetry::reloads::Answer;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use http::header::{self, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::json;
use super::problem::Problem;
use super::{Api, Asker};
use crate::grants::now;
use crate::status;

/// The gateway.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InfoAnswer {
    /// Release.
    version: String,
    /// Commit it was built from.
    sha: String,
    /// `http`, or `tcp` when there is no HTTP listener.
    mode: String,
    /// Where resources are kept: `directory`, or `memory` when they are gone with the process.
    state: String,
    /// Whether the store answers. While it does not, the last resources stay in force and none can be changed.
    state_current: bool,
    /// The last change to resources.
    revision: u64,
    /// How many resources there are.
    resources: usize,
    /// The trust domain of identities, if there is an authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<String>,
    /// The machine's name.
    hostname: String,
}

pub(super) async fn info(State(api): State<Api>) -> Response<Body> {
    let about = &api.about;
    let answer = InfoAnswer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sha: about.sha.to_owned(),
        mode: status::mode(&about.live).to_owned(),
        state: about.state.to_owned(),
        state_current: api.changes.is_current(),
        revision: api.changes.revision(),
        resources: api.changes.model().count(),
        trust_domain: about.trust_domain.clone(),
        hostname: about.hostname.clone(),
    };
    json(StatusCode::OK, &answer)
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WhoAnswer {
    /// `identity:NAME` or `token:NAME`.
    name: String,
    /// Whether it may change resources.
    admin: bool,
    /// Whether it may read `/metrics`.
    metrics: bool,
}

pub(super) async fn whoami(State(api): State<Api>, asker: Asker) -> Response<Body> {
    let snapshot = api.snapshots.current();
    let (admin, metrics) = (asker.proven.is_admin(&snapshot), snapshot.may_read_metrics(&asker.proven.who));
    json(StatusCode::OK, &WhoAnswer { name: asker.actor().name, admin, metrics })
}

pub(super) async fn openapi() -> Response<Body> {
    // Made each time: it is asked for rarely, and keeping it takes more than a megabyte.
    json(StatusCode::OK, &super::openapi())
}

/// A configuration file that was read again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reloaded {
    /// True: it is in force.
    reloaded: bool,
    /// Keys of it that have changed and take effect only after a restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    after_restart: Vec<String>,
}

pub(super) async fn reload(State(api): State<Api>) -> Result<Response<Body>, Problem> {
    match api.observe.config().ask().await {
        Answer::Taken(after_restart) => Ok(json(StatusCode::OK, &Reloaded { reloaded: true, after_restart })),
        Answer::Refused(why) => {
            let next = "correct the file; the one before stays in force";
            Err(Problem::client("bad_configuration", 422, why, next))
        }
        Answer::NoFile => {
            let why = "this gateway was started from flags: there is no file to read again";
            Err(Problem::client("no_file", 409, why, "start it with `adit gateway -f FILE`"))
        }
    }
}

/// The store's file as of now. Who was given it stands in the audit log; but a full disk, where nothing can be written
/// any more, is when a backup is needed most: then it stands in the gateway's log alone.
pub(super) async fn backup(State(api): State<Api>, asker: Asker) -> Result<Response<Body>, Problem> {
    let unwritten = |error: std::io::Error| {
        let next = "look at the gateway's temporary directory and its disk";
        Problem::gateway("unavailable", 503, format!("the backup cannot be written: {error}"), next)
    };
    let folder = tokio::task::spawn_blocking(tempfile::tempdir).await.map_err(std::io::Error::other);
    let folder = folder.map_err(unwritten)?.map_err(unwritten)?;
    let path = folder.path().join("adit.db");
    match api.changes.store().backup(&path).await {
        Ok(()) => {}
        Err(adit_control::store::StoreError::Unsupported(why)) => {
            return Err(Problem::client("no_state", 409, why, "start the gateway with a state directory"));
        }
        Err(error) => return Err(adit_control::ChangeError::from(error).into()),
    }
    let bytes = tokio::fs::read(&path).await.map_err(unwritten)?;
    let actor = asker.actor();
    let address = actor.address.map(tracing::field::display);
    match api.changes.note_backup(&actor, now()).await {
        Ok(()) => tracing::info!(actor = actor.name, address, "a backup was made"),
        Err(error) => {
            tracing::error!(actor = actor.name, address, %error, "a backup was made, and cannot be recorded");
        }
    }
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.sqlite3"));
    let attachment = HeaderValue::from_static("attachment; filename=\"adit.db\"");
    headers.insert(header::CONTENT_DISPOSITION, attachment);
    Ok(response)
}
