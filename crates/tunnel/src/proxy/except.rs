//! Where no proxy is used, as `NO_PROXY` lists it.

use ipnet::IpNet;

use super::literal;

/// A list of hosts, each with or without a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exceptions(Vec<Exception>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// This machine.
    Loopback,
    Network(IpNet),
    /// A name, lower case, without dots around it.
    Name(String),
    /// The names below it only.
    Below(String),
}

impl Exceptions {
    /// What a list says, and this machine itself.
    pub(super) fn beside_loopback(list: &str) -> Self {
        let loopback = Exception { host: Host::Loopback, port: None };
        let listed = list.split([',', ' ', '\t']).map(str::trim).filter_map(Exception::read);
        Self(std::iter::once(loopback).chain(listed).collect())
    }

    pub(super) fn contains(&self, host: &str, port: u16) -> bool {
        self.0
            .iter()
            .any(|exception| exception.port.is_none_or(|only| only == port) && exception.host.matches(host))
    }
}

impl Exception {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self { host: Host::Any, port: None });
        }
        // Whole first: an IPv6 address has colons of its own.
        if let Some(host) = Host::read(text) {
            return Some(Self { host, port: None });
        }
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        Some(Self { host: Host::read(host)?, port: Some(port.parse().ok()?) })
    }
}

impl Host {
    fn read(text: &str) -> Option<Self> {
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self::Network(network));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Some(address) = literal(bare) {
            return Some(Self::Network(address.into()));
        }
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        if name.is_empty() || name.contains([':', '/', '[', ']']) {
            return None;
        }
        let below = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        Some(below.map_or_else(|| Self::Name(name.clone()), |domain| Self::Below(domain.to_owned())))
    }

    fn matches(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match self {
            Self::Any => true,
            Self::Loopback => {
                host == "localhost" || literal(&host).is_some_and(|ip| ip.to_canonical().is_loopback())
            }
            Self::Network(network) => literal(&host).is_some_and(|ip| network.contains(&ip.to_canonical())),
            Self::Name(name) => host == *name || is_below(&host, name),
            Self::Below(name) => is_below(&host, name),
        }
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_hosts_domains_networks_and_ports() {
        let list = Exceptions::beside_loopback(
            "corp.example, .below.example,*.star.example 10.0.0.0/8,[2001:db8::1]:8123,192.0.2.1,port.example:1",
        );
        for (host, port) in [
            ("corp.example", 8123),
            ("Gateway.Corp.Example.", 8123),
            ("a.below.example", 1),
            ("a.star.example", 1),
            ("10.1.2.3", 1),
            ("::ffff:10.1.2.3", 1),
            ("2001:db8::1", 8123),
            ("192.0.2.1", 1),
            ("port.example", 1),
            ("localhost", 1),
            ("127.1.2.3", 1),
            ("::1", 1),
        ] {
            assert!(list.contains(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("notcorp.example", 8123),
            ("below.example", 1),
            ("11.0.0.1", 1),
            ("2001:db8::1", 1),
            ("port.example", 2),
            ("example", 1),
        ] {
            assert!(!list.contains(host, port), "{host}:{port}");
        }
        assert!(Exceptions::beside_loopback("*").contains("anything", 1));
    }

    #[test]
    fn what_cannot_be_read_matches_nothing() {
        let list = Exceptions::beside_loopback(",,:,[::1,10.0.0.0/99,a/b,x:y,");
        assert_eq!(list.0.len(), 1, "{list:?}");
    }
}
