//! Public TCP ports: each is bound while somebody offers a service on it, and free again at once.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use adit_control::Snapshot;
use adit_proto::reason::Reason;
use adit_tunnel::scope::Scope;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::Way;
use crate::config::TcpServices;
use crate::flow::DataPlane;
use crate::inherited::Inherited;
use crate::listener::{self, accept_all};

/// Every port that is bound. Clones are the same table.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: ArcSwapOption<TcpServices>,
    /// Ports of the gateway's own listeners, told apart from those of strangers.
    own: Mutex<Vec<u16>>,
    inherited: Arc<Inherited>,
    bound: Mutex<Bound>,
    routed: Mutex<Routed>,
    plane: Arc<DataPlane>,
    /// Accept loops.
    listeners: Scope,
    /// Rung when the settings are others.
    replaced: Notify,
}

#[derive(Debug, Default)]
struct Bound {
    ports: HashMap<u16, Held>,
    /// A drain has begun: nothing is bound any more.
    is_closed: bool,
}

/// The ports of routes.
#[derive(Debug, Default)]
struct Routed {
    /// What keeps them bound.
    claims: HashMap<u16, Claim>,
    /// Those that are not served, and why.
    unserved: HashMap<u16, String>,
    /// The number of the snapshot that they are from.
    generation: u64,
}

/// A bound port and how many offers and routes hold it.
#[derive(Debug)]
struct Held {
    claims: usize,
    door: Arc<Door>,
    is_served: bool,
    scope: Scope,
}

/// A listener that can be closed while somebody waits for it.
#[derive(Debug)]
struct Door(Mutex<Option<TcpListener>>);

impl Door {
    /// Never ready once it is closed: whoever waits ends with the scope.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.0.lock().as_ref().map_or(Poll::Pending, |listener| listener.poll_accept(cx))
    }

    fn close(&self) {
        drop(self.0.lock().take());
    }
}

