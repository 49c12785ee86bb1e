//! What a configuration starts, and how another one takes its place while the agent runs.
//!
//! Streams belong to neither: they run on. The sessions of the old configuration finish what they carry, while those
//! of the new one take everything that is new.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use adit_proto::handshake::capabilities;
use adit_proto::names::InstanceId;
use adit_proto::reason::Reason;
use adit_tunnel::scope::Scope;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use crate::Config;
use crate::board::Board;
use crate::config::{Credential, To};
use crate::dial::Dialer;
use crate::expose::Exposed;
use crate::forward::Forwarder;
use crate::links::Links;
use crate::observe::Observe;
use crate::renew::Renewal;
use crate::server::StartError;

/// What stays the same for the life of the process.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(crate) instance: InstanceId,
    pub(crate) observe: Observe,
    pub(crate) board: Board,
    /// Ticks when the clock has jumped.
    pub(crate) awoken: watch::Receiver<()>,
    /// Counts the sessions of this process.
    pub(crate) generation: Arc<AtomicU64>,
    /// Owner of the loops that keep sessions, and of those that accept what is forwarded.
    pub(crate) keeping: Scope,
    /// Owner of the sessions.
    pub(crate) sessions: Scope,
    /// Owner of the streams.
    pub(crate) streams: Scope,
}

/// A configuration in force.
#[derive(Debug)]
pub(crate) struct Running {
    gateways: Vec<Arc<str>>,
    /// The links are wanted.
    wanted: watch::Sender<bool>,
    forwards: Vec<Forwarded>,
    /// What renews the identity's certificate, for as long as this is kept.
    _renewing: DropGuard,
}

/// An address that is listened on, for as long as this is kept.
#[derive(Debug)]
struct Forwarded {
    addr: SocketAddr,
    listener: Arc<TcpListener>,
    accepting: Scope,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.accepting.cancel();
    }
}

/// All of a configuration that can turn out to be wrong, before anything of it is in force.
struct Prepared {
    exposed: Exposed,
    dialers: Vec<(Arc<str>, Dialer)>,
    forwards: Vec<(Forwarded, Forwarder)>,
}

impl Running {
    /// Puts a first configuration in force.
    ///
    /// # Errors
    /// [`StartError`], and nothing of it is.
    pub(crate) async fn start(config: Config, lasting: &Lasting) -> Result<Self, StartError> {
        let prepared = prepare(&config, &[], lasting).await?;
        Ok(put_in_force(config, prepared, lasting, false))
    }

    /// Puts another configuration in the place of this one.
    ///
    /// # Errors
    /// [`StartError`], and this one is in force as before.
    pub(crate) async fn replace(&mut self, config: Config, lasting: &Lasting) -> Result<(), StartError> {
        let prepared = prepare(&config, &self.forwards, lasting).await?;
        let Self { gateways, wanted, forwards, _renewing } =
            std::mem::replace(self, put_in_force(config, prepared, lasting, true));
        drop(forwards);
        wanted.send_replace(false);
        // Nobody takes the place of sessions to gateways that are not there any more.
        for gateway in gateways.iter().filter(|gateway| !self.gateways.contains(gateway)) {
            for session in lasting.board.sessions_to(gateway) {
                session.announce(Reason::AgentDraining);
                lasting.sessions.spawn("session that is not wanted", async move {
                    session.drain(Reason::AgentDraining).await;
                    session.close(Reason::AgentDraining);
                });
            }
        }
        Ok(())
    }
}

async fn prepare(config: &Config, standing: &[Forwarded], lasting: &Lasting) -> Result<Prepared, StartError> {
    let exposed = Exposed::prepare(&config.services, &lasting.observe, lasting.streams.clone())
        .map_err(|(what, source)| StartError::setup(what, source))?;
    let dialers = config.gateways.iter().map(|gateway| {
        let label: Arc<str> = gateway.to_string().into();
        Dialer::new(
            gateway.clone(),
            &config.credential,
            &config.verify,
            &config.egress,
            lasting.observe.clone(),
        )
        .map(|dialer| (label, dialer))
    });
    let dialers = dialers
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| StartError::setup("cannot set up TLS towards the gateway", source))?;
    let mut forwards = Vec::new();
    for forward in &config.forwards {
        let addr = forward.listen;
        let bound = standing.iter().find(|standing| standing.addr == addr && addr.port() != 0);
        let listener = match bound {
            Some(bound) => Arc::clone(&bound.listener),
            None => Forwarder::bind(addr).await.map_err(|source| StartError::Bind { addr, source })?,
        };
        let accepting = lasting.keeping.child();
        let forwarder = Forwarder::new(Arc::clone(&listener), forward, &lasting.observe, &lasting.board);
        forwards.push((Forwarded { addr, listener, accepting }, forwarder));
    }
    Ok(Prepared { exposed, dialers, forwards })
}

/// What gateways have to grant.
fn wanted_of(config: &Config) -> u64 {
    let each = config.forwards.iter().map(|forward| match forward.to {
        To::Address(_) => capabilities::FORWARDING,
        To::Service(_) => capabilities::DIALING,
    });
    let dials = if config.dials { capabilities::DIALING } else { 0 };
    each.fold(dials, |all, one| all | one)
}

/// Nothing here can fail.
fn put_in_force(config: Config, prepared: Prepared, lasting: &Lasting, succeed: bool) -> Running {
    let Prepared { exposed, dialers, forwards } = prepared;
    let (wanted, is_wanted) = watch::channel(true);
    let abilities = wanted_of(&config);
    let renewing = lasting.keeping.child();
    let (credential, identity) = match config.credential {
        Credential::Token(key) => (adit_tunnel::handshake::Credential::Token(key), None),
        Credential::Identity(identity) => {
            if let Some(file) = identity.file().exposed() {
                let file = file.display();
                tracing::warn!(%file, "others can read this file, and it holds a private key; `chmod 600` keeps it private");
            }
            let others = config.gateways.iter().map(|gateway| gateway.renewal()).collect();
            let renewal = Renewal::new(Arc::clone(&identity), config.egress, others);
            renewing.spawn("renewal", renewal.counting(lasting.observe.credential.clone()).run());
            (adit_tunnel::handshake::Credential::Certificate, Some(identity))
        }
    };
    let links = Links {
        credential,
        identity,
        instance: lasting.instance,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        exposed: Arc::new(exposed),
        capabilities: abilities,
        observe: lasting.observe.clone(),
        board: lasting.board.clone(),
        sessions: lasting.sessions.clone(),
        generation: Arc::clone(&lasting.generation),
        awoken: lasting.awoken.clone(),
        wanted: is_wanted,
        succeed,
    };
    let gateways = dialers.iter().map(|(label, _)| Arc::clone(label)).collect();
    links.keep(dialers, config.each_address, &lasting.keeping);
    let forwards = forwards.into_iter().map(|(forwarded, forwarder)| {
        forwarded.accepting.spawn("forwarder", forwarder.run(lasting.streams.clone()));
        forwarded
    });
    Running { gateways, wanted, forwards: forwards.collect(), _renewing: renewing.cancel_on_drop() }
}
