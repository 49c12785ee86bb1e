//! Byte ranges of RFC 9110 section 14.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use http::HeaderMap;
use http::header::RANGE;

use super::body::Piece;

/// The most ranges that are answered apart. RFC 9110 section 14.2 lets a server ignore a Range field, and many small
/// parts cost more than the file.
const MAX_RANGES: usize = 16;

/// Bytes of a file, from the first to the last, both included and both inside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Span {
    pub(super) const fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// The value of Content-Range for this span of a file that has `total` bytes.
    pub(super) fn content_range(self, total: u64) -> String {
        format!("bytes {}-{}/{total}", self.first, self.last)
    }
}

/// How much of a file is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    Whole,
    Unsatisfiable,
    Single(Span),
    Several(Vec<Span>),
}

/// Reads the Range field for a file of `total` bytes. One that is not understood selects the whole file, as RFC 9110
/// section 14.2 asks.
pub(super) fn select(headers: &HeaderMap, total: u64) -> Selection {
    let mut fields = headers.get_all(RANGE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return Selection::Whole };
    let Some(requested) = field.to_str().ok().and_then(parse) else { return Selection::Whole };
    if requested.len() > MAX_RANGES {
        return Selection::Whole;
    }
    // A suffix of an empty file is satisfiable (section 14.1.1), and no Content-Range can express it.
    if total == 0 && requested.iter().any(|range| matches!(range, Requested::Suffix(1..))) {
        return Selection::Whole;
    }
    let spans: Vec<Span> = requested.into_iter().filter_map(|range| range.within(total)).collect();
    if spans.iter().fold(0_u64, |sum, span| sum.saturating_add(span.len())) > total {
        return Selection::Whole;
    }
    let spans = coalesce(spans);
    match *spans.as_slice() {
        [] => Selection::Unsatisfiable,
        [span] => Selection::Single(span),
        _ => Selection::Several(spans),
    }
}

/// One range as the client wrote it.
#[derive(Clone, Copy)]
enum Requested {
    From(u64),
    Between(u64, u64),
    Suffix(u64),
}

impl Requested {
    /// The span of a file of `total` bytes that is meant, or `None` when it is not satisfiable.
    fn within(self, total: u64) -> Option<Span> {
        let end = total.checked_sub(1)?;
        let span = match self {
            Self::From(first) => Span { first, last: end },
            Self::Between(first, last) => Span { first, last: last.min(end) },
            Self::Suffix(0) => return None,
            Self::Suffix(len) => Span { first: total.saturating_sub(len), last: end },
        };
        (span.first <= end).then_some(span)
    }
}

/// `None` when it is not a list of byte ranges. Empty list elements are allowed by RFC 9110 section 5.6.1.2.
fn parse(field: &str) -> Option<Vec<Requested>> {
    let (unit, list) = field.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let elements = list
        .split(',')
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|element| !element.is_empty());
    let ranges: Vec<Requested> = elements.map(parse_one).collect::<Option<_>>()?;
    (!ranges.is_empty()).then_some(ranges)
}

fn parse_one(element: &str) -> Option<Requested> {
    match element.split_once('-')? {
        ("", suffix) => number(suffix).map(Requested::Suffix),
        (first, "") => number(first).map(Requested::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Requested::Between(first, last))
        }
    }
}

/// A number of any length: one that no file reaches counts as the greatest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Joins spans that overlap or touch. Spans that do not stay in the order in which they were asked for, as RFC 9110
/// section 15.3.7.2 prefers.
fn coalesce(spans: Vec<Span>) -> Vec<Span> {
    let mut sorted = spans.clone();
    sorted.sort_unstable_by_key(|span| span.first);
    let mut joined: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        match joined.last_mut() {
            Some(previous) if span.first <= previous.last.saturating_add(1) => {
                previous.last = previous.last.max(span.last);
            }
            _ => joined.push(span),
        }
    }
    if joined.len() == spans.len() { spans } else { joined }
}

/// A boundary that the file cannot have been written to contain.
pub(super) fn boundary() -> String {
    let word = || RandomState::new().build_hasher().finish();
    // Two words, because one might be guessed by whoever wrote the file.
    format!("adit-{:016x}{:016x}", word(), word())
}

/// The pieces of a multipart/byteranges body (RFC 9110 section 14.6).
pub(super) fn multipart(spans: &[Span], boundary: &str, content_type: &str, total: u64) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(spans.len() * 2 + 1);
    let mut before = "";
    for &span in spans {
        let content_range = span.content_range(total);
        let head = format!(
            "{before}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {content_range}\r\n\r\n"
        );
        pieces.push(Piece::Text(head.into()));
        pieces.push(Piece::File { start: span.first, len: span.len() });
        before = "\r\n";
    }
    pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}
