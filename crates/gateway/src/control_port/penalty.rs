//! Failed authentications per source address, so that a token cannot be guessed at speed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::pace::Pace;
use crate::live::Live;
use crate::sources::source;

/// Failures are counted for this long from the first one.
const WINDOW: Duration = Duration::from_secs(60);
/// Failures logged a second.
const LOGGED: u32 = 5;
/// How often the log says that agents were sent away by a drain.
const DRAINING_LOGGED: Duration = Duration::from_secs(10);
/// Addresses remembered; when there are more, the oldest windows are forgotten.
const MAX_SOURCES: usize = 16 * 1024;

/// Who has failed how often.
#[derive(Debug)]
pub(crate) struct Penalties {
    live: Arc<Live>,
    /// For what is said about failures: anybody can fail, as often as he likes.
    pub(super) log: Pace,
    /// For agents that come while the gateway drains: each of them does, again and again.
    pub(super) draining: Pace,
    sources: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Penalties {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        let (log, draining) = (Pace::new(LOGGED, Duration::from_secs(1)), Pace::new(1, DRAINING_LOGGED));
        Self { live, log, draining, sources: Mutex::default() }
    }

    /// Whether this address has used up its failures.
    pub(crate) fn is_barred(&self, address: IpAddr) -> bool {
        self.barred_for(address).is_some()
    }

    /// How much longer this address hears no more than that it has used up its failures; `None`: it has not.
    pub(crate) fn barred_for(&self, address: IpAddr) -> Option<Duration> {
        let max = self.live.limits().max_auth_failures;
        let sources = self.sources.lock();
        let &(since, failures) = sources.get(&source(address))?;
        let left = WINDOW.checked_sub(since.elapsed()).filter(|left| !left.is_zero())?;
        (failures >= max).then_some(left)
    }

    /// The same in whole seconds, as `Retry-After` says it: when they are over, it is free.
    pub(crate) fn retry_after(&self, address: IpAddr) -> u64 {
        self.barred_for(address).map_or(1, |left| left.as_millis().div_ceil(1000).try_into().unwrap_or(60))
    }

    /// Holds a failure against an address.
    pub(crate) fn failed(&self, address: IpAddr) {
        let now = Instant::now();
        let mut sources = self.sources.lock();
        if sources.len() >= MAX_SOURCES {
            sources.retain(|_, (since, _)| since.elapsed() < WINDOW / 2);
        }
        if sources.len() >= MAX_SOURCES {
            sources.clear();
        }
        let (since, failures) = sources.entry(source(address)).or_insert((now, 0));
        if since.elapsed() >= WINDOW {
            (*since, *failures) = (now, 0);
        }
        *failures = failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn penalties(max_auth_failures: u32) -> Penalties {
        let limits = Limits { max_auth_failures, ..Limits::default() };
        Penalties::new(Arc::new(Live::new(limits, Duration::ZERO)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_barred_after_its_failures_and_free_again_after_a_minute() {
        let penalties = penalties(3);
        let (guilty, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..3 {
            assert!(!penalties.is_barred(guilty));
            penalties.failed(guilty);
        }
        assert!(penalties.is_barred(guilty));
        assert!(!penalties.is_barred(other));
        assert_eq!(penalties.retry_after(guilty), 60);
        tokio::time::advance(Duration::from_millis(39_500)).await;
        assert_eq!(penalties.retry_after(guilty), 21, "the minute counts from the first failure");
        tokio::time::advance(Duration::from_millis(20_499)).await;
        assert_eq!((penalties.is_barred(guilty), penalties.retry_after(guilty)), (true, 1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!penalties.is_barred(guilty));
    }

    #[tokio::test]
    async fn a_network_of_one_customer_counts_as_one_source_and_memory_is_bounded() {
        let penalties = penalties(2);
        penalties.failed("2001:db8::1".parse().unwrap());
        penalties.failed("2001:db8::2".parse().unwrap());
        assert!(penalties.is_barred("2001:db8::3".parse().unwrap()));
        for i in 0..40_000_u32 {
            penalties.failed(std::net::Ipv4Addr::from_bits(i).into());
        }
        assert!(penalties.sources.lock().len() <= MAX_SOURCES);
    }
}
