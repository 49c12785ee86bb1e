//! The metrics of one gateway or agent: a registry that is owned, not global.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric as _, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Metric, Registry};

use crate::exposition::{self, Format};

/// The metrics of one instance. Clones are handles to the same registry.
///
/// A program that runs a gateway and an agent gives each its own, or shares one; nothing is shared unasked.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    inner: Arc<Mutex<Inner>>,
}

/// One answer to a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The value of the `Content-Type` header.
    pub content_type: &'static str,
    /// The exposition: whole lines only.
    pub body: String,
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `metric` under `name`; usually a clone of what the caller keeps and counts with.
    ///
    /// A counter's `name` comes without `_total` and an info's without `_info`: the exposition adds them. `help` is
    /// a sentence and may end in a full stop or not. A name can be registered once: two families of one name would
    /// make the whole scrape invalid, so the second is left out and an error is logged.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        let mut inner = self.inner.lock();
        if let Err(fault) = check_name(name, metric.metric_type(), &inner.names) {
            tracing::error!(metric = name, "metric is not registered: {fault}");
            return;
        }
        inner.names.push(name.to_owned());
        // The registry appends a full stop of its own.
        let help = escape_help(help.strip_suffix('.').unwrap_or(help));
        inner.registry.register(name, help, metric);
    }

    /// Adds families whose values are read at each scrape.
    ///
    /// `encode` runs under the registry's lock: it must not call back into this registry, and it delays the scrape
    /// by whatever it waits for.
    pub fn register_collector(&self, collector: impl Collector) {
        self.inner.lock().registry.register_collector(Box::new(collector));
    }

    /// Renders every family in the format the `Accept` header asks for.
    ///
    /// Never fails: when a collector does, the scrape ends at the last whole line before it and an error is logged.
    /// Scrapes take turns, so many scrapers at once cost the memory of one.
    #[must_use]
    pub fn render(&self, accept: Option<&str>) -> Rendered {
        let mut body = String::new();
        let encoded = text::encode_registry(&mut body, &self.inner.lock().registry);
        if encoded.is_err() {
            body.truncate(body.rfind('\n').map_or(0, |end| end + 1));
            tracing::error!("a metric could not be encoded; the scrape is incomplete");
        }
        let format = Format::negotiate(accept);
        let body = match format {
            Format::OpenMetrics => body + "# EOF\n",
            Format::Classic => exposition::to_classic(&body),
        };
        Rendered { content_type: format.content_type(), body }
    }
}

#[derive(Debug, Default)]
struct Inner {
    registry: Registry,
    names: Vec<String>,
}

fn check_name(name: &str, kind: MetricType, taken: &[String]) -> Result<(), &'static str> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        return Err("the name has characters that a metric name cannot have");
    }
    if matches!(kind, MetricType::Counter) && name.ends_with("_total") {
        return Err("a counter's name is given without `_total`");
    }
    if matches!(kind, MetricType::Info) && name.ends_with("_info") {
        return Err("an info's name is given without `_info`");
    }
    if taken.iter().any(|other| other == name) {
        return Err("the name is taken");
    }
    Ok(())
}

/// Escapes a help text as OpenMetrics wants it; the registry writes it as it is.
fn escape_help(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// Writes a gauge without labels from inside a collector; nothing when the value is not known.
pub(crate) fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: Option<impl EncodeGaugeValue>,
) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// Writes a counter without labels from inside a collector; `name` comes without `_total`.
pub(crate) fn encode_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: Option<impl EncodeCounterValue>,
) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    const OPEN_METRICS: Option<&str> = Some("application/openmetrics-text;version=1.0.0");

    #[test]
    fn a_counter_is_rendered_with_its_current_value_in_both_formats() {
        let metrics = Metrics::new();
        let flows: Counter = Counter::default();
        metrics.register("adit_flows", "Flows carried.", flows.clone());
        flows.inc_by(3);

        let open = metrics.render(OPEN_METRICS);
        assert_eq!(open.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!(
            open.body,
            "# HELP adit_flows Flows carried.\n# TYPE adit_flows counter\nadit_flows_total 3\n# EOF\n"
        );

        let classic = metrics.render(None);
        assert_eq!(classic.content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(
            classic.body,
            "# HELP adit_flows_total Flows carried.\n# TYPE adit_flows_total counter\nadit_flows_total 3\n"
        );
    }

    #[test]
    fn clones_share_a_registry_and_instances_share_nothing() {
        let (one, other) = (Metrics::new(), Metrics::new());
        let handle = one.clone();
        one.register("adit_flows", "Flows carried", Counter::<u64>::default());
        assert_eq!(other.render(None).body, "");
        assert!(handle.render(None).body.contains("adit_flows_total 0\n"));
    }

    #[test]
    fn a_name_that_would_spoil_the_scrape_is_left_out() {
        let metrics = Metrics::new();
        metrics.register("adit_flows", "Flows carried", Counter::<u64>::default());
        let before = metrics.render(None).body;
        for name in ["adit_flows", "adit_flows_total", "adit flows", "1adit", ""] {
            metrics.register(name, "Again", Counter::<u64>::default());
        }
        assert_eq!(metrics.render(None).body, before);
    }

    #[test]
    fn help_is_escaped_for_each_format() {
        let metrics = Metrics::new();
        metrics.register("adit_flows", "A \"b\\\nc", Counter::<u64>::default());
        assert!(metrics.render(OPEN_METRICS).body.contains("# HELP adit_flows A \\\"b\\\\\\nc.\n"));
        assert!(metrics.render(None).body.contains("# HELP adit_flows_total A \"b\\\\\\nc.\n"));
    }

    #[test]
    fn a_collector_that_fails_leaves_whole_lines_behind() {
        #[derive(Debug)]
        struct Failing;
        impl Collector for Failing {
            fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
                encode_gauge(&mut encoder, "half", "Half.", Some(1_u64))?;
                Err(fmt::Error)
            }
        }
        let metrics = Metrics::new();
        metrics.register_collector(Failing);
        assert_eq!(metrics.render(None).body, "# HELP half Half.\n# TYPE half gauge\nhalf 1\n");
    }
}
