//! Composition: binds the listeners, starts what serves them, and the order of a drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_control::Snapshots;
use adit_control::authority::Authority;
use adit_proto::handshake::ALPN;
use adit_proto::reason::Reason;
use adit_telemetry::reloads::Reloads;
use adit_tunnel::scope::Scope;
use adit_tunnel::workers::Workers;
use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::DropGuard;

use crate::Config;
use crate::api::{About, Admin, Parted};
use crate::certificates::{self, Kept};
use crate::config::{Control, TcpServices};
use crate::control_port::keys::Keys;
use crate::control_port::quic::Door;
use crate::control_port::{ControlPort, Doors};
use crate::enrolling::Enrolling;
use crate::flow::DataPlane;
use crate::grants;
use crate::http::Serving;
use crate::inherited::Inherited;
use crate::listener;
use crate::live::Live;
use crate::observe::Observe;
use crate::opened::Opened;
use crate::publics::{self, Publics};
use crate::reload::{self, Reloadable};
use crate::sessions::Sessions;
use crate::state;
use crate::tcp::ports::Ports;
use crate::tls::{Authorities, Identity};

/// How long a stream may wait in a pool for its next request.
const MAX_IDLE_STREAM: Duration = Duration::from_secs(60);
/// How often pools are looked through.
const SWEEP: Duration = Duration::from_secs(15);

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {addr} ({purpose})")]
    Bind {
        /// Which listener.
        purpose: &'static str,
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A socket was handed over that nothing in the configuration is for.
    #[error("a listening socket on {addr} was handed over, and no listener is configured there")]
    Stray {
        /// Where it is bound.
        addr: SocketAddr,
    },
    /// What is kept between runs cannot be read.
    #[error("cannot use the state directory")]
    State {
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A certificate could not be loaded or made.
    #[error("{what}")]
    Tls {
        /// What was tried, on which file.
        what: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A running gateway. Dropping it aborts everything it carries; [`Gateway::drain`] is the polite way.
#[derive(Debug)]
pub struct Gateway {
    control_addr: SocketAddr,
    authority: Option<String>,
    enrolling: Arc<Enrolling>,
    sessions: Arc<Sessions>,
    snapshots: Arc<Snapshots>,
    serving: Arc<Serving>,
    ports: Ports,
    observe: Observe,
    reloadable: Reloadable,
    /// Accept loops of public listeners.
    listeners: Scope,
    /// Public connections.
    connections: Scope,
    /// Upstream connections, upgraded connections and connections of TCP services.
    flows: Scope,
    /// The control port's connections and the sessions.
    control: Scope,
    /// The control port's accept loop: it answers until everything public has ended.
    asking: Scope,
    _abort: [DropGuard; 5],
}

impl Gateway {
    /// Binds every listener and starts serving. All addresses are bound before the first is served.
    ///
    /// # Errors
    /// [`StartError`] when a listener cannot be bound or a certificate not be had.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(config, Inherited::default(), &Workers::default()).await
    }

    /// As [`Self::start`], on sockets that were bound before where they fit what is configured, and with connections
    /// spread over these workers.
    ///
    /// # Errors
    /// [`StartError`], also when a socket was handed over that fits nothing.
    #[expect(
        clippy::too_many_lines,
        reason = "composition: one line for each thing that a gateway is made of"
    )]
    pub async fn start_on(
        mut config: Config,
        inherited: Inherited,
        workers: &Workers,
    ) -> Result<Self, StartError> {
        // Everything that can fail comes first.
        let mut authorities = Authorities::new(config.state.trust_domain.clone());
        let control_identity = Identity::load(&config.control.tls, &mut authorities)?;
        let authority = authorities.open(config.authority_directory())?;
        let (doors, control_addr) = bind_control(&config.control, &control_identity, &authority, &inherited)?;
        let inherited = Arc::new(inherited);
        let mut bound: Vec<publics::Bound> = Vec::new();
        for listener in &config.http {
            let in_use: Vec<_> = bound.iter().map(|bound| bound.addr).collect();
            bound.push(publics::bind(listener, &inherited, &in_use, &mut authorities)?);
        }
        refuse_strays(&inherited, &bound, config.tcp.as_ref())?;
        let enrolling =
            Arc::new(Enrolling::new(authority, &control_identity, &config.state, control_addr.port()));

        let local = reload::local(&config);
        let snapshots = Arc::new(Snapshots::new(local.rules.clone()));
        let changes = state::open(config.state.directory.as_deref(), local, Arc::clone(&snapshots)).await?;

        let revision = config.revision;
        let observe = Observe::new(config.request_log.take(), config.process_log.take(), revision, workers);
        let live = Arc::new(Live::new(config.limits, config.drain_timeout));
        live.set_http_ports(bound.iter().map(|bound| bound.addr.port()).collect());
        let sessions = Sessions::new(observe.clone(), Arc::clone(&live));
        let (listeners, connections, flows, control, asking) =
            (Scope::new(), Scope::over(workers), Scope::over(workers), Scope::over(workers), Scope::new());
        let plane = Arc::new(DataPlane {
            snapshots: Arc::clone(&snapshots),
            sessions: Arc::clone(&sessions),
            observe: observe.clone(),
            live: Arc::clone(&live),
            via: name_in_via()?,
            scope: flows.clone(),
        });
        let ports = Ports::new(config.tcp, Arc::clone(&inherited), Arc::clone(&plane), listeners.clone());
        let serving = Arc::new(Serving::new(Arc::clone(&plane), connections.clone()));
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let admin = Arc::new(Admin::new(Parted {
            changes: Arc::clone(&changes),
            snapshots: Arc::clone(&snapshots),
            sessions: Arc::clone(&sessions),
            ports: ports.clone(),
            observe: observe.clone(),
            about: About {
                sha: revision,
                live: Arc::clone(&live),
                control_port: control_addr.port(),
                state: if config.state.directory.is_some() { "directory" } else { "memory" },
                trust_domain: Some(enrolling.authority().trust_domain().to_owned()),
                hostname: hostname.clone(),
            },
            enrolling: Arc::clone(&enrolling),
            draining: serving.draining.clone(),
        }));
        let port = Arc::new(ControlPort {
            sessions: Arc::clone(&sessions),
            ports: ports.clone(),
            opened: Opened { plane: Arc::clone(&plane) },
            snapshots: Arc::clone(&snapshots),
            live: Arc::clone(&live),
            observe: observe.clone(),
            keys: Keys::default(),
            identities: Arc::clone(enrolling.authority()),
            penalties: ControlPort::penalties(&live),
            admin,
            authority: control_identity.authority.clone(),
            hostname,
            revision,
            started: SystemTime::now(),
            draining: serving.draining.clone(),
            asking: asking.clone(),
            scope: control.clone(),
        });
        asking.spawn("control port", port.run(doors));
        asking
            .spawn("resources", state::keep(Arc::clone(&changes), observe.clone(), serving.draining.clone()));
        asking.spawn("grants", grants::follow(plane, ports.clone()));
        asking.spawn("pool sweeper", sweep(Arc::clone(&sessions)));
        asking.spawn("slots", Arc::clone(&live).keep_slots());
        let (authority_pem, control_served) =
            (control_identity.authority.clone(), control_identity.replaceable());
        let certificates = Arc::new(Mutex::new(Kept { authorities, identities: vec![control_identity] }));
        let publics =
            Publics::new(Arc::clone(&serving), listeners.clone(), Arc::clone(&certificates), inherited);
        bound.into_iter().for_each(|bound| publics.add(bound));
        asking.spawn("certificates", certificates::keep(certificates));
        let reloadable = Reloadable {
            changes,
            live,
            observe: observe.clone(),
            publics,
            ports: ports.clone(),
            control_port: control_addr.port(),
            control_served,
        };
        reloadable.own_ports();
        Ok(Self {
            control_addr,
            authority: authority_pem,
            enrolling,
            sessions,
            snapshots,
            serving,
            ports,
            observe,
            reloadable,
            _abort: [&listeners, &connections, &flows, &control, &asking].map(Scope::cancel_on_drop),
            listeners,
            connections,
            flows,
            control,
            asking,
        })
    }

    /// Puts in force what of another configuration can change at run time: who may use the public listeners, and
    /// these themselves; which proxies are believed, what agents may offer and have forwarded, bounds and timeouts, the
    /// request log, and certificates from files. Everything open goes on.
    ///
    /// # Errors
    /// [`StartError`] when a certificate cannot be used or a listener not be bound, and nothing has changed.
    pub fn reload(&self, config: &Config) -> Result<(), StartError> {
        self.reloadable.replace(config)
    }

    /// To be told of every configuration that is read.
    #[must_use]
    pub fn reloads(&self) -> &Reloads {
        self.observe.config()
    }

    /// The control port's bound address.
    #[must_use]
    pub const fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    /// The public listeners' bound addresses, in the order of the configuration.
    #[must_use]
    pub fn http_addrs(&self) -> Vec<SocketAddr> {
        self.reloadable.publics.addrs()
    }

    /// PEM of the authority behind the control port's certificate, when it is the gateway's own.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// How identities of this gateway come to certificates.
    #[must_use]
    pub const fn enrolling(&self) -> &Arc<Enrolling> {
        &self.enrolling
    }

    /// What decisions are made by. Whoever publishes there changes them.
    #[must_use]
    pub const fn snapshots(&self) -> &Arc<Snapshots> {
        &self.snapshots
    }

    /// Agents connected now.
    #[must_use]
    pub fn agents(&self) -> usize {
        self.sessions.count()
    }

    /// Stops accepting, lets open flows finish within the configured time, tells agents, then ends the rest.
    /// Returns how many connections had to be cut.
    pub async fn drain(self) -> usize {
        // 1. Balancers in front see `/ready` fail; nothing new is accepted.
        self.serving.draining.cancel();
        // The next gateway may open it from here on; what was decided last stays in force in this one.
        self.reloadable.changes.store().close().await;
        self.ports.close();
        self.listeners.drain(Duration::from_millis(200)).await;
        // Agents look for another session while this one still carries what has begun.
        for agent in self.sessions.list() {
            agent.session.announce(Reason::Draining);
        }
        // 2. Connections finish the request they carry and close; idle ones close at once.
        let drain_timeout = self.reloadable.live.drain_timeout();
        let deadline = tokio::time::Instant::now() + drain_timeout;
        let mut cut = self.connections.drain(drain_timeout).await;
        // 3. What outlives its connection, and TCP connections, which end when they will. Pooled streams are let go first.
        for agent in self.sessions.list() {
            agent.withdraw();
        }
        cut += self.flows.drain(deadline.saturating_duration_since(tokio::time::Instant::now())).await;
        // 4. Nobody can ask any longer, and no agent can come back to a gateway that is about to be gone.
        self.asking.drain(Duration::ZERO).await;
        // 5. Agents are told, so that they look for another gateway or wait for this one.
        for agent in self.sessions.list() {
            agent.session.close(Reason::Draining);
        }
        self.control.drain(Duration::from_millis(500)).await;
        cut
    }
}

