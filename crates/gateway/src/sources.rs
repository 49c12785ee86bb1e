//! How many public connections each source address has, so that one client does not take the places of all others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Who has how many. There are no more addresses here than there are connections.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of those that a source may have, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Share {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    /// One more connection from this address; `None` when it has so many already.
    pub(crate) fn share(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Share> {
        let source = source(address);
        let mut sources = self.open.lock();
        let open = sources.entry(source).or_default();
        if *open >= max {
            return None;
        }
        *open += 1;
        drop(sources);
        Some(Share { sources: Arc::clone(self), source })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut sources = self.sources.open.lock();
        let Some(open) = sources.get_mut(&self.source) else { return };
        *open -= 1;
        if *open == 0 {
            sources.remove(&self.source);
            if sources.len() * 4 < sources.capacity() {
                sources.shrink_to(64);
            }
        }
    }
}

/// One IPv6 customer has a whole /64 to come from.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_so_many_connections_and_no_memory_is_left_of_it() {
        let sources = Arc::new(Sources::default());
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let held: Vec<_> =
            ["2001:db8::1", "2001:db8::2"].map(|text| sources.share(at(text), 2).unwrap()).into();
        assert!(sources.share(at("2001:db8::3"), 2).is_none(), "one customer's network");
        assert!(sources.share(at("192.0.2.1"), 2).is_some(), "somebody else");
        drop(held);
        assert!(sources.share(at("2001:db8::3"), 2).is_some());
        assert!(sources.open.lock().is_empty());
    }
}
