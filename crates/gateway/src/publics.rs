//! The public HTTP listeners: those there are, and how a reload adds, changes and removes some.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use adit_tunnel::scope::Scope;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Kept;
use crate::config::{HttpListener, Tls};
use crate::http::Serving;
use crate::inherited::Inherited;
use crate::listener::{self, Face};
use crate::server::StartError;
use crate::tls::{Authorities, Identity, Served};

/// Every public HTTP listener.
#[derive(Debug)]
pub(crate) struct Publics {
    /// In the order of the configuration.
    open: Mutex<Vec<Open>>,
    /// What serves their connections.
    serving: Arc<Serving>,
    /// Owner of the accept loops.
    listeners: Scope,
    certificates: Arc<Mutex<Kept>>,
    /// Sockets that whoever started this process keeps bound, whether there is a listener for them or not.
    inherited: Arc<Inherited>,
}

/// One that is served.
#[derive(Debug)]
struct Open {
    configured: HttpListener,
    addr: SocketAddr,
    /// What connections that come find.
    face: Arc<ArcSwap<Face>>,
    /// What is served there, with TLS.
    served: Option<Arc<Served>>,
    /// Its connections, which can be told to close.
    serving: Arc<Serving>,
}

/// One that is bound, and not served yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    pub(crate) addr: SocketAddr,
    look: Look,
    configured: HttpListener,
}

/// How a listener looks to its connections.
#[derive(Debug)]
struct Look {
    face: Face,
    identity: Option<Identity>,
}

/// What becomes of a listener.
enum Step {
    /// It stays as it is, with this certificate.
    Stay(usize, Option<Identity>),
    /// It stays, and looks different from now on.
    Change(usize, Look),
    Add(Bound),
}

/// Everything that has to be done for other listeners. Nothing of it can fail any more.
pub(crate) struct Prepared {
    wanted: Vec<HttpListener>,
    steps: Vec<Step>,
}

impl Look {
    fn new(listener: &HttpListener, authorities: &mut Authorities) -> Result<Self, StartError> {
        let identity = listener.tls.as_ref().map(|tls| Identity::load(tls, authorities)).transpose()?;
        let tls = identity.as_ref().map(Identity::public_config).transpose()?.map(TlsAcceptor::from);
        Ok(Self { face: Face { tls, lb_proxy_protocol: listener.lb_proxy_protocol }, identity })
    }
}

/// Binds a listener, unless what was handed over for it is `in_use` by another.
///
/// # Errors
/// [`StartError`]: its certificate cannot be had, or its address not be bound.
pub(crate) fn bind(
    listener: &HttpListener,
    inherited: &Inherited,
    in_use: &[SocketAddr],
    authorities: &mut Authorities,
) -> Result<Bound, StartError> {
    let look = Look::new(listener, authorities)?;
    let purpose = "public HTTP";
    let (bound, addr) = listener::bind_as(purpose, listener.listen, inherited.lend(listener.listen))?;
    if in_use.contains(&addr) {
        return Err(StartError::Bind { purpose, addr, source: io::ErrorKind::AddrInUse.into() });
    }
    Ok(Bound { listener: bound, addr, look, configured: listener.clone() })
}

impl Publics {
    /// Nothing is open yet.
    pub(crate) fn new(
        serving: Arc<Serving>,
        listeners: Scope,
        certificates: Arc<Mutex<Kept>>,
        inherited: Arc<Inherited>,
    ) -> Self {
        Self { open: Mutex::default(), serving, listeners, certificates, inherited }
    }

    /// Serves a listener from now on.
    pub(crate) fn add(&self, bound: Bound) {
        let open = self.serve(bound);
        self.open.lock().push(open);
    }

