//! Settings of the sockets at both ends of a tunnel: those of clients, and those to upstreams.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Silence after which the kernel asks whether the other end is still there.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it asks again.
const INTERVAL: Duration = Duration::from_secs(15);

/// Has the kernel find out that the other end is gone, so that a connection on which nothing is said does not outlive
/// it by more than a few minutes. A listener hands this on to what it accepts where the system does that (Linux).
///
/// # Errors
/// What the system said.
#[expect(single_use_lifetimes, reason = "an anonymous lifetime is not allowed here")]
pub fn keep_alive<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    socket.into().set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE).with_interval(INTERVAL))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_listener_accepts_is_kept_alive_as_well() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        keep_alive(&listener).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SILENCE);
    }
}
