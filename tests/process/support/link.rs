//! The network between an agent and its gateway, as bad as a test wants it: a relay of bytes that can fall silent,
//! hold connections up, cut them and reset them. It needs no rights that a test would lack.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mood {
    #[default]
    Passes,
    /// Nothing, in either direction. What was sent waits, as in a peer's retransmissions.
    Holds,
    /// Only what the gateway sends.
    HoldsTheAgents,
    Ends,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    /// Both sockets of every connection: the agent's, and the one to the gateway; and whether the gateway's is left
    /// alone when the agent's ends.
    pairs: Vec<(TcpStream, TcpStream, Arc<AtomicBool>)>,
    delay: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A link that stands for as long as this lives.
#[derive(Debug)]
pub(crate) struct Link {
    /// Where an agent finds the gateway.
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Link {
    /// A link to this address.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Self { addr: listener.local_addr().unwrap(), shared: Arc::default() };
        let shared = Arc::clone(&link.shared);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if shared.state.lock().mood == Mood::Ends {
                    return;
                }
                let Ok(near) = near else { continue };
                // Nobody there: the agent's connection ends at once.
                let Ok(far) = TcpStream::connect(target) else { continue };
                drop((near.set_nodelay(true), far.set_nodelay(true)));
                let forgets = Arc::new(AtomicBool::new(false));
                let pair = (near.try_clone().unwrap(), far.try_clone().unwrap(), Arc::clone(&forgets));
                shared.state.lock().pairs.push(pair);
                for (from, to, is_agents) in
                    [(near.try_clone().unwrap(), far.try_clone().unwrap(), true), (far, near, false)]
                {
                    let (shared, forgets) = (Arc::clone(&shared), Arc::clone(&forgets));
                    std::thread::spawn(move || {
                        shared.pass(from, &to, is_agents);
                        if !(is_agents && forgets.load(Ordering::SeqCst)) {
                            // A half-close is passed on; the other direction goes on by itself.
                            drop(to.shutdown(Shutdown::Write));
                        }
                    });
                }
            }
        });
        link
    }

    fn set(&self, mood: Mood) {
        self.shared.state.lock().mood = mood;
        self.shared.changed.notify_all();
    }

    /// Nothing arrives any more, and nobody is told.
    pub(crate) fn falls_silent(&self) {
        self.set(Mood::Holds);
    }

    /// What the agent sends does not arrive; what the gateway sends does.
    pub(crate) fn loses_what_the_agent_sends(&self) {
        self.set(Mood::HoldsTheAgents);
    }

    /// Everything passes again.
    pub(crate) fn is_back(&self) {
        self.set(Mood::Passes);
    }

    /// Everything takes this much longer, each way.
    pub(crate) fn delays(&self, delay: Duration) {
        self.shared.state.lock().delay = delay;
    }

    /// Ends every connection in order.
    pub(crate) fn cuts(&self) {
        for (near, far, _) in self.shared.state.lock().pairs.drain(..) {
            drop((near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both)));
        }
    }

    /// Resets every connection.
    pub(crate) fn resets(&self) {
        for (near, far, _) in self.shared.state.lock().pairs.drain(..) {
            reset(&near);
            reset(&far);
        }
    }

    /// Resets the agent's end of every connection; the gateway hears nothing of it, and nothing any more.
    pub(crate) fn forgets_the_agent(&self) -> Forgotten {
        let pairs = std::mem::take(&mut self.shared.state.lock().pairs);
        let kept = pairs.into_iter().map(|(near, far, forgets)| {
            forgets.store(true, Ordering::SeqCst);
            reset(&near);
            far
        });
        Forgotten(kept.collect())
    }
}

/// Connections of which only the gateway's end is left.
#[derive(Debug)]
pub(crate) struct Forgotten(Vec<TcpStream>);

impl Forgotten {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// A socket that is told to connect to nowhere resets what it was connected to, whoever else holds it.
fn reset(stream: &TcpStream) {
    let _unless_it_is_gone = rustix::net::connect_unspec(stream);
}

impl Shared {
    /// Passes bytes one way until either end is gone.
    fn pass(&self, mut from: TcpStream, mut to: &TcpStream, is_agents: bool) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            let delay = {
                let mut state = self.state.lock();
                let is_held = |state: &mut State| match state.mood {
                    Mood::Holds => true,
                    Mood::HoldsTheAgents => is_agents,
                    Mood::Passes | Mood::Ends => false,
                };
                self.changed.wait_while(&mut state, is_held);
                state.delay
            };
            if !delay.is_zero() {
                std::thread::park_timeout(delay);
            }
            if count == 0 || to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.set(Mood::Ends);
        self.cuts();
        drop(TcpStream::connect(self.addr));
    }
}
