//! Figures about the async runtime: whether its workers keep up.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::runtime::Handle;

use crate::metrics::{Metrics, encode_counter, encode_gauge};

/// Adds the `tokio_*` families of the runtime behind `runtime`, read at each scrape.
///
/// Once per registry: the families have no label that could tell two runtimes apart.
pub fn register(metrics: &Metrics, runtime: Handle) {
    metrics.register_collector(Runtime(runtime));
}

#[derive(Debug)]
struct Runtime(Handle);

impl Collector for Runtime {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (encoder, figures) = (&mut encoder, self.0.metrics());
        encode_gauge(
            encoder,
            "tokio_workers",
            "Worker threads of the runtime.",
            Some(figures.num_workers()),
        )?;
        encode_gauge(
            encoder,
            "tokio_alive_tasks",
            "Tasks that have not ended.",
            Some(figures.num_alive_tasks()),
        )?;
        let help = "Tasks that wait in the queue shared by all workers.";
        encode_gauge(encoder, "tokio_global_queue_depth", help, Some(figures.global_queue_depth()))?;
        let help = "Time that all workers together spent running tasks.";
        encode_counter(encoder, "tokio_worker_busy_seconds", help, busy_seconds(&self.0))
    }
}

/// `None` on targets without 64-bit atomics, where the runtime does not measure it.
fn busy_seconds(runtime: &Handle) -> Option<f64> {
    #[cfg(target_has_atomic = "64")]
    {
        let figures = runtime.metrics();
        Some(
            (0..figures.num_workers())
                .map(|worker| figures.worker_total_busy_duration(worker).as_secs_f64())
                .sum(),
        )
    }
    #[cfg(not(target_has_atomic = "64"))]
    {
        let _ = runtime;
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
        register(&metrics, runtime.handle().clone());
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
