//! Nodes into values. Mistakes are collected, never returned one by one; every value is noted as it is used.

use std::path::{Path, PathBuf};

use super::problem::{Position, Problem, nearest};
use super::tree::{Entry, Node, Value};
use super::values::{Bad, Context, Kind};

/// What happens when a key is not written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Presence {
    /// It must be written.
    Required,
    /// This text is used, read as if it were written.
    Default(&'static str),
    /// Nothing is used in its place; the text says what that means.
    Optional(&'static str),
}

/// The definition of a key whose value is text.
#[derive(Debug)]
pub(crate) struct Key<T: 'static> {
    /// As written.
    pub(crate) name: &'static str,
    /// What is written after it.
    pub(crate) kind: &'static Kind<T>,
    /// What happens without it.
    pub(crate) presence: Presence,
    /// For the reference page.
    pub(crate) doc: &'static str,
}

impl Row {
    /// A key with keys of its own.
    pub(crate) const fn map(name: &'static str, presence: Presence, doc: &'static str) -> Self {
        Self { name, kind: "map", form: "keys of its own below it", presence, doc }
    }

    /// A key with a list.
    pub(crate) const fn list(name: &'static str, presence: Presence, doc: &'static str) -> Self {
        Self { name, kind: "list", form: "at least one item", presence, doc }
    }
}

impl<T> Key<T> {
    /// The key without its type, for tables.
    pub(crate) const fn row(&self) -> Row {
        let Kind { name: kind, form, .. } = *self.kind;
        Row { name: self.name, kind, form, presence: self.presence, doc: self.doc }
    }
}

/// A key of any kind, as the reference page lists it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// As written.
    pub(crate) name: &'static str,
    /// What is written after it, in a word or two.
    pub(crate) kind: &'static str,
    /// How that is written.
    pub(crate) form: &'static str,
    /// What happens without it.
    pub(crate) presence: Presence,
    /// What it does.
    pub(crate) doc: &'static str,
}

/// The keys of one map.
#[derive(Debug)]
pub(crate) struct Section {
    /// Where it stands, for the reference page.
    pub(crate) title: &'static str,
    /// What it is about.
    pub(crate) doc: &'static str,
    /// Its keys.
    pub(crate) rows: &'static [Row],
}

/// A value as it would be used, for `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The key's whole path.
    pub(crate) path: String,
    /// The value, redacted if it is a secret.
    pub(crate) value: String,
    /// Whether nobody wrote it.
    pub(crate) is_default: bool,
}

/// A map being read.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    path: String,
    at: Position,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The path of a key in this map.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Where the map stands.
    pub(crate) const fn at(&self) -> Position {
        self.at
    }

    fn entry(&self, name: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == name)
    }

    /// Whether a key is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Where a key's value stands, or the map when it is not written.
    pub(crate) fn value_at(&self, name: &str) -> Position {
        self.entry(name).map_or(self.at, |entry| entry.node.at)
    }

    /// Where a key stands, or the map when it is not written.
    pub(crate) fn key_at(&self, name: &str) -> Position {
        self.entry(name).map_or(self.at, |entry| entry.at)
    }
}

/// Reads one file.
#[derive(Debug)]
pub(crate) struct Reader<'f> {
    file: &'f str,
    context: Context<'f>,
    problems: Vec<Problem>,
    settings: Vec<Setting>,
}

impl<'f> Reader<'f> {
    /// A reader for a file; relative paths in it start at the directory.
    pub(crate) const fn new(file: &'f str, directory: &'f Path) -> Self {
        Self { file, context: Context::new(directory), problems: Vec::new(), settings: Vec::new() }
    }

