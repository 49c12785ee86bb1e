//! Callers by QUIC, on the UDP port beside the control port's: the same places, patience and penalties as for those
//! who come by TCP. Only sessions are opened here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_tunnel::transport::UNKNOWN;
use adit_tunnel::transport::quic::{Arriving, Listener};
use rustls::ServerConfig;
use tokio::sync::Semaphore;

use super::unproved::Unproved;
use super::{Caller, ControlPort, MAX_CALLERS, Slot, TURN};

/// So many callers who have proved nothing, and a new one has to show first that it is where it says it is.
const CHALLENGED: usize = 1000;
/// How long until the port is tried again that could not be bound.
const AGAIN: Duration = Duration::from_secs(2);

/// What it takes to listen.
pub(crate) struct Door {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Arc<ServerConfig>,
    /// The same after a restart.
    pub(crate) secret: [u8; 32],
}

impl Door {
    /// Binds the port.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn open(&self) -> io::Result<Listener> {
        Listener::bind(self.addr, &self.tls, &self.secret)
    }
}

/// Serves until the scope ends. A port that could not be bound is tried again: most often a former life of the
/// gateway is about to let it go.
#[expect(clippy::infinite_loop, reason = "ends with its scope")]
pub(super) async fn run(
    port: Arc<ControlPort>,
    door: Door,
    mut bound: Option<Listener>,
    slots: Arc<Semaphore>,
    unproved: Arc<Unproved>,
) {
    loop {
        match bound.take().map_or_else(|| door.open(), Ok) {
            Ok(listener) => {
                tracing::info!(addr = %door.addr, purpose = "control, QUIC", "listening");
                accept_all(&port, &listener, &slots, &unproved).await;
            }
            Err(error) => tracing::debug!(addr = %door.addr, %error, "the UDP port cannot be bound yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn accept_all(
    port: &Arc<ControlPort>,
    listener: &Listener,
    slots: &Arc<Semaphore>,
    unproved: &Arc<Unproved>,
) {
    while let Some(mut arriving) = listener.accept().await {
        let address = arriving.peer().ip();
        let half_open = MAX_CALLERS - slots.available_permits();
        if half_open >= CHALLENGED || unproved.is_crowded(address) {
            // Anybody can put any address on a packet, and fill that address's places.
            let Some(shown) = arriving.challenge() else { continue };
            arriving = shown;
        }
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            arriving.refuse();
            continue;
        };
        let (port, unproved) = (Arc::clone(port), Arc::clone(unproved));
        let scope = port.scope.clone();
        scope.spawn("quic connection", async move {
            // Who has waited that long for its turn has given up: the place is for somebody who has not.
            if let Ok(Some(place)) = tokio::time::timeout(TURN, unproved.place(address)).await {
                serve(port, arriving, Slot { _caller: slot, place }).await;
            }
        });
    }
}

async fn serve(port: Arc<ControlPort>, arriving: Arriving, slot: Slot) {
    let (peer, patience) = (arriving.peer(), slot.place.patience);
    let (io, exporter, shown) = match tokio::time::timeout(patience, arriving.accept()).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a QUIC handshake on the control port failed");
            return;
        }
        Err(_elapsed) => return,
    };
    let slot = Arc::new(parking_lot::Mutex::new(Some(slot)));
    let certificate = port.identities.peer(&shown);
    let caller = Caller { peer, exporter, certificate, tls: UNKNOWN, slot, proved: Arc::default(), patience };
    let trust = io.trust();
    port.session(io, &caller, "quic").await;
    if caller.is_proved() {
        trust.now();
    }
}