    /// Where they are, in the order of the configuration.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.open.lock().iter().map(|open| open.addr).collect()
    }

    fn serve(&self, bound: Bound) -> Open {
        let Bound { listener, addr, look: Look { face, identity }, configured } = bound;
        let (face, serving) = (Arc::new(ArcSwap::from_pointee(face)), Arc::new(self.serving.of_listener()));
        let served = self.keep(identity);
        let accepting = listener::run(listener, Arc::clone(&face), Arc::clone(&serving));
        self.listeners.spawn("public listener", accepting);
        Open { configured, addr, face, served, serving }
    }

    /// Sees to it that the certificate does not end. Gives what is served.
    fn keep(&self, identity: Option<Identity>) -> Option<Arc<Served>> {
        let identity = identity?;
        let served = Arc::clone(&identity.served);
        self.certificates.lock().identities.push(identity);
        Some(served)
    }

    /// Does everything for other listeners that can fail: binds what is new, and reads certificates. Who drops what
    /// this returns has changed nothing.
    ///
    /// # Errors
    /// [`StartError`].
    pub(crate) fn prepare(&self, wanted: &[HttpListener]) -> Result<Prepared, StartError> {
        let open = self.open.lock();
        let mut kept = self.certificates.lock();
        let configured: Vec<_> = open.iter().map(|open| &open.configured).collect();
        let pairs = paired(&configured, wanted).into_iter().zip(wanted);
        let mut in_use: Vec<_> = open.iter().map(|open| open.addr).collect();
        let steps = pairs.map(|(at, listener)| match at {
            None => bind(listener, &self.inherited, &in_use, &mut kept.authorities).map(|bound| {
                in_use.push(bound.addr);
                Step::Add(bound)
            }),
            Some(at) => step(at, configured[at], listener, &mut kept.authorities),
        });
        let steps = steps.collect::<Result<_, _>>()?;
        Ok(Prepared { wanted: wanted.to_vec(), steps })
    }

    /// Puts other listeners in the place of these. One that is not wanted any more takes no new connections; those it
    /// has finish the request they carry and close.
    pub(crate) fn replace(&self, prepared: Prepared) {
        let mut open = self.open.lock();
        let mut old: Vec<_> = std::mem::take(&mut *open).into_iter().map(Some).collect();
        let mut take = |at: usize| old.get_mut(at).and_then(Option::take);
        for (configured, step) in prepared.wanted.into_iter().zip(prepared.steps) {
            let kept = match step {
                Step::Stay(at, identity) => take(at).inspect(|open| {
                    if let (Some(served), Some(identity)) = (&open.served, identity) {
                        served.replace(&identity.served);
                    }
                }),
                Step::Change(at, Look { face, identity }) => take(at).map(|mut open| {
                    open.served = self.keep(identity);
                    open.face.store(Arc::new(face));
                    open
                }),
                Step::Add(bound) => {
                    tracing::info!(addr = %bound.addr, purpose = "http", "listening");
                    Some(self.serve(bound))
                }
            };
            open.extend(kept.map(|kept| Open { configured, ..kept }));
        }
        let plane = &self.serving.plane;
        plane.live.set_http_ports(open.iter().map(|open| open.addr.port()).collect());
        if open.is_empty() && !old.is_empty() {
            let agents = plane.sessions.list().iter().filter(|agent| agent.offers_hosts()).count();
            tracing::warn!(
                agents,
                "there is no HTTP listener any more; nobody reaches the hosts that these agents offer"
            );
        }
        drop(open);
        for Open { addr, serving, .. } in old.into_iter().flatten() {
            tracing::info!(%addr, purpose = "http", "no longer listening: the configuration has no listener there any more");
            if self.inherited.has(addr) {
                tracing::warn!(%addr, "whoever started this gateway keeps the address bound (a socket unit of systemd): clients connect there and wait, and nobody answers; take it out there as well and restart");
            }
            serving.draining.cancel();
        }
    }
}

/// Which of the listeners there are each wanted one is: one that is the same, else one at the same address. Several may
/// be at port 0, where the system picks one for each.
fn paired(open: &[&HttpListener], wanted: &[HttpListener]) -> Vec<Option<usize>> {
    let mut free = vec![true; open.len()];
    let mut pairs = vec![None; wanted.len()];
    let is_same = |open: &HttpListener, wanted: &HttpListener| open == wanted;
    let is_there = |open: &HttpListener, wanted: &HttpListener| open.listen == wanted.listen;
    for fits in [is_same, is_there] {
        for (pair, wanted) in pairs.iter_mut().zip(wanted).filter(|(pair, _)| pair.is_none()) {
            *pair = (0..open.len()).find(|&at| free[at] && fits(open[at], wanted));
            if let Some(at) = *pair {
                free[at] = false;
            }
        }
    }
    pairs
}

/// What has to be done so that a listener is as it is wanted.
fn step(
    at: usize,
    now: &HttpListener,
    wanted: &HttpListener,
    authorities: &mut Authorities,
) -> Result<Step, StartError> {
    let says_the_same = now.lb_proxy_protocol == wanted.lb_proxy_protocol;
    match (&now.tls, &wanted.tls) {
        // The files may hold something else, or be others: what is served changes, and who comes back is known.
        (Some(Tls::Files { .. }), Some(Tls::Files { cert, key })) if says_the_same => {
            Ok(Step::Stay(at, Some(Identity::from_files(cert, key)?)))
        }
        (now, wanted) if says_the_same && now == wanted => Ok(Step::Stay(at, None)),
        _ => Ok(Step::Change(at, Look::new(wanted, authorities)?)),
    }
}
