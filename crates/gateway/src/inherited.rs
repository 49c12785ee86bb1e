//! Listening sockets that were bound before this process began, by whoever started it. A connection that comes while
//! one process ends and the next one begins waits in them, and is refused by nobody.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use parking_lot::Mutex;
use tokio::net::TcpListener;

/// What was handed to this process.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Mutex<Vec<(SocketAddr, StdListener)>>,
}

impl Inherited {
    /// Takes them in.
    ///
    /// # Errors
    /// One of them has no address, or cannot be used without waiting for it.
    pub fn new(listeners: Vec<StdListener>) -> io::Result<Self> {
        let with_address = listeners.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        Ok(Self { sockets: Mutex::new(with_address.collect::<io::Result<_>>()?) })
    }

    /// The one bound to this address, if there is one; nobody else gets it.
    pub(crate) fn take(&self, addr: SocketAddr) -> Option<io::Result<TcpListener>> {
        let mut sockets = self.sockets.lock();
        let at = sockets.iter().position(|(bound, _)| is_for(*bound, addr))?;
        Some(TcpListener::from_std(sockets.swap_remove(at).1))
    }

    /// The one bound to this address, which stays here as well: it is needed now and then.
    pub(crate) fn lend(&self, addr: SocketAddr) -> Option<io::Result<TcpListener>> {
        let sockets = self.sockets.lock();
        let (_, listener) = sockets.iter().find(|(bound, _)| is_for(*bound, addr))?;
        Some(listener.try_clone().and_then(TcpListener::from_std))
    }

    /// Whether whoever started this process has bound this address, and keeps it bound.
    pub(crate) fn has(&self, bound: SocketAddr) -> bool {
        self.sockets.lock().iter().any(|(there, _)| *there == bound)
    }

    /// Where those are bound that nobody has taken.
    pub(crate) fn left(&self) -> Vec<SocketAddr> {
        self.sockets.lock().iter().map(|(bound, _)| *bound).collect()
    }
}

/// Whether a socket bound to `bound` serves what is configured for `addr`: all addresses serve each of them, and
/// the two ways to say all addresses are the same.
fn is_for(bound: SocketAddr, addr: SocketAddr) -> bool {
    bound.port() == addr.port() && (bound.ip() == addr.ip() || bound.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_found_by_its_address_and_taken_once() {
        let listeners: Vec<_> = (0..2).map(|_| StdListener::bind("127.0.0.1:0").unwrap()).collect();
        let [one, two] = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
        let inherited = Inherited::new(listeners).unwrap();
        assert!(inherited.take(SocketAddr::from(([127, 0, 0, 2], one.port()))).is_none());
        assert_eq!(inherited.take(one).unwrap().unwrap().local_addr().unwrap(), one);
        assert!(inherited.take(one).is_none());
        for _ in 0..2 {
            assert_eq!(inherited.lend(two).unwrap().unwrap().local_addr().unwrap(), two);
        }
        assert_eq!(inherited.left(), [two]);
        assert!(is_for("0.0.0.0:80".parse().unwrap(), "192.0.2.1:80".parse().unwrap()));
        assert!(is_for("[::]:80".parse().unwrap(), "0.0.0.0:80".parse().unwrap()));
    }
}