    /// Notes a problem.
    pub(crate) fn problem(&mut self, at: Position, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem { file: self.file.to_owned(), at, what: what.into(), hint: hint.into() });
    }

    /// Notes a value that was found by other means than a key of its own.
    pub(crate) fn setting(&mut self, path: String, value: String, is_default: bool) {
        self.settings.push(Setting { path, value, is_default });
    }

    /// Another default for a key, because of what was read since. False if somebody wrote the key.
    pub(crate) fn default_becomes(&mut self, path: &str, value: &str) -> bool {
        let noted = self.settings.iter_mut().find(|setting| setting.path == path && setting.is_default);
        noted.is_some_and(|setting| {
            value.clone_into(&mut setting.value);
            true
        })
    }

    /// Everything found, problems in the order of the file, and the files that were looked into.
    pub(crate) fn finish(mut self) -> (Vec<Problem>, Vec<Setting>, Vec<PathBuf>) {
        self.problems.sort_by_key(|problem| problem.at);
        (self.problems, self.settings, self.context.files.into_inner())
    }

    /// A node that must be a map with these keys.
    pub(crate) fn fields<'n>(
        &mut self,
        node: &'n Node,
        path: String,
        section: &Section,
    ) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            let names: Vec<&str> = section.rows.iter().map(|row| row.name).collect();
            let place = if path.is_empty() { "the file".to_owned() } else { path };
            self.problem(
                node.at,
                format!("{place} is {}, not a map", describe(&node.value)),
                format!("its keys are {}", names.join(", ")),
            );
            return None;
        };
        let fields = Fields { path, at: node.at, entries };
        for entry in entries {
            if !section.rows.iter().any(|row| row.name == entry.key) {
                self.unknown(&fields, entry, section);
            }
        }
        Some(fields)
    }

    fn unknown(&mut self, fields: &Fields<'_>, entry: &Entry, section: &Section) {
        let names = section.rows.iter().map(|row| row.name);
        let hint = nearest(&entry.key, names.clone()).map_or_else(
            || format!("the keys here are {}", names.collect::<Vec<_>>().join(", ")),
            |name| format!("did you mean {name}?"),
        );
        self.problem(entry.at, format!("{} is not a key", fields.path(&entry.key)), hint);
    }

    /// A map under a key; without the key it is read as empty, so that its own defaults apply.
    pub(crate) fn map<'n>(&mut self, parent: &Fields<'n>, row: Row, section: &Section) -> Option<Fields<'n>> {
        let path = parent.path(row.name);
        parent.entry(row.name).map_or_else(
            || Some(Fields { path: path.clone(), at: parent.at, entries: &[] }),
            |entry| self.fields(&entry.node, path.clone(), section),
        )
    }

    /// The items of a list under a key, with their paths.
    pub(crate) fn items<'n>(&mut self, parent: &Fields<'n>, row: Row) -> Vec<(String, &'n Node)> {
        let path = parent.path(row.name);
        let Some(entry) = parent.entry(row.name) else {
            if matches!(row.presence, Presence::Required) {
                self.missing(parent, &path, row);
            }
            return Vec::new();
        };
        let Value::List(items) = &entry.node.value else {
            let what = format!("{path} is {}, not a list", describe(&entry.node.value));
            self.problem(entry.node.at, what, "put `- ` in front of each item");
            return Vec::new();
        };
        if items.is_empty() && matches!(row.presence, Presence::Required) {
            self.problem(entry.node.at, format!("{path} is empty"), "at least one item is needed");
        }
        items.iter().enumerate().map(|(index, node)| (format!("{path}[{index}]"), node)).collect()
    }

    fn missing(&mut self, parent: &Fields<'_>, path: &str, row: Row) {
        self.problem(
            parent.at,
            format!("{path} is missing"),
            format!("add `{}:` with {}", row.name, row.form),
        );
    }

    /// A list of text under a key.
    pub(crate) fn list<T>(&mut self, parent: &Fields<'_>, row: Row, kind: &Kind<T>) -> Vec<T> {
        let items = self.items(parent, row);
        if items.is_empty() {
            let value = match row.presence {
                Presence::Optional(meaning) => format!("<{meaning}>"),
                Presence::Required | Presence::Default(_) => "[]".to_owned(),
            };
            self.setting(parent.path(row.name), value, !parent.has(row.name));
        }
        items.into_iter().filter_map(|(path, node)| self.scalar(node, path, kind)).collect()
    }

    /// A value that has a default or must be written; `None` only with a problem noted.
    pub(crate) fn value<T>(&mut self, fields: &Fields<'_>, key: &Key<T>) -> Option<T> {
        let path = fields.path(key.name);
        if let Some(entry) = fields.entry(key.name) {
            return self.scalar(&entry.node, path, key.kind);
        }
        match key.presence {
            Presence::Default(text) => self.text(text, fields.at, path, key.kind, true),
            Presence::Required | Presence::Optional(_) => {
                self.missing(fields, &path, key.row());
                None
            }
        }
    }

    /// A value that may be absent; what that means is noted. `None` when it is, or with a problem noted.
    pub(crate) fn optional<T>(&mut self, fields: &Fields<'_>, key: &Key<T>) -> Option<T> {
        if let (Presence::Optional(meaning), false) = (key.presence, fields.has(key.name)) {
            self.setting(fields.path(key.name), format!("<{meaning}>"), true);
        }
        self.written(fields, key)
    }

    /// A value only if it is written. `None` when it is not, or with a problem noted.
    pub(crate) fn written<T>(&mut self, fields: &Fields<'_>, key: &Key<T>) -> Option<T> {
        let entry = fields.entry(key.name)?;
        self.scalar(&entry.node, fields.path(key.name), key.kind)
    }

    fn scalar<T>(&mut self, node: &Node, path: String, kind: &Kind<T>) -> Option<T> {
        match &node.value {
            Value::Scalar(text) => self.text(text, node.at, path, kind, false),
            Value::Nothing => {
                self.problem(node.at, format!("{path} has no value"), format!("write {}", kind.form));
                None
            }
            other @ (Value::Map(_) | Value::List(_)) => {
                self.problem(
                    node.at,
                    format!("{path} is {}", describe(other)),
                    format!("write {}", kind.form),
                );
                None
            }
        }
    }

    fn text<T>(
        &mut self,
        text: &str,
        at: Position,
        path: String,
        kind: &Kind<T>,
        is_default: bool,
    ) -> Option<T> {
        match (kind.parse)(&self.context, text) {
            Ok(value) => {
                self.setting(path, (kind.show)(&value), is_default);
                Some(value)
            }
            Err(Bad { what, hint }) => {
                let hint = hint.unwrap_or_else(|| format!("write {}", kind.form));
                self.problem(at, format!("{path}: {what}"), hint);
                None
            }
        }
    }
}

const fn describe(value: &Value) -> &'static str {
    match value {
        Value::Map(_) => "a map",
        Value::List(_) => "a list",
        Value::Scalar(_) => "text",
        Value::Nothing => "empty",
    }
}
