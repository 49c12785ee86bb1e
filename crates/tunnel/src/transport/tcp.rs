//! TCP to a gateway: every address it has, none of them for long.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::race::{addresses, race};

/// How long TCP may take. Short, because the kernel repeats a lost first packet ever more slowly: after an outage a
/// fresh attempt gets through sooner than an old one.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long the kernel may hold bytes the other end has not acknowledged.
#[cfg(any(target_os = "linux", target_os = "android"))]
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects to a host, tuned for a session. All its addresses take part, IPv6 and IPv4 in turns, each a moment after
/// the one before: a family that leads nowhere costs that moment and not the connection. Cancel safe.
///
/// # Errors
/// What the system said of the last address, or that it took too long.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let racing = async { race(addresses(host, port).await?, TcpStream::connect).await };
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, racing);
    let tcp = connecting.await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?;
    tune(&tcp)?;
    Ok(tcp)
}

/// Settings every TCP connection of a session needs: no delay for small writes (both ends batch themselves), and
/// the kernel's own probes and its limit on unacknowledged bytes as a second net under our own probes.
///
/// # Errors
/// What the system said.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_without_a_listener_is_an_error_of_the_system_and_not_of_the_clock() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(connect("localhost", port).await.is_ok());
        drop(listener);
        assert_eq!(connect("127.0.0.1", port).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
