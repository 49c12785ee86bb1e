//! A strict parser of the classic text format, for tests only: it refuses what Prometheus would, and more.

use std::collections::{BTreeMap, HashSet};

/// A metric family and its samples, in the order of the text.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// One line with a value.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

type Labels = Vec<(String, String)>;

/// Parses a whole exposition: HELP then TYPE once per family and before its samples, no series twice, histograms
/// cumulative with `+Inf` equal to the count.
pub(crate) fn parse(text: &str) -> Result<Vec<Family>, String> {
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line is not ended".into());
    }
    let mut families: Vec<Family> = Vec::new();
    let mut names = HashSet::new();
    let mut help = None;
    for line in text.lines() {
        let fault = |what: &str| format!("{what}: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest.split_once(' ').ok_or_else(|| fault("no help"))?);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| fault("no type"))?;
            let (help_name, help) = help.take().ok_or_else(|| fault("type without help"))?;
            if help_name != name || !names.insert(name.to_owned()) {
                return Err(fault("family twice or under two names"));
            }
            if !["counter", "gauge", "histogram", "untyped"].contains(&kind) {
                return Err(fault("no classic type"));
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err(fault("`_total` belongs to counters and only to them"));
            }
            families.push(Family {
                name: name.into(),
                kind: kind.into(),
                help: help.into(),
                samples: Vec::new(),
            });
        } else {
            let sample = parse_sample(line).ok_or_else(|| fault("no sample"))?;
            let family = families.last_mut().ok_or_else(|| fault("sample without family"))?;
            if !belongs(&sample.name, family) {
                return Err(fault("sample of another family"));
            }
            family.samples.push(sample);
        }
    }
    families.iter().try_for_each(check_family)?;
    Ok(families)
}

fn belongs(name: &str, family: &Family) -> bool {
    match (name.strip_prefix(family.name.as_str()), family.kind.as_str()) {
        (Some(suffix), "histogram") => ["_bucket", "_sum", "_count"].contains(&suffix),
        (suffix, _) => suffix == Some(""),
    }
}

fn check_family(family: &Family) -> Result<(), String> {
    let fault = |what: &str| Err(format!("{what}: {}", family.name));
    if family.samples.is_empty() {
        return fault("no samples");
    }
    let mut series = HashSet::new();
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        labels.sort();
        if !series.insert((sample.name.clone(), labels.clone())) {
            return fault("a series twice");
        }
        let le = labels.iter().position(|(key, _)| key == "le").map(|at| labels.remove(at).1);
        if sample.name.ends_with("_bucket") {
            let Some(Ok(le)) = le.map(|le| le.parse()) else { return fault("a bucket without `le`") };
            buckets.entry(labels).or_default().push((le, sample.value));
        } else if sample.name.ends_with("_count") {
            counts.insert(labels, sample.value);
        }
    }
    if family.kind != "histogram" {
        return Ok(());
    }
    if counts.keys().ne(buckets.keys()) {
        return fault("buckets and counts of different series");
    }
    for (labels, buckets) in &buckets {
        if !buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            return fault("buckets out of order");
        }
        if buckets.last().copied() != Some((f64::INFINITY, counts[labels])) {
            return fault("the last bucket is not `+Inf` with the count");
        }
    }
    Ok(())
}

fn parse_sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            if !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return None;
            }
            let (value, after) = parse_quoted(after)?;
            labels.push((key.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?;
    (!value.contains(' ')).then_some(())?;
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

#[test]
fn what_prometheus_would_refuse_is_refused() {
    let head = "# HELP a A.\n# TYPE a gauge\n";
    assert!(parse(&format!("{head}a{{b=\"c\"}} 1\n")).is_ok());
    for text in [
        "a 1\n",
        "# TYPE a gauge\na 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1",
        "# HELP a A.\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a A.\n# TYPE a gauge\nb 1\n",
        "# HELP a A.\n# TYPE a counter\na 1\n",
        "# HELP a A.\n# TYPE a gauge\na{b=\"c} 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1 # {} 2\n",
        "# HELP a A.\n# TYPE a histogram\na_sum 1\na_count 2\na_bucket{le=\"1\"} 2\n",
        "# HELP a A.\n# TYPE a histogram\na_sum 1\na_count 2\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\n",
        "# HELP a A.\n# TYPE a histogram\na_sum 1\na_count 3\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 2\n",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    assert!(parse(&format!("{head}a 1\n{head}a{{b=\"\"}} 1\n")).is_err());
}
