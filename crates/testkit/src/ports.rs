//! Port numbers for the few places where a number has to be known before somebody listens on it.
//!
//! Everything else listens on port 0 and says which one it became. A number that has to survive a restart must
//! not be one that the system hands out to outgoing connections meanwhile, so these lie below that range.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::TcpSocket;

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on now. Another program may still take it, so a caller tries again with another.
#[must_use]
pub fn free() -> u16 {
    let start = u16::try_from(std::process::id() % 89).unwrap() * 100;
    for _ in 0..COUNT {
        let port = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if is_free(port).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} on is free");
}

/// Looks without listening: a process that another test is just starting inherits what is open here, and would still
/// listen for a moment when this is long closed.
fn is_free(port: u16) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free_and_a_free_one_is_at_once_anybodys() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(is_free(port).is_err());
        drop(taken);
        // What a child of another test still holds.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        let port = free();
        socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
}
