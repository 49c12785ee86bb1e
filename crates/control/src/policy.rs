//! The one place that says yes.

use std::net::{IpAddr, SocketAddr};

use adit_proto::names::ServiceName;
use adit_proto::reason::Reason;

use crate::snapshot::{Generation, Snapshot};

/// Whom a decision is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The client's address, as far as it can be believed. `None` when nothing that was said about it can be; it then
    /// is on no list.
    pub address: Option<IpAddr>,
}

/// A yes. Only [`authorize`] makes one, and nothing is forwarded without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    service: ServiceName,
    generation: Generation,
}

impl Permit {
    /// What may be reached.
    #[must_use]
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The rules it was given by.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

/// A no, with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
}

/// May this subject reach this service?
///
/// # Errors
/// [`Denial`] when the rules do not allow the subject's address, or allow some and the subject's is not known.
pub fn authorize(snapshot: &Snapshot, subject: &Subject, service: &ServiceName) -> Result<Permit, Denial> {
    let rules = snapshot.rules();
    if !subject.address.map_or(rules.allow.is_empty(), |address| rules.allows(address)) {
        return Err(Denial { reason: Reason::AddressDenied });
    }
    Ok(Permit { service: service.clone(), generation: snapshot.generation() })
}

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
    let is_service = match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified())
        }
        IpAddr::V6(ip) => !(ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified()),
    };
    if snapshot.rules().client_forwarding && is_service {
        Ok(DialPermit { address })
    } else {
        Err(Denial { reason: Reason::ForwardingDenied })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Rules, Snapshots};

    fn decide(allow: &[&str], address: &str) -> Result<Permit, Denial> {
        decide_for(allow, Some(address.parse().unwrap()))
    }

    fn decide_for(allow: &[&str], address: Option<IpAddr>) -> Result<Permit, Denial> {
        let rules =
            Rules { allow: allow.iter().map(|net| net.parse().unwrap()).collect(), ..Rules::default() };
        authorize(&Snapshots::new(rules).current(), &Subject { address }, &ServiceName::Tcp(1))
    }

    #[test]
    fn without_rules_everybody_may_and_with_rules_only_those_named() {
        assert!(decide(&[], "203.0.113.9").is_ok());
        assert!(decide(&["203.0.113.0/24"], "203.0.113.9").is_ok());
        assert_eq!(
            decide(&["203.0.113.0/24"], "198.51.100.1"),
            Err(Denial { reason: Reason::AddressDenied })
        );
        assert!(decide(&["2001:db8::/32"], "2001:db8::1").is_ok());
        assert!(decide(&["2001:db8::/32"], "203.0.113.9").is_err());
    }

    #[test]
    fn a_gateway_connects_for_agents_only_where_it_is_told_to_and_never_to_link_local_addresses() {
        let dial = |client_forwarding, address: &str| {
            let rules = Rules { client_forwarding, ..Rules::default() };
            authorize_dial(&Snapshots::new(rules).current(), address.parse().unwrap())
        };
        assert_eq!(dial(true, "127.0.0.1:3000").unwrap().address().port(), 3000);
        assert!(dial(true, "[::1]:1").is_ok() && dial(true, "10.0.0.1:1").is_ok());
        assert_eq!(dial(false, "127.0.0.1:3000"), Err(Denial { reason: Reason::ForwardingDenied }));
        for address in
            ["169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80", "0.0.0.0:80", "[::]:80"]
        {
            assert!(dial(true, address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_client_whose_address_is_not_known_is_on_no_list() {
        assert!(decide_for(&[], None).is_ok());
        let everybody = &["0.0.0.0/0", "::/0"];
        assert_eq!(decide_for(everybody, None), Err(Denial { reason: Reason::AddressDenied }));
    }

    #[test]
    fn an_ipv4_client_on_a_dual_stack_listener_is_still_ipv4() {
        assert!(decide(&["203.0.113.0/24"], "::ffff:203.0.113.9").is_ok());
        assert!(decide(&["203.0.113.0/24"], "::ffff:198.51.100.1").is_err());
    }
}
