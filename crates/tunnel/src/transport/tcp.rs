//! TCP to a gateway: every address it has, none of them for long.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long TCP may take. Short, because the kernel repeats a lost first packet ever more slowly: after an outage a
/// fresh attempt gets through sooner than an old one.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long an address is tried alone before the next one is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;
/// How long the kernel may hold bytes the other end has not acknowledged.
#[cfg(any(target_os = "linux", target_os = "android"))]
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects to a host, tuned for a session. All its addresses take part, IPv6 and IPv4 in turns, each a moment after
/// the one before: a family that leads nowhere costs that moment and not the connection. Cancel safe.
///
/// # Errors
/// What the system said of the last address, or that it took too long.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, race(host, port));
    let tcp = connecting.await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?;
    tune(&tcp)?;
    Ok(tcp)
}

async fn race(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = in_turns(tokio::net::lookup_host((host, port)).await?.collect());
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(address));
        }
        let outcome = if waiting.len() == 0 {
            attempts.next().await
        } else {
            match tokio::time::timeout(HEAD_START, attempts.next()).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => continue,
            }
        };
        match outcome {
            Some(Ok(tcp)) => return Ok(tcp),
            Some(Err(error)) => failure = error,
            None if waiting.len() == 0 => return Err(failure),
            None => {}
        }
    }
}

/// The families one after the other, beginning with the one the system prefers.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == preferred);
    let longer = first.len().max(second.len());
    let pick = |of: &[SocketAddr], i: usize| of.get(i).copied();
    (0..longer).flat_map(|i| [pick(&first, i), pick(&second, i)]).flatten().take(MAX_ADDRESSES).collect()
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

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_systems_choice_comes_first() {
        let sorted = in_turns(addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]));
        assert_eq!(sorted, addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        assert_eq!(in_turns(addresses(&["1.1.1.1:1", "[::1]:1"])), addresses(&["1.1.1.1:1", "[::1]:1"]));
        assert!(in_turns(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn a_name_without_a_listener_is_an_error_of_the_system_and_not_of_the_clock() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(connect("localhost", port).await.is_ok());
        drop(listener);
        assert_eq!(connect("127.0.0.1", port).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
