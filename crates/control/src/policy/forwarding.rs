//! Where the gateway itself may connect for an agent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_proto::reason::Reason;

use super::Denial;
use crate::snapshot::Snapshot;

/// A yes to a connection from the gateway itself, for an agent. Only [`authorize_dial`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialPermit {
    address: SocketAddr,
}

impl DialPermit {
    /// Where to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// May an agent have the gateway connect to this address? Link-local addresses are nobody's services, and in a cloud
/// they hand out the machine's own credentials.
///
/// # Errors
/// [`Denial`] when the rules allow no such thing, or never to this address.
pub fn authorize_dial(snapshot: &Snapshot, address: SocketAddr) -> Result<DialPermit, Denial> {
    if snapshot.rules().client_forwarding && is_service(address.ip()) {
        Ok(DialPermit { address })
    } else {
        Err(Denial::plain(Reason::ForwardingDenied))
    }
}

/// Whether something other than the network itself, or a cloud's credentials, can be at an address.
fn is_service(address: IpAddr) -> bool {
    /// Where clouds answer beside the link-local address: Alibaba Cloud, and EC2 by IPv6.
    const METADATA: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
    ];
    let address = address.to_canonical();
    if METADATA.contains(&address) {
        return false;
    }
    match address {
        IpAddr::V4(ip) => {
            !(ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified())
        }
        IpAddr::V6(ip) if ip.is_loopback() => true,
        IpAddr::V6(ip) => {
            let is_own = ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified();
            !is_own && embedded(ip).is_none_or(|ip| is_service(ip.into()))
        }
    }
}

/// The IPv4 address that a translator or a tunnel would make of this one: NAT64 (RFC 6052), 6to4 (RFC 3056) and
/// IPv4-compatible addresses (RFC 4291 §2.5.5.1).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let (high, low) = match [a, b, c, d, e, f] {
        [0x64, 0xff9b, 0, 0, 0, 0] | [0, 0, 0, 0, 0, 0] => (g, h),
        [0x2002, ..] => (b, c),
        _ => return None,
    };
    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Rules, Snapshots};

    #[test]
    fn a_gateway_connects_for_agents_only_where_it_is_told_to_and_never_to_link_local_addresses() {
        let dial = |client_forwarding, address: &str| {
            let rules = Rules { client_forwarding, ..Rules::default() };
            authorize_dial(&Snapshots::new(rules).current(), address.parse().unwrap())
        };
        assert_eq!(dial(true, "127.0.0.1:3000").unwrap().address().port(), 3000);
        assert!(dial(true, "[::1]:1").is_ok() && dial(true, "10.0.0.1:1").is_ok());
        assert_eq!(dial(false, "127.0.0.1:3000"), Err(Denial::plain(Reason::ForwardingDenied)));
        assert!(dial(true, "[2001:db8::1]:1").is_ok() && dial(true, "[64:ff9b::10.0.0.1]:1").is_ok());
        for address in [
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[::ffff:169.254.169.254]:80",
            "0.0.0.0:80",
            "[::]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[2002:a9fe:a9fe::]:80",
            "[::169.254.169.254]:80",
            "100.100.100.200:80",
            "[fd00:ec2::254]:80",
        ] {
            assert!(dial(true, address).is_err(), "{address}");
        }
    }
}
