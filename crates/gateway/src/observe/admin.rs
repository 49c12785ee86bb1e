//! What is counted about resources and the admin interface.

use std::fmt;
use std::sync::{Arc, Weak};

use adit_control::Changes;
use adit_control::model::Kind;
use adit_telemetry::families::help;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{FAMILIES, Observe};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByEndpoint {
    endpoint: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByChange {
    kind: &'static str,
    action: &'static str,
    result: &'static str,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Admin {
    pub(super) requests: Family<ByEndpoint, Counter>,
    pub(super) changes: Family<ByChange, Counter>,
    pub(super) resources: Resources,
}

/// Asked when somebody scrapes.
#[derive(Debug, Clone, Default)]
pub(super) struct Resources(Arc<Mutex<Weak<Changes>>>);

impl Observe {
    /// Counts an answer of the admin interface.
    pub(crate) fn admin_request(&self, endpoint: &'static str, code: u16) {
        self.inner.admin.requests.get_or_create_owned(&ByEndpoint { endpoint, code }).inc();
    }

    /// Counts changes that were made.
    pub(crate) fn changed(&self, kind: &'static str, action: &'static str, count: u64) {
        let by = ByChange { kind, action, result: "done" };
        self.inner.admin.changes.get_or_create_owned(&by).inc_by(count);
    }

    /// Counts a change that was refused, with the word for the reason.
    pub(crate) fn change_refused(&self, kind: Option<Kind>, result: &'static str) {
        let kind = kind.map_or("none", Kind::singular);
        self.inner.admin.changes.get_or_create_owned(&ByChange { kind, action: "none", result }).inc();
    }

    /// Whose figures are shown.
    pub(crate) fn resources(&self, changes: &Arc<Changes>) {
        *self.inner.admin.resources.0.lock() = Arc::downgrade(changes);
    }
}

impl Collector for Resources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(changes) = self.0.lock().upgrade() else { return Ok(()) };
        let mut gauge = |name: &'static str, value: f64| {
            let descriptor =
                encoder.encode_descriptor(name, help(FAMILIES, name), None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(descriptor)
        };
        let (compile, age) = changes.last_publication();
        gauge("adit_store_up", f64::from(u8::from(changes.is_current())))?;
        gauge("adit_store_writable", f64::from(u8::from(changes.is_writable())))?;
        gauge("adit_snapshot_compile_seconds", compile.as_secs_f64())?;
        gauge("adit_snapshot_age_seconds", age.as_secs_f64())?;
        let number = |name: &'static str, value: u64, encoder: &mut DescriptorEncoder<'_>| {
            let descriptor =
                encoder.encode_descriptor(name, help(FAMILIES, name), None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(descriptor)
        };
        let (kept, dropped) = changes.audited();
        number("adit_snapshot_generation", changes.generation(), &mut encoder)?;
        number("adit_store_revision", changes.revision(), &mut encoder)?;
        number("adit_audit_records", kept, &mut encoder)?;
        let name = "adit_audit_dropped_total";
        let shown = name.trim_end_matches("_total");
        let descriptor = encoder.encode_descriptor(shown, help(FAMILIES, name), None, MetricType::Counter)?;
        ConstCounter::new(dropped).encode(descriptor)?;
        let model = changes.model();
        let name = "adit_resources";
        let mut family = encoder.encode_descriptor(name, help(FAMILIES, name), None, MetricType::Gauge)?;
        for kind in Kind::ALL {
            let count = i64::try_from(model.names(kind).count()).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&[("kind", kind.singular())])?)?;
        }
        Ok(())
    }
}
