//! Figures about the async runtime: whether its workers keep up.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::runtime::{Handle, RuntimeMetrics};

use crate::metrics::{Metrics, encode_counter, encode_gauge};

/// Adds the `tokio_*` families of the runtimes that carry this process's work together, read at each scrape.
///
/// Once per registry: the families have no label that could tell two registrations apart.
pub fn register(metrics: &Metrics, runtimes: Vec<Handle>) {
    metrics.register_collector(Runtimes(runtimes));
}

#[derive(Debug)]
struct Runtimes(Vec<Handle>);

impl Runtimes {
    fn sum(&self, figure: impl Fn(RuntimeMetrics) -> usize) -> usize {
        self.0.iter().map(|runtime| figure(runtime.metrics())).sum()
    }
}

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        encode_gauge(
            encoder,
            "tokio_workers",
            "Worker threads that carry traffic.",
            Some(self.sum(|figures| figures.num_workers())),
        )?;
        encode_gauge(
            encoder,
            "tokio_alive_tasks",
            "Tasks that have not ended.",
            Some(self.sum(|figures| figures.num_alive_tasks())),
        )?;
        let help = "Tasks that wait to be taken over by another thread than the one that made them.";
        let depth = self.sum(|figures| figures.global_queue_depth());
        encode_gauge(encoder, "tokio_global_queue_depth", help, Some(depth))?;
        let help = "Time that all workers together spent running tasks.";
        encode_counter(encoder, "tokio_worker_busy_seconds", help, busy_seconds(&self.0))
    }
}

/// `None` on targets without 64-bit atomics, where the runtime does not measure it.
fn busy_seconds(runtimes: &[Handle]) -> Option<f64> {
    #[cfg(target_has_atomic = "64")]
    {
        let busy = |figures: RuntimeMetrics| {
            (0..figures.num_workers())
                .map(|worker| figures.worker_total_busy_duration(worker).as_secs_f64())
                .sum::<f64>()
        };
        Some(runtimes.iter().map(|runtime| busy(runtime.metrics())).sum())
    }
    #[cfg(not(target_has_atomic = "64"))]
    {
        let _ = runtimes;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    #[test]
    fn tasks_and_workers_of_the_runtime_are_counted() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let metrics = Metrics::new();
        register(&metrics, vec![runtime.handle().clone()]);
        let figure = |name: &str| {
            let families = strict::parse(&metrics.render(None).body).unwrap();
            families.iter().find(|family| family.name == name).unwrap().samples[0].value
        };
        assert_eq!(figure("tokio_workers"), 2.0);
        assert_eq!(figure("tokio_alive_tasks"), 0.0);
        let _waiting = runtime.spawn(std::future::pending::<()>());
        assert_eq!(figure("tokio_alive_tasks"), 1.0);
        assert!(figure("tokio_worker_busy_seconds_total") >= 0.0);
        assert!(figure("tokio_global_queue_depth") <= 1.0);
    }
}
