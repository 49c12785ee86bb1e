//! Label values with a bound, for figures whose source is not trusted.
//!
//! Every distinct label value is a time series, in this process and in every Prometheus that scrapes it, for as
//! long as either lives. A value that a client or an upstream chooses therefore has to pass through here.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU16, Ordering};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// The status codes of one service, as label values.
///
/// The first [`EXACT_CODES`] distinct codes of an instance keep their number, all later ones share their class:
/// at most 8 + 5 + 1 values. Without that, an upstream that answers with every status there is would create 500
/// series per method and histogram bucket. No code is privileged: a service that is not hostile uses few, and
/// which few cannot be known here (an API may never answer 200). A hostile one can spend its own slots on noise
/// and coarsen its own figures, nobody else's.
#[derive(Debug, Default)]
pub struct CodeSlots {
    /// Filled from the front, each once; zero is free.
    slots: [AtomicU16; EXACT_CODES],
}

/// How many codes one [`CodeSlots`] keeps exact.
pub const EXACT_CODES: usize = 8;

impl CodeSlots {
    /// Slots that are all free.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The label for `code`. Lock-free: up to eight loads, and a write only when a code is new.
    ///
    /// A code once exact stays exact, and one once folded stays folded, for the life of the instance.
    #[must_use]
    pub fn label(&self, code: u16) -> CodeLabel {
        if !(100..=599).contains(&code) {
            return CodeLabel::OTHER;
        }
        // The slots are independent and carry no other data, so relaxed order is enough.
        for slot in &self.slots {
            let held = match slot.load(Ordering::Relaxed) {
                0 => match slot.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => code,
                    Err(winner) => winner,
                },
                held => held,
            };
            if held == code {
                return CodeLabel(code);
            }
        }
        CodeLabel(code / 100)
    }
}

/// A status code or a class of them, as [`CodeSlots`] decided: `404`, `4xx` or `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeLabel(
    /// 100..=599 is a code, 1..=5 a class, 0 is outside of both.
    u16,
);

impl CodeLabel {
    /// The label of everything that is no HTTP status.
    pub const OTHER: Self = Self(0);
}

impl fmt::Display for CodeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("other"),
            class @ 1..=5 => write!(f, "{class}xx"),
            code => write!(f, "{code}"),
        }
    }
}

impl EncodeLabelValue for CodeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        write!(encoder, "{self}")
    }
}

/// A request method, as a label value: the registered ones, and one for everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the method of its name")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other method.
    Other,
}

impl Method {
    /// The label for a method's name, which is case-sensitive as in HTTP.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "other",
        }
    }
}

impl EncodeLabelValue for Method {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_first_eight_codes_are_exact_and_later_ones_fold_to_their_class() {
        let slots = CodeSlots::new();
        for code in [200, 404, 500, 502, 503, 301, 204, 101] {
            assert_eq!(slots.label(code).to_string(), code.to_string());
        }
        for (code, label) in [(100, "1xx"), (201, "2xx"), (302, "3xx"), (418, "4xx"), (599, "5xx")] {
            assert_eq!(slots.label(code).to_string(), label);
        }
        assert_eq!(slots.label(404).to_string(), "404");
    }

    #[test]
    fn numbers_that_are_no_status_are_other_and_take_no_slot() {
        let slots = CodeSlots::new();
        for code in [0, 1, 5, 99, 600, 999, u16::MAX] {
            assert_eq!(slots.label(code), CodeLabel::OTHER);
        }
        for code in 200..208 {
            assert_eq!(slots.label(code).to_string(), code.to_string());
        }
    }

    #[test]
    fn threads_that_race_for_slots_agree_on_every_label() {
        let slots = CodeSlots::new();
        let label_all = |reversed: bool| {
            let mut codes: Vec<u16> = (100..600).collect();
            if reversed {
                codes.reverse();
            }
            codes.into_iter().map(|code| (code, slots.label(code))).collect::<BTreeSet<_>>()
        };
        let (up, down) = std::thread::scope(|scope| {
            let up = scope.spawn(|| label_all(false));
            let down = scope.spawn(|| label_all(true));
            (up.join().unwrap(), down.join().unwrap())
        });
        let labels: BTreeSet<CodeLabel> = up.union(&down).map(|(_, label)| *label).collect();
        let exact = labels.iter().filter(|label| label.0 >= 100).count();
        assert_eq!(exact, EXACT_CODES);
        assert_eq!(labels.len(), EXACT_CODES + 5);
        // A code that became exact was exact for both threads, so no series is counted in two places.
        assert_eq!(up, down);
    }

    #[test]
    fn labels_are_written_as_they_display() {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelSet)]
        struct Labels {
            method: Method,
            code: CodeLabel,
        }
        let metrics = Metrics::new();
        let requests = Family::<Labels, Counter>::default();
        requests.get_or_create(&Labels { method: Method::Get, code: CodeLabel(404) }).inc();
        requests.get_or_create(&Labels { method: Method::Other, code: CodeLabel(4) }).inc();
        metrics.register("requests", "Requests", requests);
        let body = metrics.render(None).body;
        assert!(body.contains("requests_total{method=\"GET\",code=\"404\"} 1\n"), "{body}");
        assert!(body.contains("requests_total{method=\"other\",code=\"4xx\"} 1\n"), "{body}");
    }

    #[test]
    fn known_methods_keep_their_name_and_all_others_are_one() {
        for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] {
            assert_eq!(Method::from_name(name).as_str(), name);
        }
        for name in ["get", "PROPFIND", "", "other", "GET "] {
            assert_eq!(Method::from_name(name), Method::Other);
        }
    }
}
