//! YAML into a tree of nodes that know where they stand.
//!
//! Built from the parser's events rather than through serde, which stops at the first mistake, types scalars
//! before anybody said what belongs there, and cannot show a key that was written twice.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::problem::Position;

/// Deeper than any configuration; bounds the recursion.
const MAX_DEPTH: usize = 32;
/// More than any configuration; bounds what aliases can multiply.
const MAX_NODES: usize = 100_000;

/// One node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it starts.
    pub(crate) at: Position,
    /// What it is.
    pub(crate) value: Value,
    /// Whether it is text without quotes, which may stand for a number or a yes or no.
    pub(crate) is_plain: bool,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Keys with values, in the order written, each key once.
    Map(Vec<Entry>),
    /// A list.
    List(Vec<Node>),
    /// Text; what it means is for the reader to say.
    Scalar(String),
    /// Nothing: an empty value, `~` or `null`.
    Nothing,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) at: Position,
    /// The value.
    pub(crate) node: Node,
}

/// Takes a problem: where, what, hint.
type Report<'r> = &'r mut dyn FnMut(Position, String, String);

/// Parses a file of one document. Problems that leave a tree standing are reported beside it; an empty file is an empty map.
pub(crate) fn parse(text: &str, report: Report<'_>) -> Option<Node> {
    let (mut documents, end) = Builder::new(text, report).documents(1)?;
    Some(documents.pop().unwrap_or(Node { at: end, value: Value::Map(Vec::new()), is_plain: false }))
}

/// Parses a file of any number of documents; those that hold nothing are left out. `None` when it cannot be read to its
/// end.
pub(crate) fn parse_all(text: &str, report: Report<'_>) -> Option<Vec<Node>> {
    Builder::new(text, report).documents(usize::MAX).map(|(documents, _)| documents)
}

/// The tree cannot be built any further; the problem is reported.
struct Stop;

struct Builder<'t, 'r> {
    events: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    report: Report<'r>,
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

impl<'t, 'r> Builder<'t, 'r> {
    fn new(text: &'t str, report: Report<'r>) -> Self {
        Self { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, report }
    }

    fn problem(&mut self, at: Position, what: impl Into<String>, hint: impl Into<String>) {
        (self.report)(at, what.into(), hint.into());
    }

    fn next(&mut self) -> Result<(Event<'t>, Position), Stop> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, Span { start, .. }))) => return Ok((event, position(&start))),
                Some(Err(error)) => {
                    let at = position(error.marker());
                    self.problem(
                        at,
                        format!("not YAML: {}", error.info()),
                        "check indentation, quotes and colons here",
                    );
                    return Err(Stop);
                }
                None => return Ok((Event::StreamEnd, Position { line: 1, column: 1 })),
            }
        }
    }

    /// Up to so many documents, and where the file ends.
    fn documents(&mut self, most: usize) -> Option<(Vec<Node>, Position)> {
        let mut found = Vec::new();
        loop {
            match self.next().ok()? {
                (Event::StreamEnd, at) => return Some((found, at)),
                (Event::DocumentStart(..), at) => {
                    if found.len() >= most {
                        self.problem(at, "a second document begins", "write one file per configuration");
                        return Some((found, at));
                    }
                    self.nodes = 0;
                    self.anchors.clear();
                    let (event, at) = self.next().ok()?;
                    let node = self.node(event, at, 0).ok()?;
                    if most == 1 || !matches!(node.value, Value::Nothing) {
                        found.push(node);
                    }
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'t>, at: Position, depth: usize) -> Result<Node, Stop> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            self.problem(at, "nested too deep or too long for a configuration", "check what wrote this file");
            return Err(Stop);
        }
        let is_plain = matches!(&event, Event::Scalar(_, ScalarStyle::Plain, ..));
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                let nothing =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (anchor, if nothing { Value::Nothing } else { Value::Scalar(text.into_owned()) })
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                (anchor, Value::List(self.list(depth)?))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                (anchor, Value::Map(self.map(depth)?))
            }
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => (0, Value::Nothing),
        };
        let node = Node { at, value, is_plain };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<Node, Stop> {
        let Some(target) = self.anchors.get(&anchor) else {
            self.problem(at, "an alias of something that is not complete", "write the value out");
            return Err(Stop);
        };
        let (value, is_plain) = (target.value.clone(), target.is_plain);
        self.nodes += size(&value);
        Ok(Node { at, value, is_plain })
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Position) {
        if tag.is_some() {
            self.problem(at, "a tag (`!…`) has no meaning here", "remove it");
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(items),
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, at) = match self.next()? {
                (Event::MappingEnd | Event::StreamEnd, _) => return Ok(entries),
                start => start,
            };
            let key = self.node(event, at, depth + 1)?;
            let (event, value_at) = self.next()?;
            let node = self.node(event, value_at, depth + 1)?;
            let Value::Scalar(key) = key.value else {
                self.problem(at, "a key must be a word", "write `name: value`");
                continue;
            };
            match entries.iter().find(|entry| entry.key == key).map(|first| first.at.line) {
                Some(line) => {
                    self.problem(
                        at,
                        format!("{key} is given twice"),
                        format!("the first is in line {line}; keep one"),
                    );
                }
                None => entries.push(Entry { key, at, node }),
            }
        }
    }
}

