//! The admin interface: resources as JSON over HTTP, on the control port below `/v1/`.
//!
//! Reading order: `routes` has every endpoint with its description, `resources` what every kind has. Who asks is known
//! before anything here sees a request (`control_port/proving.rs`); every no is a `Problem`.

use std::collections::HashSet;
use std::sync::Arc;

use adit_control::changes::{Action, Batch, Outcome, Stored};
use adit_control::model::{Kind, Model, Resource};
use adit_control::{Actor, Changes, Snapshots, Who};
use adit_tunnel::scope::Scope;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse as _, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::Semaphore;
use tower_service::Service as _;

use crate::control_port::Caller;
use crate::control_port::proving::Proven;
use crate::enrolling::Enrolling;
use crate::live::Live;
use crate::observe::Observe;
use crate::sessions::Sessions;
use crate::tcp::ports::Ports;
use answer::Presence;
use apart::Apart;
pub(crate) use problem::{Problem, Unaccepted};

mod about;
mod answer;
mod apart;
mod asked;
mod audit;
mod batch;
mod credentials;
mod document;
mod enrolling;
mod explain;
mod problem;
mod resources;
mod routes;
mod shown;
mod strict;
mod watch;

pub use document::openapi;

/// What the gateway says about itself.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) sha: &'static str,
    pub(crate) live: Arc<Live>,
    /// The port that agents and operators connect to.
    pub(crate) control_port: u16,
    /// `directory` or `memory`.
    pub(crate) state: &'static str,
    pub(crate) trust_domain: Option<String>,
    pub(crate) hostname: String,
}

/// What the interface answers from.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) changes: Arc<Changes>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) ports: Ports,
    pub(crate) observe: Observe,
    pub(crate) enrolling: Arc<Enrolling>,
    pub(crate) about: Arc<About>,
    /// Cancelled when a drain begins: watches end.
    pub(crate) draining: Scope,
    watches: Arc<Semaphore>,
}

/// Everything that is needed for it.
pub(crate) struct Parted {
    pub(crate) changes: Arc<Changes>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) ports: Ports,
    pub(crate) observe: Observe,
    pub(crate) enrolling: Arc<Enrolling>,
    pub(crate) about: About,
    pub(crate) draining: Scope,
}

/// The interface with its routes.
#[derive(Debug)]
pub(crate) struct Admin {
    router: axum::Router,
    apart: Apart,
    changes: Arc<Changes>,
    snapshots: Arc<Snapshots>,
    observe: Observe,
}

/// An answer whose body has no end that is known yet: it has no proof.
#[derive(Debug, Clone, Copy)]
struct Streaming;

/// Who asks, as far as handlers need it.
#[derive(Debug, Clone)]
struct Asker {
    proven: Arc<Proven>,
    caller: Caller,
}

impl Asker {
    fn actor(&self) -> Actor {
        let name = match &self.proven.who {
            Who::Public => "public".to_owned(),
            Who::Identity(name) => format!("identity:{name}"),
            Who::Token(name) => format!("token:{name}"),
        };
        Actor { name, address: Some(self.caller.peer()) }
    }
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let missing = || {
            Problem::gateway("internal", 500, "nobody said who asks", "report this; it is a mistake in Adit")
        };
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

impl Admin {
    pub(crate) fn new(parted: Parted) -> Self {
        let Parted { changes, snapshots, sessions, ports, observe, enrolling, about, draining } = parted;
        let owner = Arc::clone(&changes);
        let api = Api {
            changes,
            snapshots: Arc::clone(&snapshots),
            sessions,
            ports,
            observe: observe.clone(),
            enrolling,
            about: Arc::new(about),
            draining,
            watches: Arc::new(Semaphore::new(watch::MAX_WATCHES)),
        };
        Self { router: routes::router(api), apart: Apart::new(), changes: owner, snapshots, observe }
    }

    /// Whether a path is the interface's.
    pub(crate) fn is_for(path: &str) -> bool {
        path == "/v1" || path.starts_with("/v1/") || path == routes::RELOAD
    }

    /// Whether this is for whoever has an invitation or a certificate, whatever its rights.
    pub(crate) fn is_open(method: &Method, path: &str) -> bool {
        *method == Method::POST && matches!(path, routes::ENROLL | routes::RENEW)
    }

    /// Whether the store answers.
    pub(crate) fn is_current(&self) -> bool {
        self.changes.is_current()
    }

    /// Whether the last change could be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.changes.is_writable()
    }

