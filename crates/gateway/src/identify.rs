//! Who is asking: the client's address, as far as it can be believed.

use std::net::{IpAddr, SocketAddr};

use ::http::{HeaderMap, Request};
use adit_control::{Rules, Snapshot, Subject};

/// The subject of a request: the peer itself or, when the peer is a trusted proxy, whom it names.
pub(crate) fn subject<B>(request: &Request<B>, peer: SocketAddr, snapshot: &Snapshot) -> Subject {
    let address = client_address(request.headers(), peer.ip(), snapshot.rules());
    Subject { address: address.to_canonical() }
}

/// Walks `X-Forwarded-For` from the right, the end our own neighbour wrote, past every proxy that is trusted. What
/// stands further left is anybody's claim.
fn client_address(headers: &HeaderMap, peer: IpAddr, rules: &Rules) -> IpAddr {
    if !rules.trusts(peer) {
        return peer;
    }
    let mut client = peer;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for entry in value.to_str().unwrap_or("").rsplit(',') {
            let Some(address) = parse_entry(entry.trim()) else { return client };
            client = address;
            if !rules.trusts(address) {
                return client;
            }
        }
    }
    client
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
    use super::*;

    fn address(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let rules = Rules {
            trusted_proxies: trusted.iter().map(|n| n.parse().unwrap()).collect(),
            ..Rules::default()
        };
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        client_address(&headers, peer.parse().unwrap(), &rules).to_string()
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
        assert_eq!(address(trusted, "192.0.2.1", &["198.51.100.7, garbage"]), "192.0.2.1");
        assert_eq!(address(trusted, "192.0.2.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(address(trusted, "192.0.2.1", &[]), "192.0.2.1");
    }
}
