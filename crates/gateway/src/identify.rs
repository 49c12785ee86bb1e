//! Who is asking: the client's address, as far as it can be believed.

use std::net::{IpAddr, SocketAddr};

use ::http::{HeaderMap, Request};
use adit_control::{Rules, Snapshot, Subject};

/// The subject of a request: the peer itself or, when the peer is a trusted proxy, whom it names.
pub(crate) fn subject<B>(request: &Request<B>, peer: SocketAddr, snapshot: &Snapshot) -> Subject {
    let address = client_address(request.headers(), peer.ip(), snapshot.rules());
    Subject::public(address.map(|address| address.to_canonical()))
}

/// Walks `X-Forwarded-For` from the right, the end our own neighbour wrote, past every proxy that is trusted. What
/// stands further left is anybody's claim. `None` when what stands where the client should cannot be read: to take
/// the proxy itself for the client then would let a client choose to be the proxy, which may be on lists it is not.
fn client_address(headers: &HeaderMap, peer: IpAddr, rules: &Rules) -> Option<IpAddr> {
    if !rules.trusts(peer) {
        return Some(peer);
    }
    let mut client = peer;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        // By bytes, so that one that is no text spoils only what stands left of it.
        for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
            client = parse_entry(std::str::from_utf8(entry).ok()?.trim())?;
            if !rules.trusts(client) {
                return Some(client);
            }
        }
    }
    Some(client)
}

/// An address, with or without a port.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    entry
        .parse()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|addr| addr.ip()))
        .or_else(|| entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn address(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let forwarded: Vec<_> = forwarded.iter().map(|value| value.as_bytes()).collect();
        address_by(trusted, peer, &forwarded)
            .map_or_else(|| "unknown".to_owned(), |address| address.to_string())
    }

    fn address_by(trusted: &[&str], peer: &str, forwarded: &[&[u8]]) -> Option<IpAddr> {
        let rules = Rules {
            trusted_proxies: trusted.iter().map(|n| n.parse().unwrap()).collect(),
            ..Rules::default()
        };
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(value).unwrap());
        }
        client_address(&headers, peer.parse().unwrap(), &rules)
    }

    #[test]
    fn a_claim_is_believed_only_from_a_trusted_proxy() {
        assert_eq!(address(&[], "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(address(&["192.0.2.1/32"], "192.0.2.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn a_chain_of_trusted_proxies_is_walked_to_the_first_stranger() {
        let trusted = &["192.0.2.0/24"];
        assert_eq!(address(trusted, "192.0.2.1", &["203.0.113.5, 198.51.100.7, 192.0.2.2"]), "198.51.100.7");
        assert_eq!(
            address(trusted, "192.0.2.1", &["203.0.113.5", "198.51.100.7:443", "192.0.2.2"]),
            "198.51.100.7"
        );
        assert_eq!(address(trusted, "192.0.2.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(address(trusted, "192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(address(trusted, "192.0.2.1", &["garbage, 198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn a_claim_that_cannot_be_read_makes_nobody_the_proxy() {
        let trusted = &["192.0.2.0/24"];
        for claim in ["198.51.100.7, garbage", "198.51.100.7, unknown, 192.0.2.2", "198.51.100.7,", ",", ""] {
            assert_eq!(address(trusted, "192.0.2.1", &[claim]), "unknown", "{claim:?}");
        }
        assert_eq!(address(trusted, "192.0.2.1", &["198.51.100.7", ""]), "unknown");
        assert_eq!(address_by(trusted, "192.0.2.1", &[b"198.51.100.7, \xff"]), None);
        let stranger = "198.51.100.7".parse().ok();
        assert_eq!(address_by(trusted, "192.0.2.1", &[b"\xff, 198.51.100.7"]), stranger);
    }
}
