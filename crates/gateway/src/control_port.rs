//! The control port: where agents open sessions, and where `adit status` and Prometheus ask. One TLS port; ALPN
//! tells raw sessions from HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_control::authority::{Authority, PeerCertificate};
use adit_control::{Snapshot, Snapshots, Who, authorize_offer};
use adit_proto::handshake::{ALPN, Hello, Notice, Refused, capabilities};
use adit_proto::limits::MAX_NOTICES;
use adit_proto::names::ServiceName;
use adit_proto::reason::Reason;
use adit_tunnel::handshake::{self, Agreement, Credential};
use adit_tunnel::proof::Exporter;
use adit_tunnel::read_ahead::ReadAhead;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Beginning, Session, Side};
use adit_tunnel::tls::{exporter, handshake_label};
use adit_tunnel::transport::{SEND_BUFFER, tune};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::api::Admin;
use crate::grants::now;
use crate::listener::accept_all;
use crate::live::Live;
use crate::observe::{Carrier, Observe};
use crate::opened::{self, Granted, Opened};
use crate::sessions::{Arrival, Decided, Registration, Sessions, Shown};
use crate::tcp::ports::Ports;
use adit_tunnel::transport::quic::Listener;
use keys::Keys;
use pace::some;
use penalty::Penalties;
use quic::Door;
use unproved::{Place, Unproved};

mod http;
pub(crate) mod keys;
mod pace;
mod penalty;
pub(crate) mod proving;
pub(crate) mod quic;
mod remainder;
mod unproved;

/// Connections at once that are not sessions: handshakes, and callers of the HTTP face. More wait in the kernel.
const MAX_CALLERS: usize = 16 * 1024;
/// How long a connection has for TLS, and again for its hello.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may wait for its turn: as long as an agent does that has learned to.
const TURN: Duration = Duration::from_secs(40);

/// Everything the control port answers from.
#[derive(Debug)]
pub(crate) struct ControlPort {
    pub(crate) sessions: Arc<Sessions>,
    /// Public ports that agents may offer.
    pub(crate) ports: Ports,
    /// Streams that agents open.
    pub(crate) opened: Opened,
    pub(crate) snapshots: Arc<Snapshots>,
    /// What a reload can change.
    pub(crate) live: Arc<Live>,
    pub(crate) observe: Observe,
    pub(crate) keys: Keys,
    /// Whose certificates callers may show.
    pub(crate) identities: Arc<Authority>,
    pub(crate) penalties: Penalties,
    /// The interface below `/v1/`.
    pub(crate) admin: Arc<Admin>,
    /// PEM of the gateway's own authority, if it has one.
    pub(crate) authority: Option<String>,
    pub(crate) hostname: String,
    pub(crate) revision: &'static str,
    pub(crate) started: SystemTime,
    /// Cancelled when a drain begins: `/ready` says so, and no agent is let in any more.
    pub(crate) draining: Scope,
    /// Cancelled at the end of a drain: connections that ask finish and close.
    pub(crate) asking: Scope,
    /// Owner of connections and sessions.
    pub(crate) scope: Scope,
}

/// Where callers come in.
pub(crate) struct Doors {
    pub(crate) listener: TcpListener,
    pub(crate) tls: TlsAcceptor,
    /// If QUIC is wanted: what it takes, and the port unless it is taken for now.
    pub(crate) quic: Option<(Door, Option<Listener>)>,
}

/// What an unproved connection occupies.
#[derive(Debug)]
struct Slot {
    _caller: OwnedSemaphorePermit,
    place: Place,
}

/// Who is connected, before it has said anything.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    peer: SocketAddr,
    exporter: Exporter,
    /// The certificate it has shown, if it is one of the authority's for an identity.
    certificate: Option<PeerCertificate>,
    /// How TLS began: `full` or `resumed`.
    tls: &'static str,
    /// Held until the caller has proved itself or is gone.
    slot: Arc<parking_lot::Mutex<Option<Slot>>>,
    /// Told whenever the caller has proved itself.
    proved: Arc<Notify>,
    /// How long it may take for what it does first.
    patience: Duration,
}

