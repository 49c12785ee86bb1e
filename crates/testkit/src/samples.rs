//! A scrape, parsed.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape in the classic text format.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    values: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Samples {
    /// Parses a scrape.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut samples = Self::default();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                samples.kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value = value.parse().unwrap_or_else(|_| panic!("not a value: {line}"));
                assert!(samples.values.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        assert!(!samples.values.is_empty(), "nothing was scraped: {text:?}");
        samples
    }

    /// The sum of all samples of this name whose labels include these; 0 when there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let matches = |series: &str| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name && wanted.iter().all(|label| has_label(rest, label))
        };
        self.values.iter().filter(|(series, _)| matches(series)).map(|(_, value)| value).sum()
    }

    /// The type of a family, if it is there.
    #[must_use]
    pub fn kind(&self, family: &str) -> Option<&str> {
        self.kinds.get(family).map(String::as_str)
    }

    /// The names of the labels of all samples of a family, without `le`, each set once.
    #[must_use]
    pub fn label_names(&self, family: &str) -> BTreeSet<Vec<String>> {
        let of_family = |series: &&String| {
            let name = series.split('{').next().unwrap_or("");
            name.strip_prefix(family).is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
        };
        self.values.keys().filter(of_family).map(|series| label_names(series)).collect()
    }

    /// The samples of one name, for messages.
    #[must_use]
    pub fn series_of(&self, name: &str) -> Vec<String> {
        let of_name = self.values.iter().filter(|(series, _)| series.split('{').next() == Some(name));
        of_name.map(|(series, value)| format!("{series} {value}")).collect()
    }

    /// Every series, with its labels.
    #[must_use]
    pub fn series(&self) -> BTreeSet<String> {
        self.values.keys().cloned().collect()
    }
}

/// Whether `key="value"` stands among these labels, whole.
fn has_label(labels: &str, wanted: &str) -> bool {
    labels.match_indices(wanted).any(|(at, _)| at == 0 || labels.as_bytes()[at - 1] == b',')
}

fn label_names(series: &str) -> Vec<String> {
    let Some((_, labels)) = series.split_once('{') else { return Vec::new() };
    let mut names = Vec::new();
    let mut rest = labels;
    while let Some((name, after)) = rest.split_once("=\"") {
        if name != "le" {
            names.push(name.to_owned());
        }
        let mut end = 0;
        let bytes = after.as_bytes();
        while bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        rest = after[end + 1..].trim_start_matches(',');
    }
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_label_names_are_those_of_the_text() {
        let samples = Samples::parse(
            "# TYPE a_total counter\na_total{code=\"200\",path=\"x,y=\\\"z\"} 2\na_total{code=\"404\",path=\"y\"} 1\n\
             # TYPE h histogram\nh_bucket{m=\"GET\",le=\"1\"} 3\n",
        );
        assert_eq!((samples.sum("a_total", &[]), samples.sum("a_total", &[("path", "y")])), (3.0, 1.0));
        assert_eq!(
            samples.label_names("a_total"),
            BTreeSet::from([vec!["code".to_owned(), "path".to_owned()]])
        );
        assert_eq!(samples.label_names("h"), BTreeSet::from([vec!["m".to_owned()]]));
        assert_eq!(samples.kind("h"), Some("histogram"));
    }
}