/// How many nodes a value stands for.
fn size(value: &Value) -> usize {
    match value {
        Value::Map(entries) => entries.iter().map(|entry| 1 + size(&entry.node.value)).sum(),
        Value::List(items) => items.iter().map(|item| 1 + size(&item.value)).sum(),
        Value::Scalar(_) | Value::Nothing => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        parse(text, &mut |at, what, hint| found.push(format!("{}:{}: {what}; {hint}", at.line, at.column)));
        found
    }

    #[test]
    fn keys_and_values_know_where_they_stand() {
        let root = parse("# hello\na:\n  - b: 'c'\n", &mut |_, what, _| panic!("{what}")).unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        assert_eq!((entries[0].key.as_str(), entries[0].at), ("a", Position { line: 2, column: 1 }));
        let Value::List(items) = &entries[0].node.value else { panic!("{entries:?}") };
        let Value::Map(inner) = &items[0].value else { panic!("{items:?}") };
        assert_eq!(inner[0].node.at, Position { line: 3, column: 8 });
    }

    #[test]
    fn a_key_twice_is_told_with_both_places() {
        assert_eq!(
            problems("a: 1\nb: 2\na: 3\n"),
            ["3:1: a is given twice; the first is in line 1; keep one"]
        );
    }

    #[test]
    fn broken_yaml_is_one_problem_with_its_place() {
        let found = problems("a: [1, 2\nb: }\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("2:") && found[0].contains("not YAML"), "{found:?}");
    }

    #[test]
    fn hostile_files_end_in_a_problem() {
        assert_eq!(problems(&"[".repeat(10_000)).len(), 1);
        let bomb = (1..12).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            let before = n - 1;
            let refs = vec![format!("*a{before}"); 9].join(", ");
            format!("{text}a{n}: &a{n} [{refs}]\n")
        });
        assert!(problems(&bomb)[0].contains("too long"), "{:?}", problems(&bomb));
        assert!(problems("a: !secret x")[0].contains("a tag"));
        assert!(problems("a: 1\n---\nb: 2\n")[0].contains("second document"));
        assert!(problems("[a]: 1\n")[0].contains("a key must be a word"));
    }

    #[test]
    fn a_file_of_several_documents_is_read_as_such() {
        let all = parse_all("a: 1\n---\n---\n# nothing\n---\nb: '2'\n", &mut |_, what, _| panic!("{what}"));
        let lines: Vec<usize> = all.unwrap().iter().map(|node| node.at.line).collect();
        assert_eq!(lines, [1, 6]);
        assert!(parse_all("", &mut |_, _, _| ()).unwrap().is_empty());
        assert!(parse_all("a: 1\n---\nb: }\n", &mut |_, _, _| ()).is_none());
    }

    #[test]
    fn an_empty_file_is_an_empty_map_and_quotes_make_text() {
        assert!(
            matches!(parse("", &mut |_, _, _| ()).unwrap().value, Value::Map(entries) if entries.is_empty())
        );
        let root = parse("[~, '~', \"\", null]", &mut |_, _, _| ()).unwrap();
        let Value::List(items) = root.value else { panic!("not a list") };
        let nothing: Vec<bool> = items.iter().map(|item| matches!(item.value, Value::Nothing)).collect();
        assert_eq!(nothing, [true, false, false, true]);
    }
}