/// An agent that was taken in, and has not been told yet.
struct Admitted {
    /// Of a session; a further lane has none of its own.
    registration: Option<Registration>,
    beginning: Beginning,
}

/// What an agent hears of whose offers none is permitted: the first one's message, and what else is.
fn refused_all(denied: &[Notice]) -> (Reason, String) {
    let Some(first) = denied.first() else {
        return (Reason::BadRequest, "the agent offers no service".to_owned());
    };
    let mut text = format!("{}: {}", first.service, first.message);
    match &denied[1..] {
        [] => {}
        [other] => text = format!("{text}; nor is {} permitted", other.service),
        others => text = format!("{text}; nor are {} other offers permitted", others.len()),
    }
    (first.reason, text)
}

impl Caller {
    /// The caller has shown who it is: it no longer counts among those that might be anybody.
    pub(crate) fn proved(&self) {
        drop(self.slot.lock().take());
        self.proved.notify_one();
    }

    fn is_proved(&self) -> bool {
        self.slot.lock().is_none()
    }
}

impl ControlPort {
    pub(crate) fn penalties(live: &Arc<Live>) -> Penalties {
        Penalties::new(Arc::clone(live))
    }

    /// Serves until its scope ends.
    pub(crate) async fn run(self: Arc<Self>, doors: Doors) {
        let Doors { listener, tls, quic } = doors;
        let slots = Arc::new(Semaphore::new(MAX_CALLERS));
        let unproved = Arc::new(Unproved::new());
        let by_tcp = Arc::clone(&self).accept_tcp(listener, tls, Arc::clone(&slots), Arc::clone(&unproved));
        match quic {
            None => by_tcp.await,
            Some((door, bound)) => {
                tokio::join!(by_tcp, quic::run(self, door, bound, slots, unproved));
            }
        }
    }

    async fn accept_tcp(
        self: Arc<Self>,
        listener: TcpListener,
        tls: TlsAcceptor,
        slots: Arc<Semaphore>,
        unproved: Arc<Unproved>,
    ) {
        accept_all(
            move |cx| listener.poll_accept(cx),
            slots,
            |tcp, peer, slot| {
                let (port, tls, unproved) = (Arc::clone(&self), tls.clone(), Arc::clone(&unproved));
                self.scope.spawn_with("control connection", tcp, move |tcp| async move {
                    // Who has waited that long for its turn has given up: the place is for somebody who has not.
                    if let Ok(Some(place)) = tokio::time::timeout(TURN, unproved.place(peer.ip())).await {
                        let slot = Slot { _caller: slot, place };
                        port.serve(tcp, peer, tls, slot).await;
                    }
                });
            },
        )
        .await;
    }

