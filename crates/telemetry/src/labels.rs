//! Label values with a bound, for figures whose source is not trusted.
//!
//! Every distinct label value is a time series, in this process and in every Prometheus that scrapes it, for as
//! long as either lives. A value that a client or an upstream chooses therefore has to pass through here.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// The status codes that keep their number; what people alert on and ask for. Fixed, because codes that are exact by
/// order of arrival let whoever comes first decide that `500` is not.
const EXACT_CODES: [u16; 29] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 422,
    429, 431, 499, 500, 501, 502, 503, 504,
];

/// A status code or a class of them, as a label value: `404`, `4xx` or `other`.
///
/// There are 29 + 5 + 1 of them. That is no bound that many dimensions can share: whoever counts by code and by
/// something else bounds the pairs too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeLabel(
    /// 100..=599 is a code, 1..=5 a class, 0 is outside of both.
    u16,
);

impl CodeLabel {
    /// The label of everything that is no HTTP status.
    pub const OTHER: Self = Self(0);

    /// The label for a status code: itself when it is a common one, else its class.
    #[must_use]
    pub fn of(code: u16) -> Self {
        match code {
            100..=599 if EXACT_CODES.contains(&code) => Self(code),
            100..=599 => Self(code / 100),
            _ => Self::OTHER,
        }
    }

    /// The class this belongs to.
    #[must_use]
    pub const fn class(self) -> Self {
        match self.0 {
            1..=5 => self,
            100..=599 => Self(self.0 / 100),
            _ => Self::OTHER,
        }
    }
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

/// A request method, as a label value: those that carry requests, and one for everything else. `CONNECT` and `TRACE`
/// are refused wherever they come, so that a label of their own would tell nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the method of its name")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
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
            "OPTIONS" => Self::Options,
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
            Self::Options => "OPTIONS",
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
    fn common_codes_are_exact_and_all_others_fold_to_their_class() {
        for code in EXACT_CODES {
            assert_eq!(CodeLabel::of(code).to_string(), code.to_string());
        }
        for (code, label) in
            [(100, "1xx"), (299, "2xx"), (399, "3xx"), (418, "4xx"), (505, "5xx"), (599, "5xx")]
        {
            assert_eq!(CodeLabel::of(code).to_string(), label);
        }
        let all: BTreeSet<_> = (0..=u16::MAX).map(CodeLabel::of).collect();
        assert_eq!(all.len(), EXACT_CODES.len() + 6);
    }

    #[test]
    fn numbers_that_are_no_status_are_other() {
        for code in [0, 1, 5, 99, 600, 999, u16::MAX] {
            assert_eq!(CodeLabel::of(code), CodeLabel::OTHER, "{code}");
        }
    }

    #[test]
    fn a_class_is_its_own_class() {
        for (code, class) in [(404, 4), (418, 4), (101, 1), (999, 0)] {
            let label = CodeLabel::of(code).class();
            assert_eq!((label, label.class()), (CodeLabel(class), CodeLabel(class)), "{code}");
        }
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
        for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            assert_eq!(Method::from_name(name).as_str(), name);
        }
        for name in ["get", "PROPFIND", "", "other", "GET ", "CONNECT", "TRACE"] {
            assert_eq!(Method::from_name(name), Method::Other);
        }
    }
}
