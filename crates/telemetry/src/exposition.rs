//! Which exposition format a scraper gets, and the classic text format made from OpenMetrics.

/// An exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0 text.
    OpenMetrics,
    /// The Prometheus text format 0.0.4, which everything that scrapes can read.
    Classic,
}

impl Format {
    /// Picks the format from an `Accept` header.
    ///
    /// OpenMetrics only when the header names it with a weight above zero and at least that of `text/plain`;
    /// `text/*` and `*/*` speak for `text/plain` where that is not named. Anything else, also a header that accepts
    /// neither, gets the classic format: a person with a browser or `curl` should see the figures.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let ranges: Vec<MediaRange<'_>> =
            accept.unwrap_or_default().split(',').filter_map(MediaRange::parse).collect();
        let weight = |name: &str, version: &str| {
            let named = ranges.iter().filter(|range| range.matches(name, version));
            named.map(|range| range.weight).max()
        };
        let open_metrics = weight("application/openmetrics-text", "1.0.0").unwrap_or(0);
        let classic = weight("text/plain", "0.0.4")
            .or_else(|| weight("text/*", ""))
            .or_else(|| weight("*/*", ""))
            .unwrap_or(0);
        if open_metrics > 0 && open_metrics >= classic { Self::OpenMetrics } else { Self::Classic }
    }

    /// The value of the `Content-Type` header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Rewrites an OpenMetrics exposition of the registry as classic text.
///
/// Expects what the registry writes: the HELP line of a family directly before its TYPE line, and no timestamps
/// (their unit differs between the formats).
pub(crate) fn to_classic(open_metrics: &str) -> String {
    // Only the suffixes of the HELP and TYPE lines are added; most expositions have few of those.
    let mut out = String::with_capacity(open_metrics.len() + open_metrics.len() / 16);
    // The HELP line has to wait for the TYPE line, which decides the family's classic name.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest.split_once(' ').unwrap_or((rest, "")));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = classic_kind(kind);
            if let Some((_, text)) = help.take() {
                // A double quote is escaped in the help of OpenMetrics only.
                let text = text.replace("\\\"", "\"");
                push(&mut out, &["# HELP ", name, suffix, " ", &text, "\n"]);
            }
            push(&mut out, &["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            push(&mut out, &[without_exemplar(line), "\n"]);
        }
    }
    out
}

/// One element of an `Accept` header.
#[derive(Debug)]
struct MediaRange<'a> {
    name: &'a str,
    version: Option<&'a str>,
    /// In thousandths.
    weight: u16,
}

impl<'a> MediaRange<'a> {
    /// `None` for an element with a weight that is none, which is then as good as absent.
    fn parse(element: &'a str) -> Option<Self> {
        let mut parts = element.split(';');
        let mut range = Self { name: parts.next()?.trim(), version: None, weight: 1000 };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => range.weight = parse_weight(value)?,
                "version" => range.version = Some(value),
                _ => {}
            }
        }
        Some(range)
    }

    fn matches(&self, name: &str, version: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) && self.version.is_none_or(|wanted| wanted == version)
    }
}

/// Parses `0`, `0.5`, `1.000` into thousandths.
fn parse_weight(value: &str) -> Option<u16> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// The suffix that becomes part of a classic family's name, and its type.
fn classic_kind(kind: &str) -> (&'static str, &str) {
    match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        other => ("", other),
    }
}

/// The sample without its ` # {...} value`.
fn without_exemplar(line: &str) -> &str {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            // A label value may well hold a `#`.
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'#' if !is_quoted => return line.get(..at).unwrap_or(line).trim_end(),
            _ => {}
        }
    }
    line
}

fn push(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
}

#[cfg(test)]
mod tests;