    async fn serve(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, tls: TlsAcceptor, slot: Slot) {
        if tune(&tcp).is_err() {
            return;
        }
        let patience = slot.place.patience;
        let stream = match tokio::time::timeout(patience, tls.accept(ReadAhead::new(tcp))).await {
            Ok(Ok(mut stream)) => {
                stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER));
                stream
            }
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a TLS handshake on the control port failed");
                return;
            }
            Err(_elapsed) => return,
        };
        let tls = handshake_label(stream.get_ref().1);
        let certificate =
            stream.get_ref().1.peer_certificates().and_then(|shown| self.identities.peer(shown));
        let Ok(exporter) = exporter(stream.get_ref().1) else { return };
        let slot = Arc::new(parking_lot::Mutex::new(Some(slot)));
        let caller = Caller { peer, exporter, certificate, tls, slot, proved: Arc::default(), patience };
        if stream.get_ref().1.alpn_protocol() == Some(ALPN) {
            self.session(stream, &caller, "tls").await;
        } else {
            http::serve(stream, caller, self).await;
        }
    }

    /// Opens a session if the caller proves a token.
    async fn session<IO>(self: Arc<Self>, mut io: IO, caller: &Caller, transport: &'static str)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let peer = caller.peer;
        let admitted = tokio::time::timeout(caller.patience, self.admit(&mut io, caller, transport)).await;
        let admitted = match admitted {
            Ok(Some(admitted)) => admitted,
            Ok(None) => return,
            Err(_elapsed) => {
                tracing::debug!(%peer, "an agent did not say hello in time");
                return;
            }
        };
        caller.proved();
        let Admitted { registration, beginning } = admitted;
        beginning.start(io, &self.scope);
        let Some(registration) = registration else { return };
        // In a task of its own, so that what the handshake needed goes.
        let port = Arc::clone(&self);
        let tls = caller.tls;
        self.scope.spawn("session", async move { port.stay(registration, peer, transport, tls).await });
    }

    /// Keeps an agent registered until its session ends.
    async fn stay(
        &self,
        registration: Registration,
        peer: SocketAddr,
        transport: &'static str,
        tls: &'static str,
    ) {
        let session = registration.agent.session.clone();
        if self.draining.is_cancelled() {
            // The drain began meanwhile, and may have told only those it found.
            session.announce(Reason::Draining);
        }
        let agent = &registration.agent;
        tracing::info!(
            agent = %agent.instance, hostname = agent.hostname, release = agent.release, identity = agent.identity(),
            %peer, transport, tls, services = agent.offers().len(), "session opened"
        );
        Box::pin(agent.live(&self.live, &self.observe)).await;
        let reason = session.end().unwrap_or(Reason::Unknown);
        tracing::info!(agent = %agent.instance, %reason, "session ended");
    }

    /// Reads a hello and takes its agent in. It can be reached from here on; it is welcomed by the session's first
    /// bytes.
    async fn admit<IO>(&self, io: &mut IO, caller: &Caller, transport: &'static str) -> Option<Admitted>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let peer = caller.peer;
        let hello = match handshake::read_hello(io).await {
            Ok(hello) => hello,
            Err(error) => {
                tracing::debug!(%peer, %error, "no hello");
                return None;
            }
        };
        match self.consider(hello, caller, transport) {
            Ok(admitted) => {
                if admitted.registration.is_some() {
                    self.observe.control_request(101, "/connect");
                }
                Some(admitted)
            }
            Err((reason, message)) => {
                self.refuse(io, peer, Refused { reason, message }).await;
                None
            }
        }
    }

    fn consider(
        &self,
        hello: Hello,
        caller: &Caller,
        transport: &'static str,
    ) -> Result<Admitted, (Reason, String)> {
        let snapshot = self.snapshots.current();
        let (who, shown, credential) = self.identify(&hello, caller, &snapshot)?;
        let version = hello.agree_version().ok_or_else(|| {
            let text =
                "this agent's release is too different from the gateway's; upgrade the older of the two";
            (Reason::ProtocolError, text.to_owned())
        })?;
        if self.draining.is_cancelled() {
            let text = "the gateway is shutting down; another one, or the next one, will answer soon";
            return Err((Reason::Draining, text.to_owned()));
        }
        let Granted { capabilities: granted, served } = opened::grant(&hello, &snapshot)?;
        let mut agreement =
            Agreement { version, granted, release: env!("CARGO_PKG_VERSION"), notices: Vec::new() };
        if hello.capabilities & capabilities::LANES != 0 {
            let welcome = handshake::welcome(agreement, &credential, &caller.exporter);
            let beginning = self.sessions.session_of(&hello, &who, shown)?.add_lane(&welcome);
            let said = |reason| (reason, "the session that this lane is for takes none".to_owned());
            return Ok(Admitted { registration: None, beginning: beginning.map_err(said)? });
        }
        if hello.offers.is_empty() && granted == 0 {
            return Err((Reason::BadRequest, "the agent offers no service".to_owned()));
        }
        let (decided, denied) = self.decide(&hello, &who, &snapshot)?;
        self.tell(&denied, caller.peer, &who);
        if granted == 0 && denied.len() == hello.offers.len() {
            return Err(refused_all(&denied));
        }
        let unreached = self.unreached(&hello, &decided, caller.peer, &who);
        if served != granted {
            self.observe.offer_denied(Reason::ForwardingDenied);
            if let Some(suppressed) = self.penalties.log.next() {
                tracing::warn!(peer = %caller.peer, identity = %who, suppressed = some(suppressed), "an agent is let in without what it wants forwarded: this gateway connects nowhere on behalf of agents");
            }
        }
        if hello.capabilities & capabilities::NOTICES != 0 {
            agreement.notices = denied;
            agreement.notices.extend(unreached);
            agreement.notices.truncate(MAX_NOTICES);
        }
        let welcome = handshake::welcome(agreement, &credential, &caller.exporter);
        let carrier = Carrier { transport, tls: caller.tls };
        let arrival = Arrival { hello, who, shown, remote: caller.peer, carrier, granted, decided };
        let (session, beginning) = Session::prepare(Side::Gateway, &welcome);
        let registration = self.sessions.register(arrival, session)?;
        if !self.snapshots.is_current(snapshot.generation()) {
            // What was published meanwhile may not have found it.
            let now = now();
            self.sessions.reconsider_one(&registration.agent, &self.snapshots.current(), &self.ports, now);
        }
        self.opened.serve(&registration.agent, served, &self.scope);
        Ok(Admitted { registration: Some(registration), beginning })
    }

    /// Who says hello.
    fn identify(
        &self,
        hello: &Hello,
        caller: &Caller,
        snapshot: &Snapshot,
    ) -> Result<(Who, Shown, Credential), (Reason, String)> {
        if hello.capabilities & capabilities::CERTIFICATE != 0 {
            return self.by_certificate(caller, snapshot);
        }
        let key = self.keys.prover(snapshot, hello, &caller.exporter);
        let key = key.ok_or_else(|| self.unproved(caller.peer))?;
        Ok((key.who.clone(), Shown::Token(key.secret.clone()), Credential::Token(key.key.clone())))
    }

    /// Who shows a certificate. TLS has seen that it is one of the authority's and that the caller has its key, now or on
    /// the connection that is resumed.
    fn by_certificate(
        &self,
        caller: &Caller,
        snapshot: &Snapshot,
    ) -> Result<(Who, Shown, Credential), (Reason, String)> {
        let Some(PeerCertificate { identity, serial, not_after }) = caller.certificate.clone() else {
            let text = "no certificate of an identity has arrived: the agent has shown none, or something on the way \
                        terminates TLS";
            return Err((Reason::Unauthorized, text.to_owned()));
        };
        let Some(name) = snapshot.credential(&identity, &serial, now()) else {
            let text = format!(
                "the certificate {serial} opens nothing: it has expired or was revoked, or identity {identity} is \
                 disabled, deleted, or was created anew; ask for an invitation and run `adit enroll`"
            );
            return Err((Reason::Unauthorized, text));
        };
        let shown = Shown::Certificate { serial, until: not_after };
        Ok((Who::Identity(name.clone()), shown, Credential::Certificate))
    }

    /// What becomes of each offer, and which are not taken: no policy permits them, or their port cannot be had.
    ///
    /// # Errors
    /// A port cannot be had, and the agent would not hear of it otherwise; or the gateway is shutting down.
    fn decide(
        &self,
        hello: &Hello,
        who: &Who,
        snapshot: &Snapshot,
    ) -> Result<(Vec<Decided>, Vec<Notice>), (Reason, String)> {
        let (mut decided, mut denied) = (Vec::new(), Vec::new());
        let hears = hello.capabilities & capabilities::NOTICES != 0;
        for offer in &hello.offers {
            let service = &offer.service;
            decided.push(match authorize_offer(snapshot, who, service) {
                Ok(permit) => {
                    let served_as = permit.served_as().clone();
                    match served_as.tcp_port().map(|port| self.ports.claim(port)).transpose() {
                        Ok(claim) => Decided { served_as: Some(served_as), claim, unclaimed: None },
                        Err((reason, message)) if hears && reason == Reason::PortUnavailable => {
                            denied.push(Notice {
                                service: service.clone(),
                                reason,
                                message: message.clone(),
                            });
                            Decided { unclaimed: Some(message), ..Decided::default() }
                        }
                        Err(refused) => return Err(refused),
                    }
                }
                Err(denial) => {
                    let (reason, message) = (denial.reason, denial.message(snapshot));
                    denied.push(Notice { service: service.clone(), reason, message });
                    Decided::default()
                }
            });
        }
        Ok((decided, denied))
    }

    /// Offers that are taken and that nobody can reach, because requests come in nowhere.
    fn unreached(&self, hello: &Hello, decided: &[Decided], peer: SocketAddr, who: &Who) -> Vec<Notice> {
        if self.live.has_http() {
            return Vec::new();
        }
        let taken = hello.offers.iter().zip(decided).filter(|(_, decided)| decided.served_as.is_some());
        let hosts = taken.filter(|(offer, _)| matches!(offer.service, ServiceName::Host(_)));
        let unreached: Vec<_> = hosts.map(|(offer, _)| Notice {
            service: offer.service.clone(),
            reason: Reason::NoListener,
            message: "this gateway has no HTTP listener; add one with `http:` to gateway.yaml, run `adit http server`, or \
                      offer a TCP port"
                .to_owned(),
        }).collect();
        if let Some(first) = unreached.first()
            && let Some(suppressed) = self.penalties.log.next()
        {
            let (offer, count) = (&first.service, unreached.len());
            tracing::warn!(%peer, identity = %who, %offer, count, suppressed = some(suppressed), "an agent offers hosts, and nobody reaches them: this gateway has no HTTP listener");
        }
        unreached
    }

    fn tell(&self, denied: &[Notice], peer: SocketAddr, who: &Who) {
        for Notice { service, reason, message } in denied {
            self.observe.offer_denied(*reason);
            if let Some(suppressed) = self.penalties.log.next() {
                tracing::warn!(%peer, identity = %who, offer = %service, %reason, suppressed = some(suppressed), "an offer is not taken: {message}");
            }
        }
    }

    /// What to say to an agent that proved no token. One from a barred address hears less, but the right token is let
    /// in from there too: who shares an address with a guesser has done nothing.
    fn unproved(&self, peer: SocketAddr) -> (Reason, String) {
        if self.penalties.is_barred(peer.ip()) {
            let text = "too many failed attempts from this address; the right token is let in all the same, so this is not it";
            return (Reason::RateLimited, text.to_owned());
        }
        (
            Reason::Unauthorized,
            "the token is wrong, or something on the way terminates TLS; agent and gateway must be given the same token and speak to each other directly".to_owned(),
        )
    }

    async fn refuse<IO: AsyncWrite + Unpin>(&self, io: &mut IO, peer: SocketAddr, refused: Refused) {
        self.observe.control_request(refused.reason.status(), "/connect");
        if matches!(refused.reason, Reason::Unauthorized | Reason::RateLimited) {
            self.failed(peer, refused.reason);
        }
        let pace = match refused.reason {
            Reason::Draining => &self.penalties.draining,
            _ => &self.penalties.log,
        };
        if let Some(suppressed) = pace.next() {
            let text = &refused.message;
            tracing::warn!(%peer, reason = %refused.reason, suppressed = some(suppressed), "refused a session: {text}");
        }
        if let Err(error) = handshake::refuse(io, &refused).await {
            tracing::debug!(%peer, %error, "the refused peer did not listen");
        }
    }

    /// Counts a failed authentication, and holds it against the address.
    fn failed(&self, peer: SocketAddr, reason: Reason) {
        self.observe.auth_failed(reason);
        if reason == Reason::Unauthorized {
            self.penalties.failed(peer.ip());
        }
    }
}