/// Closes the door when its accept loop is gone, however that came about.
struct CloseOnDrop(Arc<Door>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Ports {
    /// Nothing is bound yet.
    pub(crate) fn new(
        settings: Option<TcpServices>,
        inherited: Arc<Inherited>,
        plane: Arc<DataPlane>,
        listeners: Scope,
    ) -> Self {
        let settings = ArcSwapOption::new(settings.map(Arc::new));
        let (own, bound, routed) = (Mutex::default(), Mutex::default(), Mutex::default());
        let replaced = Notify::new();
        Self {
            inner: Arc::new(Inner { settings, own, inherited, bound, routed, plane, listeners, replaced }),
        }
    }

    /// Binds a port, if nobody has yet. It is let go when the last claim to it is dropped.
    ///
    /// # Errors
    /// The reason and a sentence for the agent's log: the port is not allowed, or cannot be bound.
    pub(crate) fn claim(&self, port: u16) -> Result<Claim, (Reason, String)> {
        let settings = self.settings_for(port).map_err(unavailable)?;
        let mut bound = self.inner.bound.lock();
        if bound.is_closed {
            return Err((Reason::Draining, "the gateway is shutting down".to_owned()));
        }
        if let Some(held) = bound.ports.get_mut(&port) {
            held.claims += 1;
        } else {
            let addr = SocketAddr::new(settings.listen, port);
            let listener = self.inner.inherited.lend(addr).unwrap_or_else(|| listener::bind(addr));
            let listener = listener.map_err(|error| unavailable(why_not(addr, &error)))?;
            tracing::info!(%addr, purpose = "tcp", "listening");
            let door = Arc::new(Door(Mutex::new(Some(listener))));
            let held = Held { claims: 1, door, is_served: false, scope: self.inner.listeners.child() };
            bound.ports.insert(port, held);
        }
        drop(bound);
        Ok(Claim { ports: self.clone(), port })
    }

    /// The settings, where they let a port be served.
    fn settings_for(&self, port: u16) -> Result<Arc<TcpServices>, String> {
        let settings = self.inner.settings.load_full().ok_or(
            "this gateway takes no TCP services; run `adit tcp server`, or add `tcp:` to gateway.yaml",
        )?;
        if self.inner.own.lock().contains(&port) {
            return Err(format!("port {port} is one of the gateway's own; take another one"));
        }
        if !settings.allows(port) {
            return Err(format!("port {port} is not among those that this gateway allows (`tcp.ports`)"));
        }
        Ok(settings)
    }

    /// Goes by other settings from now on. What they do not allow any more is let go of by those who hold it.
    /// Ports are bound where they were before.
    pub(crate) fn replace(&self, settings: Option<TcpServices>) {
        let listen = self.inner.settings.load().as_ref().map(|before| before.listen);
        let settings =
            settings.map(|settings| TcpServices { listen: listen.unwrap_or(settings.listen), ..settings });
        self.inner.settings.store(settings.map(Arc::new));
        self.inner.replaced.notify_one();
    }

    /// Waits until the settings are others than when this was asked last. For one who waits. Cancel safe.
    pub(crate) async fn replaced(&self) {
        self.inner.replaced.notified().await;
    }

    /// The ports of the gateway's other listeners.
    pub(crate) fn set_own(&self, own: Vec<u16>) {
        *self.inner.own.lock() = own;
    }

    /// Whether a port may be offered.
    pub(crate) fn allows(&self, port: u16) -> bool {
        self.inner.settings.load().as_ref().is_some_and(|settings| settings.allows(port))
    }

    /// Binds the ports that routes lead from and lets go of those that they do not lead from any more. One that cannot be
    /// bound is tried again with the next call; the log says so once.
    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        let mut routed = self.inner.routed.lock();
        let generation = snapshot.generation().number();
        if generation < routed.generation {
            return;
        }
        routed.generation = generation;
        routed.claims.retain(|port, _| snapshot.route_for_port(*port).is_some() && self.allows(*port));
        let mut before = std::mem::take(&mut routed.unserved);
        for (port, service) in snapshot.routed_ports() {
            if routed.claims.contains_key(&port) {
                continue;
            }
            match self.claim(port) {
                Ok(claim) => {
                    claim.serve();
                    routed.claims.insert(port, claim);
                }
                Err((Reason::Draining, _)) => {}
                Err((_, text)) => {
                    if before.remove(&port).as_ref() != Some(&text) {
                        tracing::warn!(port, %service, "a route's port is not served: {text}");
                    }
                    routed.unserved.insert(port, text);
                }
            }
        }
    }

    /// Why a port that a route leads from is not served, as far as is known.
    pub(crate) fn unserved(&self, port: u16) -> Option<String> {
        self.settings_for(port).err().or_else(|| self.inner.routed.lock().unserved.get(&port).cloned())
    }

    /// Closes every port for good.
    pub(crate) fn close(&self) {
        let routed = std::mem::take(&mut self.inner.routed.lock().claims);
        let mut bound = self.inner.bound.lock();
        bound.is_closed = true;
        for held in bound.ports.values() {
            held.door.close();
            held.scope.cancel();
        }
        drop(bound);
        drop(routed);
    }

    fn serve(&self, port: u16) {
        let mut bound = self.inner.bound.lock();
        let Some(held) = bound.ports.get_mut(&port).filter(|held| !held.is_served) else { return };
        held.is_served = true;
        let (inner, door) = (Arc::clone(&self.inner), Arc::clone(&held.door));
        held.scope.spawn("tcp listener", async move {
            let door = CloseOnDrop(door);
            let slots = Arc::clone(inner.plane.live.slots());
            accept_all(
                |cx| door.0.poll_accept(cx),
                slots,
                |tcp, peer, slot| {
                    let plane = Arc::clone(&inner.plane);
                    let Some((service, grant)) = plane.service_at(port) else { return };
                    // As it is said now, not when the port was bound.
                    let Some(way) = inner.settings.load().as_deref().map(Way::of) else { return };
                    inner.plane.scope.spawn_with("tcp connection", tcp, move |tcp| async move {
                        super::carry(tcp, peer, way, (&service, grant), &plane).await;
                        drop(slot);
                    });
                },
            )
            .await;
        });
    }

    fn release(&self, port: u16) {
        let mut bound = self.inner.bound.lock();
        let Some(held) = bound.ports.get_mut(&port) else { return };
        held.claims -= 1;
        if held.claims == 0 {
            // Under the lock: whoever claims the port next finds it free.
            held.door.close();
            held.scope.cancel();
            bound.ports.remove(&port);
            let why = if self.allows(port) {
                "nobody offers it any more, and no route leads from it"
            } else {
                "this gateway's settings do not allow it any more"
            };
            tracing::info!(port, purpose = "tcp", "no longer listening: {why}");
        }
    }
}

fn unavailable(text: impl Into<String>) -> (Reason, String) {
    (Reason::PortUnavailable, text.into())
}

fn why_not(addr: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another process on the gateway's machine uses it",
        io::ErrorKind::PermissionDenied => {
            "the gateway may not bind ports below 1024; give it the right to (CAP_NET_BIND_SERVICE)"
        }
        _ => "check the gateway's --data-addr, or tcp.listen in gateway.yaml",
    };
    format!("the gateway cannot listen on {addr} ({error}): {advice}")
}

/// An offer's or a route's hold on a public port. Dropping the last one closes the port.
#[derive(Debug)]
pub(crate) struct Claim {
    ports: Ports,
    port: u16,
}

impl Claim {
    /// Takes connections from here on. Until then they wait in the kernel.
    pub(crate) fn serve(&self) {
        self.ports.serve(self.port);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.ports.release(self.port);
    }
}