    /// Answers what [`Self::is_open`]. `failed` is asked when what was shown is not good, and may have another answer.
    pub(crate) async fn answer_anybody<B>(
        &self,
        request: Request<B>,
        caller: &Caller,
        failed: impl FnOnce() -> Option<Problem>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let template = routes::template(request.uri().path());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller.clone());
        let mut response = self.route(request).await;
        if response.extensions().get::<Unaccepted>().is_some()
            && let Some(problem) = failed()
        {
            response = problem.into_response();
        }
        self.observe.admin_request(template, response.status().as_u16());
        common(response)
    }

    async fn route(&self, request: Request<Body>) -> Response<Body> {
        if let Err(problem) = strict::check(&request) {
            return problem.into_response();
        }
        match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Answers somebody who has shown who it is.
    pub(crate) async fn answer<B>(
        self: &Arc<Self>,
        request: Request<B>,
        proven: Proven,
        caller: Caller,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let template = routes::template(request.uri().path());
        let asker = Asker { proven: Arc::new(proven), caller };
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(asker.clone());
        let response = if template == routes::WHOAMI {
            finish(self.route(request).await, &asker).await
        } else if asker.proven.is_admin(&self.snapshots.current()) {
            let admin = Arc::clone(self);
            self.apart.answer(async move { finish(admin.route(request).await, &asker).await }).await
        } else {
            finish(Problem::not_admin(&asker.actor().name).into_response(), &asker).await
        };
        self.observe.admin_request(template, response.status().as_u16());
        response
    }

    /// Answers somebody who has not.
    pub(crate) fn refuse(&self, path: &str, problem: Problem) -> Response<Body> {
        let response = problem.into_response();
        self.observe.admin_request(routes::template(path), response.status().as_u16());
        common(response)
    }
}

fn common(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Adds the gateway's own proof for a caller that gave one.
async fn finish(response: Response<Body>, asker: &Asker) -> Response<Body> {
    const PROOF: HeaderName = HeaderName::from_static("adit-proof");
    let response = common(response);
    let Some(key) = asker.proven.key.as_ref().filter(|_| response.extensions().get::<Streaming>().is_none())
    else {
        return response;
    };
    let (mut parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(error) => {
            let next = "try again";
            return Problem::gateway("internal", 500, format!("no answer: {error}"), next).into_response();
        }
    };
    if let Ok(value) = HeaderValue::from_str(&asker.caller.proof_of(key, &bytes)) {
        parts.headers.insert(PROOF, value);
    }
    Response::from_parts(parts, Body::from(bytes))
}

impl Api {
    /// Makes changes, and counts them.
    async fn apply(&self, asker: &Asker, batch: Batch) -> Result<Outcome, Problem> {
        let is_dry = batch.dry_run;
        let about = batch.changes.first().map(adit_control::changes::Change::kind);
        match self.changes.apply(&asker.actor(), batch, crate::grants::now()).await {
            Ok(outcome) => {
                for changed in
                    outcome.changes.iter().filter(|changed| !is_dry && changed.action != Action::None)
                {
                    self.counted(changed.kind, changed.action, 1);
                }
                if outcome.changes.iter().any(|changed| changed.kind == Kind::Route) {
                    // So that the answer can tell of ports that cannot be had.
                    self.ports.follow(&self.snapshots.current());
                }
                Ok(outcome)
            }
            Err(error) => {
                self.observe.change_refused(about, error.code);
                Err(error.into())
            }
        }
    }

    fn counted(&self, kind: Kind, action: Action, count: u64) {
        self.observe.changed(kind.singular(), action.label(), count);
    }

    fn credential_counted(&self, action: &'static str) {
        self.observe.changed("credential", action, 1);
    }

    fn presence<'a>(&'a self, model: &'a Model) -> Presence<'a> {
        let online: HashSet<String> =
            self.sessions.list().iter().map(|agent| agent.identity().to_ascii_lowercase()).collect();
        Presence { model, online, api: self }
    }

    /// What of a resource comes to nothing here, for people.
    fn remarks(&self, resource: &Resource) -> Vec<String> {
        let Resource::Route(route) = resource else { return Vec::new() };
        let hosts = (!route.hosts.is_empty() && !self.about.live.has_http())
            .then(|| "no host of it is served: this gateway has no HTTP listener".to_owned());
        let unserved =
            |port: &u16| Some(format!("port {port} is not served: {}", self.ports.unserved(*port)?));
        hosts.into_iter().chain(route.ports.iter().filter_map(unserved)).collect()
    }

    /// One resource as it is answered alone; in lists what [`shown`] adds is left out.
    fn item(&self, stored: &Stored) -> Value {
        let model = self.changes.model();
        let mut item = answer::item(stored, &self.presence(&model));
        if let Value::Object(fields) = &mut item {
            shown::add(self, stored.resource.kind(), stored.resource.name(), fields);
        }
        item
    }
}
