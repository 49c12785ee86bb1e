//! Preconditions of RFC 9110 section 13, for a file that exists.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderValue};

/// What identifies the current state of a file.
#[derive(Debug)]
pub(super) struct Validators {
    /// A strong entity tag with its quotes.
    pub(super) etag: String,
    /// When it was modified, in whole seconds; `None` when no HTTP date can say it.
    pub(super) modified: Option<SystemTime>,
}

/// What the preconditions decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceed,
    NotModified,
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD in the order of RFC 9110 section 13.2.2.
pub(super) fn evaluate(headers: &HeaderMap, current: &Validators) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !matches(headers, &IF_MATCH, |weak, tag| !weak && tag == current.etag) {
            return Verdict::Failed;
        }
    } else if let Some(date) = date(headers, &IF_UNMODIFIED_SINCE)
        && current.modified.is_some_and(|modified| modified > date)
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if matches(headers, &IF_NONE_MATCH, |_, tag| tag == current.etag) {
            return Verdict::NotModified;
        }
    } else if let Some(date) = date(headers, &IF_MODIFIED_SINCE)
        && current.modified.is_some_and(|modified| modified <= date)
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether the Range field of a request counts: it is there, and If-Range does not forbid it (RFC 9110 section
/// 13.1.5). A date counts only when it is exactly the one that was sent, and a weak tag never does.
pub(super) fn range_applies(headers: &HeaderMap, current: &Validators) -> bool {
    if !headers.contains_key(RANGE) {
        return false;
    }
    let mut fields = headers.get_all(IF_RANGE).iter();
    match (fields.next(), fields.next()) {
        (None, _) => true,
        (Some(field), None) => {
            let field = field.as_bytes().trim_ascii();
            let dated = || current.modified.is_some() && parse_date(field) == current.modified;
            field == current.etag.as_bytes() || dated()
        }
        (Some(_), Some(_)) => false,
    }
}

/// A modification time as an HTTP date can carry it: whole seconds from 1970 to the end of 9999.
pub(super) fn http_time(modified: SystemTime) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    let seconds = modified.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (seconds < YEAR_10000).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Whether a field is `*` or lists a tag that `wanted` accepts; `wanted` is told whether the tag is weak.
fn matches(headers: &HeaderMap, name: &HeaderName, wanted: impl Fn(bool, &str) -> bool) -> bool {
    headers.get_all(name).iter().filter_map(|field| field.to_str().ok()).any(|field| {
        // `*` asks whether there is any representation, and here there is one.
        field.trim() == "*" || tags(field).any(|(weak, tag)| wanted(weak, tag))
    })
}

/// The entity tags of a list, each with its quotes and whether it is weak. It stops at the first thing that is no
/// tag. Splitting at commas would be wrong: a tag may hold one (RFC 9110 section 8.8.3).
fn tags(field: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = field;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let weak = rest.starts_with("W/");
        let quoted = if weak { &rest[2..] } else { rest };
        let opaque = quoted.strip_prefix('"')?;
        let end = opaque.find('"')? + 2;
        let (tag, after) = quoted.split_at(end);
        rest = after;
        Some((weak, tag))
    })
}

/// A field's date, or `None` when it is absent, repeated or no date: RFC 9110 sections 13.1.3 and 13.1.4 have such a
/// field ignored.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next().map(HeaderValue::as_bytes)?;
    if fields.next().is_some() { None } else { parse_date(field) }
}

fn parse_date(field: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(field).ok()?.trim()).ok()
}
