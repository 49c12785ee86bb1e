//! Every address of a name, tried so that one which leads nowhere costs a moment and not the connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// How long an address is tried alone before the next one is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// The addresses of a name, in the order in which they are to be tried.
pub(super) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(in_turns(tokio::net::lookup_host((host, port)).await?.collect()))
}

/// Connects to the first address that answers; each is tried a moment after the one before, or at once when that has
/// failed. Cancel safe if `connect` is.
///
/// # Errors
/// What became of the last one.
pub(super) async fn race<T, C, F>(addresses: Vec<SocketAddr>, connect: C) -> io::Result<T>
where
    C: Fn(SocketAddr) -> F,
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(connect(address));
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
            Some(Ok(connected)) => return Ok(connected),
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
}
