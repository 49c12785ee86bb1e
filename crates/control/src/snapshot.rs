//! The compiled, immutable view that every decision reads exactly once.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

/// Counts published snapshots; a higher one is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// What an operator has decided about addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Addresses that may use public listeners. Empty: everyone.
    pub allow: Vec<IpNet>,
    /// Proxies whose word about the client's address is believed. Empty: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether agents may have the gateway connect to addresses of its own network.
    pub client_forwarding: bool,
}

impl Rules {
    /// Whether clients at this address may use public listeners.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.is_empty() || holds(&self.allow, address)
    }

    /// Whether a proxy at this address is believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        holds(&self.trusted_proxies, address)
    }
}

/// On a dual-stack listener an IPv4 client looks like `::ffff:a.b.c.d`; rules mean the address itself.
fn holds(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

/// One consistent view.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    generation: Generation,
    rules: Rules,
}

impl Snapshot {
    /// Which one this is.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The rules in it.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// Where snapshots are published and read. Reading takes no lock.
#[derive(Debug)]
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
}

impl Snapshots {
    /// Starts with these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { current: ArcSwap::from_pointee(Snapshot { generation: Generation(1), rules }) }
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes these rules the newest snapshot.
    pub fn publish(&self, rules: Rules) {
        self.current
            .rcu(|old| Snapshot { generation: Generation(old.generation.0 + 1), rules: rules.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_replaces_the_view_for_new_readers_and_leaves_old_ones_alone() {
        let snapshots = Snapshots::new(Rules::default());
        let before = snapshots.current();
        snapshots.publish(Rules { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Rules::default() });
        assert!(before.rules().allows("192.0.2.1".parse().unwrap()));
        assert!(!snapshots.current().rules().allows("192.0.2.1".parse().unwrap()));
        assert!(snapshots.current().generation() > before.generation());
    }

    #[test]
    fn nobody_is_trusted_unless_named() {
        assert!(!Rules::default().trusts("127.0.0.1".parse().unwrap()));
    }
}
