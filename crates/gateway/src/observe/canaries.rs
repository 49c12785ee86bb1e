//! What canaries tell.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_proto::reason::Reason;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::ByReason;

/// Upper bounds of the round trips, in seconds: from one machine to once around the earth and a queue.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0];

/// The counts of canaries.
#[derive(Debug)]
pub(super) struct Canaries {
    pub(super) round_trips: Histogram,
    pub(super) failures: Family<ByReason, Counter>,
    pub(super) last_success: Gauge<f64, AtomicU64>,
    last: Mutex<Option<Instant>>,
}

impl Canaries {
    pub(super) fn new() -> Self {
        let failures = Family::<ByReason, Counter>::default();
        // There from the start, so that a rate of it is one.
        drop(failures.get_or_create_owned(&ByReason { reason: Reason::SessionTimeout.label() }));
        Self {
            round_trips: Histogram::new(BUCKETS),
            failures,
            last_success: Gauge::default(),
            last: Mutex::default(),
        }
    }

    pub(super) fn count(&self, outcome: Result<Duration, Reason>) {
        match outcome {
            Ok(round_trip) => {
                self.round_trips.observe(round_trip.as_secs_f64());
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.last_success.set(now.as_secs_f64());
                *self.last.lock() = Some(Instant::now());
            }
            Err(reason) => {
                self.failures.get_or_create_owned(&ByReason { reason: reason.label() }).inc();
            }
        }
    }

    /// How long ago the last one came back.
    pub(super) fn age(&self) -> Option<Duration> {
        self.last.lock().map(|last| last.elapsed())
    }
}
