//! JSON values as YAML, in the one form that all our documents have.

use serde_json::{Map, Value};

/// Keys that tell what the rest is about stand in front; the rest follows in the order of the alphabet.
const FIRST: [&str; 4] = ["kind", "name", "type", "semantic"];

/// One document.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => map(&mut text, fields, 0),
        Value::Array(items) if !items.is_empty() => list(&mut text, items, 0),
        other => {
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
    text
}

/// The keys of a map in the order in which they are written.
pub(crate) fn ordered(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let first = FIRST.into_iter().filter_map(|key| fields.get_key_value(key));
    first.chain(fields.iter().filter(|(key, _)| !FIRST.contains(&key.as_str())))
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn map(text: &mut String, fields: &Map<String, Value>, depth: usize) {
    for (index, (key, value)) in ordered(fields).enumerate() {
        // The first key of a map in a list stands behind the hyphen.
        if index > 0 || !text.ends_with("- ") {
            indent(text, depth);
        }
        text.push_str(&word(key));
        text.push(':');
        below(text, value, depth);
    }
}

fn list(text: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(text, depth);
        text.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => map(text, fields, depth + 1),
            // Lists in lists are rare enough to stand in one line, as JSON.
            Value::Array(items) if !items.is_empty() => {
                text.push_str(&Value::Array(items.clone()).to_string());
                text.push('\n');
            }
            other => {
                text.push_str(&scalar(other));
                text.push('\n');
            }
        }
    }
}

/// The value of a key: behind it, or in the lines below.
fn below(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            map(text, fields, depth + 1);
        }
        Value::Array(items) if !items.is_empty() => {
            // Short lists of words stand in one line.
            let words: Option<Vec<String>> = items.iter().map(flow).collect();
            match words.map(|words| words.join(", ")).filter(|line| line.len() <= 80) {
                Some(line) => {
                    text.push_str(" [");
                    text.push_str(&line);
                    text.push_str("]\n");
                }
                None => {
                    text.push('\n');
                    list(text, items, depth + 1);
                }
            }
        }
        other => {
            text.push(' ');
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn flow(value: &Value) -> Option<String> {
    match value {
        Value::Array(_) | Value::Object(_) => None,
        other => Some(scalar(other)),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        // JSON in one line is YAML as well.
        other => other.to_string(),
    }
}

/// Text, in quotes unless every reader takes it for text, in lists in one line as well.
fn word(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+@".contains(c))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null" | "nan" | "inf"
        );
    // A JSON string is a YAML string in double quotes.
    if is_plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_written_as_people_write_them() {
        let value = serde_json::json!({
            "name": "a.b", "kind": "config", "type": "intercept.v1",
            "data": {"protocols": ["tcp"], "portRanges": [{"low": 80, "high": 80}, {}], "none": []},
            "roles": ["#all", "@x", "no", "1.5", "5432"], "odd": "a: b\n", "admin": true,
        });
        assert_eq!(
            document(&value),
            "\
kind: config
name: a.b
type: intercept.v1
admin: true
data:
  none: []
  portRanges:
    - high: 80
      low: 80
    - {}
  protocols: [tcp]
odd: \"a: b\\n\"
roles: [\"#all\", \"@x\", \"no\", \"1.5\", \"5432\"]
"
        );
        assert_eq!(document(&serde_json::json!([])), "[]\n");
        assert_eq!(document(&serde_json::json!([{"a": 1, "b": [{"c": 2}]}])), "- a: 1\n  b:\n    - c: 2\n");
    }

    #[test]
    fn long_lists_stand_below_their_key() {
        let items: Vec<String> = (0..20).map(|n| format!("attribute-{n}")).collect();
        let text = document(&serde_json::json!({ "a": items }));
        assert!(text.starts_with("a:\n  - attribute-0\n  - attribute-1\n"), "{text}");
    }
}
