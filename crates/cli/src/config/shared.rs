//! Keys that both roles have.

use std::time::Duration;

use super::reader::{Fields, Key, Presence, Reader, Row, Section};
use super::tree::{Node, Value};
use super::values::{DURATION_OR_ZERO, LOG_FORMAT, LOG_LEVEL, LogFormat, LogLevel, LogSettings};

/// `log`.
pub(crate) const LOG: Row = Row::map(
    "log",
    Presence::Optional("the defaults of its keys"),
    "What the process says about itself, on standard error.",
);

const LEVEL: Key<LogLevel> =
    Key { name: "level", kind: &LOG_LEVEL, presence: Presence::Default("info"), doc: "How much is logged." };

const FORMAT: Key<LogFormat> = Key {
    name: "format",
    kind: &LOG_FORMAT,
    presence: Presence::Default("text"),
    doc: "How log lines are written.",
};

/// The keys of `log`.
pub(crate) const LOG_SECTION: Section =
    Section { title: "log", doc: "What the process says about itself.", rows: &[LEVEL.row(), FORMAT.row()] };

/// `drain_timeout`.
pub(crate) const DRAIN_TIMEOUT: Key<Duration> = Key {
    name: "drain_timeout",
    kind: &DURATION_OR_ZERO,
    presence: Presence::Default("30s"),
    doc: "How long open flows may go on after SIGTERM or SIGINT before they are cut.",
};

/// Whether a file is the other role's: it has keys that only that one has, and none that only this one has. That is
/// then the one problem, with the command that takes it; every key of it would be another.
pub(crate) fn is_of_another(
    reader: &mut Reader<'_>,
    node: &Node,
    own: &Section,
    other: &Section,
    command: &str,
) -> bool {
    let Value::Map(entries) = &node.value else { return false };
    let has = |section: &Section, key: &str| section.rows.iter().any(|row| row.name == key);
    let is_only_in =
        |section, beside| entries.iter().any(|it| has(section, &it.key) && !has(beside, &it.key));
    let is_another = is_only_in(other, own) && !is_only_in(own, other);
    if is_another {
        let what = format!("these are the keys of {}, not of {}", other.title, own.title);
        reader.problem(node.at, what, format!("{command} -f takes such a file"));
    }
    is_another
}

/// Reads `log`.
pub(crate) fn log(reader: &mut Reader<'_>, root: &Fields<'_>) -> Option<LogSettings> {
    let fields = reader.map(root, LOG, &LOG_SECTION)?;
    let level = reader.value(&fields, &LEVEL);
    let format = reader.value(&fields, &FORMAT);
    Some(LogSettings { level: level?, format: format? })
}
