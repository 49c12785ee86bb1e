//! Carries one flow from the public listener to its upstream. Read this first.

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{HeaderValue, Request, Response};
use adit_control::{Permit, Snapshots, Subject, authorize};
use adit_proto::names::ServiceName;
use adit_proto::reason::Reason;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::forward::body::ResponseBody;
use crate::forward::{self, Client};
use crate::grants::Grant;
use crate::http::guard::GuardHandle;
use crate::live::Live;
use crate::observe::{Observe, OpenConnection, Record};
use crate::refusal::{Form, Refusal};
use crate::sessions::{Service, Sessions};
use crate::sources::Share;
use crate::{identify, router};

/// Everything a flow needs, shared by all of them.
#[derive(Debug)]
pub(crate) struct DataPlane {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) observe: Observe,
    /// What a reload can change.
    pub(crate) live: Arc<Live>,
    /// This gateway's name in `Via`, unlike any other's.
    pub(crate) via: String,
    /// Tasks that belong to flows: upstream connections, upgraded connections and connections of TCP services.
    pub(crate) scope: adit_tunnel::scope::Scope,
}

impl DataPlane {
    /// The service that connections to a public TCP port are for: that of its route, else what agents offer there.
    pub(crate) fn service_at(&self, port: u16) -> Option<(Arc<Service>, Arc<Grant>)> {
        let snapshot = self.snapshots.current();
        match snapshot.route_for_port(port) {
            Some(name) => {
                let service = self.sessions.named(name);
                let by = ServiceName::Tcp(port);
                let grant = service.public_by(&by, &snapshot, self.sessions.grants());
                Some((service, grant))
            }
            None => {
                let service = self.sessions.at_port(port)?;
                let grant = Arc::clone(&service.public);
                Some((service, grant))
            }
        }
    }

    /// Whether the rules still say what they did when the permit was given. To be asked once something is open: what is
    /// published later finds it there.
    ///
    /// # Errors
    /// [`Reason::Revoked`].
    pub(crate) fn still_permitted(
        &self,
        permit: &Permit,
        subject: &Subject,
        grant: &Grant,
    ) -> Result<(), Reason> {
        if self.snapshots.is_current(permit.generation()) {
            return Ok(());
        }
        let snapshot = self.snapshots.current();
        if !grant.is_led(&snapshot) {
            return Err(Reason::Revoked);
        }
        authorize(&snapshot, subject, permit.service()).map(drop).map_err(|_denial| Reason::Revoked)
    }
}

/// What a public connection takes of what is there for all of them, until it has ended, and whatever it was upgraded to.
#[derive(Debug)]
pub(crate) struct Held {
    _slot: OwnedSemaphorePermit,
    _share: Option<Share>,
    _open: OpenConnection,
}

impl Held {
    pub(crate) fn new(slot: OwnedSemaphorePermit, share: Option<Share>, open: OpenConnection) -> Arc<Self> {
        Arc::new(Self { _slot: slot, _share: share, _open: open })
    }
}

/// What is known about the connection a flow came on.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: &'static str,
    /// Set for HTTP/1.x.
    pub(crate) guard: Option<GuardHandle>,
    /// The peer as `X-Forwarded-For` names it; every request of the connection carries it.
    pub(crate) forwarded_for: HeaderValue,
    /// The peer as `Forwarded` names it (RFC 7239 §6).
    pub(crate) node: Arc<str>,
    /// Kept by an upgrade, which goes on without the connection.
    pub(crate) held: Option<Arc<Held>>,
}

impl Connection {
    pub(crate) fn new(peer: SocketAddr, scheme: &'static str, guard: Option<GuardHandle>) -> Self {
        let address = peer.ip().to_canonical();
        let node = if address.is_ipv6() { format!("\"[{address}]\"") } else { address.to_string() };
        let forwarded_for = HeaderValue::try_from(address.to_string());
        Self {
            peer,
            scheme,
            guard,
            forwarded_for: forwarded_for.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            node: node.into(),
            held: None,
        }
    }

    /// It takes this of what is there for all.
    pub(crate) fn holding(mut self, held: Arc<Held>) -> Self {
        self.held = Some(held);
        self
    }
}

/// The outer half: whatever happens inside, including cancellation, ends in one record and one answer.
pub(crate) async fn carry(
    request: Request<Incoming>,
    connection: &Connection,
    plane: &Arc<DataPlane>,
) -> Response<ResponseBody> {
    let form = Form::wanted(request.headers());
    let mut record = plane.observe.begin(&request, connection);
    match try_carry(request, connection, plane, &mut record).await {
        Ok(forwarded) => forwarded.into_response(record),
        Err(refusal) => {
            tracing::debug!(reason = %refusal.reason, detail = %refusal.detail, "refused");
            refusal.into_response(form, record)
        }
    }
}

/// The inner half: the phases in order; each needs what the one before it returned.
async fn try_carry(
    request: Request<Incoming>,
    connection: &Connection,
    plane: &Arc<DataPlane>,
    record: &mut Record,
) -> Result<forward::Forwarded, Refusal> {
    let snapshot = plane.snapshots.current();
    let subject = identify::subject(&request, connection.peer, &snapshot);
    record.subject(&subject);
    let host = router::host(&request)?;
    let (service, grant) = router::resolve(&host, &snapshot, plane).await?;
    record.routed(&service);
    let permit = authorize(&snapshot, &subject, &service.name)?;
    let trusted = snapshot.rules().trusts(connection.peer.ip());
    let client = Client { connection, subject: &subject, grant: &grant, trusted, via: &plane.via };
    let forwarded = forward::forward(request, &permit, &service, client, plane, record).await;
    // What was revoked meanwhile has lost its stream or its agents, and that is not the reason.
    forwarded.map_err(|refusal| {
        plane.still_permitted(&permit, &subject, &grant).err().map_or(refusal, Refusal::from)
    })
}
