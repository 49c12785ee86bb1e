//! Tests of the negotiation, and of the classic format against a strict parser.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::{CounterWithExemplar, HistogramWithExemplars};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;

use super::*;
use crate::metrics::Metrics;
use crate::strict;

type Labels = Vec<(&'static str, String)>;

#[test]
fn the_headers_of_real_scrapers_get_what_they_prefer() {
    let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                        application/openmetrics-text;version=0.0.1;q=0.5,\
                        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    assert_eq!(Format::negotiate(Some(prometheus_2)), Format::OpenMetrics);
    assert_eq!(Format::negotiate(Some(prometheus_3)), Format::OpenMetrics);
    assert_eq!(Format::negotiate(Some(browser)), Format::Classic);
    assert_eq!(Format::negotiate(Some("*/*")), Format::Classic);
    assert_eq!(Format::negotiate(Some("")), Format::Classic);
    assert_eq!(Format::negotiate(None), Format::Classic);
}

#[test]
fn the_higher_weight_wins_and_a_tie_goes_to_openmetrics() {
    for (accept, format) in [
        ("application/openmetrics-text", Format::OpenMetrics),
        ("Application/OpenMetrics-Text; VERSION=\"1.0.0\" ; Q=0.2", Format::OpenMetrics),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.5", Format::OpenMetrics),
        ("text/plain;q=0.501, application/openmetrics-text;q=0.5", Format::Classic),
        ("application/openmetrics-text;q=0.5,*/*", Format::Classic),
        ("application/openmetrics-text;q=0.5,text/*;q=0.4,*/*", Format::OpenMetrics),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.1,*/*", Format::OpenMetrics),
        ("application/openmetrics-text;q=0", Format::Classic),
        ("application/openmetrics-text;q=0.000,text/plain;q=0", Format::Classic),
        ("application/openmetrics-text;version=2.0.0", Format::Classic),
    ] {
        assert_eq!(Format::negotiate(Some(accept)), format, "{accept}");
    }
}

#[test]
fn a_weight_that_is_none_makes_its_element_absent() {
    for weight in ["nan", "inf", "2", "1.5", "-1", "0.1234", "", "0.x", "1e0"] {
        let accept = format!("application/openmetrics-text;q={weight}");
        assert_eq!(Format::negotiate(Some(&accept)), Format::Classic, "{accept}");
    }
}

#[test]
fn every_kind_of_metric_passes_the_strict_parser() {
    let metrics = one_of_each();
    let classic = metrics.render(None).body;
    let families = strict::parse(&classic).unwrap();
    let kinds: Vec<_> = families.iter().map(|family| (family.name.as_str(), family.kind.as_str())).collect();
    assert_eq!(
        kinds,
        [
            ("adit_flows_total", "counter"),
            ("adit_sessions", "gauge"),
            ("adit_wait_seconds", "histogram"),
            ("adit_sampled_total", "counter"),
            ("adit_slow_seconds", "histogram"),
            ("adit_release_info", "gauge"),
        ]
    );
    assert!(families.iter().all(|family| family.help.ends_with('.') && !family.help.ends_with("..")));
}

#[test]
fn exemplars_stay_in_openmetrics() {
    let metrics = one_of_each();
    let open = metrics.render(Some("application/openmetrics-text")).body;
    assert_eq!(open.matches(" # {").count(), 2, "{open}");
    let classic = metrics.render(None).body;
    assert_eq!(classic.matches(" # ").count(), 0, "{classic}");
    assert!(classic.contains("\nadit_sampled_total 1\n"), "{classic}");
}

#[test]
fn label_values_survive_the_round_trip() {
    let hostile = "a\"b\\c\nd # {e=\"f\"} 1\\\\\" #,}é";
    let metrics = Metrics::new();
    let flows = Family::<Labels, Counter>::default();
    flows.get_or_create(&vec![("service", hostile.to_owned())]).inc();
    metrics.register("adit_flows", "Flows carried", flows);
    let classic = metrics.render(None).body;
    let families = strict::parse(&classic).unwrap();
    assert_eq!(families[0].samples[0].labels, [("service".to_owned(), hostile.to_owned())]);
}

#[test]
fn unknown_becomes_untyped_and_units_and_the_end_mark_go() {
    let open =
        "# HELP a_seconds A.\n# TYPE a_seconds unknown\n# UNIT a_seconds seconds\na_seconds 1\n# EOF\n";
    assert_eq!(to_classic(open), "# HELP a_seconds A.\n# TYPE a_seconds untyped\na_seconds 1\n");
}

fn one_of_each() -> Metrics {
    let metrics = Metrics::new();
    let flows = Family::<Labels, Counter>::default();
    flows.get_or_create(&vec![("service", "web".to_owned())]).inc();
    flows.get_or_create(&vec![("service", "db".to_owned())]).inc();
    metrics.register("adit_flows", "Flows carried", flows);
    let sessions: Gauge = Gauge::default();
    sessions.set(-2);
    metrics.register("adit_sessions", "Sessions now", sessions);
    let wait = Family::<Labels, Histogram>::new_with_constructor(|| Histogram::new([0.005, 0.1, 2.5]));
    for seconds in [0.001, 0.05, 0.06, 99.0] {
        wait.get_or_create(&vec![("service", "web".to_owned())]).observe(seconds);
    }
    metrics.register("adit_wait_seconds", "Time to a stream", wait);
    let sampled: CounterWithExemplar<Labels> = CounterWithExemplar::default();
    sampled.inc_by(1, Some(vec![("trace", "# 1".to_owned())]), None);
    metrics.register("adit_sampled", "Flows sampled", sampled);
    let slow: HistogramWithExemplars<Labels> = HistogramWithExemplars::new([1.0].into_iter());
    slow.observe(0.5, Some(vec![("trace", "2".to_owned())]), None);
    metrics.register("adit_slow_seconds", "Slow flows", slow);
    metrics.register("adit_release", "The release", Info::new(vec![("channel", "stable".to_owned())]));
    metrics
}
