//! Metrics as a scrape sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One family: its type, and the names of its labels as far as there are series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) labels: BTreeSet<String>,
}

/// A scrape.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    text: String,
}

impl fmt::Display for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `name{labels} value` in its parts.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
    Some((name, labels.trim_end_matches('}'), value.parse().ok()?))
}

impl Scrape {
    pub(crate) const fn new(text: String) -> Self {
        Self { text }
    }

    fn samples(&self) -> impl Iterator<Item = (&str, &str, f64)> {
        self.text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
    }

    /// The sum of all series of this name whose labels contain each of these, as in `code="200"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.samples()
            .filter(|(other, found, _)| *other == name && labels.iter().all(|label| found.contains(label)))
            .map(|(_, _, value)| value)
            .sum()
    }

    /// Every family by name. No label value of ours has a comma, a quote or a brace in it.
    pub(crate) fn families(&self) -> BTreeMap<String, Family> {
        let mut families = BTreeMap::new();
        let mut help = "";
        let mut current = String::new();
        for line in self.text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                help = rest.split_once(' ').map_or("", |(_, help)| help);
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                current = name.to_owned();
                let family = Family { kind: kind.to_owned(), help: help.to_owned(), labels: BTreeSet::new() };
                assert!(families.insert(current.clone(), family).is_none(), "{name} is there twice");
            } else if let Some((_, labels, _)) = sample(line) {
                let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
                let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family for {line}"));
                family.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
            }
        }
        families
    }
}

#[test]
fn series_are_summed_by_their_labels() {
    let text = "# HELP a_total A.\n# TYPE a_total counter\na_total{code=\"200\",host=\"*\"} 3\na_total{code=\"404\",host=\"*\"} 4\nb 1.5\n";
    let scrape = Scrape::new(text.replace("b 1.5\n", "# HELP b B.\n# TYPE b gauge\nb 1.5\n"));
    assert!((scrape.sum("a_total", &[]) - 7.0).abs() < f64::EPSILON);
    assert!((scrape.sum("a_total", &["code=\"404\""]) - 4.0).abs() < f64::EPSILON);
    assert!((scrape.sum("b", &[]) - 1.5).abs() < f64::EPSILON);
    let families = scrape.families();
    assert_eq!(families["a_total"].labels, BTreeSet::from(["code".to_owned(), "host".to_owned()]));
    assert_eq!((families["b"].kind.as_str(), families["b"].help.as_str()), ("gauge", "B."));
}