/// A name that tells a request which has passed this gateway from one that has passed another.
fn name_in_via() -> Result<String, StartError> {
    let mut random = [0; 4];
    aws_lc_rs::rand::fill(&mut random).map_err(|source| StartError::Tls {
        what: "the system has no random numbers".to_owned(),
        source: Box::new(source),
    })?;
    Ok(format!("adit-{:08x}", u32::from_be_bytes(random)))
}

/// Binds the control port: TCP, and UDP of the same number if QUIC is wanted and the number is free there too.
fn bind_control(
    control: &Control,
    identity: &Identity,
    authority: &Authority,
    inherited: &Inherited,
) -> Result<(Doors, SocketAddr), StartError> {
    let tls = TlsAcceptor::from(identity.control_config(&[ALPN, b"http/1.1"], authority)?);
    let quic_tls = identity.control_config(&[ALPN], authority)?;
    // A port that the system picks for TCP may be taken for UDP; then it is asked for another one.
    let tries = if control.listen.port() == 0 { 10 } else { 1 };
    for left in (0..tries).rev() {
        let (listener, addr) =
            listener::bind_as("control port", control.listen, inherited.take(control.listen))?;
        if !control.quic {
            return Ok((Doors { listener, tls, quic: None }, addr));
        }
        let door = Door { addr, tls: Arc::clone(&quic_tls), secret: identity.secret };
        match door.open() {
            Ok(bound) => return Ok((Doors { listener, tls, quic: Some((door, Some(bound))) }, addr)),
            Err(error) if left == 0 => {
                tracing::warn!(%addr, %error, "cannot listen on UDP; agents are served by TCP alone until it is free");
                return Ok((Doors { listener, tls, quic: Some((door, None)) }, addr));
            }
            Err(_taken) => {}
        }
    }
    Err(StartError::Bind {
        purpose: "control port",
        addr: control.listen,
        source: std::io::ErrorKind::AddrInUse.into(),
    })
}

/// A socket that was handed over for nothing is a mistake somewhere: its connections would wait in vain.
fn refuse_strays(
    inherited: &Inherited,
    publics: &[publics::Bound],
    tcp: Option<&TcpServices>,
) -> Result<(), StartError> {
    let is_stray = |addr: &SocketAddr| {
        !publics.iter().any(|bound| bound.addr == *addr) && !tcp.is_some_and(|tcp| tcp.allows(addr.port()))
    };
    inherited.left().into_iter().find(is_stray).map_or(Ok(()), |addr| Err(StartError::Stray { addr }))
}

#[expect(clippy::infinite_loop, reason = "ends with its scope")]
async fn sweep(sessions: Arc<Sessions>) {
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tick.tick().await;
        sessions.sweep(MAX_IDLE_STREAM);
    }
}
