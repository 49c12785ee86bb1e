//! Pages that list a directory, for people and for programs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use cap_std::fs::Dir;
use http::HeaderMap;
use http::header::ACCEPT;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Serialize;

use super::conditional::http_time;
use super::target::Target;

/// The most entries that one page shows, so that a page has a bounded size.
const MAX_ENTRIES: usize = 10_000;
/// The most names that are looked at, so that a directory full of hidden names has a bounded cost too.
const MAX_NAMES: usize = 10 * MAX_ENTRIES;

/// Everything but the unreserved characters of RFC 3986 section 2.3. A colon in particular would make a scheme of
/// what stands before it.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;\
    color-scheme:light dark}h1{font-size:1.2em;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}\
    th{text-align:left}td,th{padding:.15em .5em;border-bottom:1px solid #8884}td:first-child{overflow-wrap:anywhere}\
    td+td{white-space:nowrap}.n{text-align:right;font-variant-numeric:tabular-nums}";

/// How a listing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Json,
}

impl Format {
    /// What the request would rather have (RFC 9110 section 12.5.1). Where both are as welcome, the one that was named
    /// more precisely is meant; where neither was, a person is asking.
    pub(super) fn preferred(headers: &HeaderMap) -> Self {
        let json = welcome(headers, "application", "json");
        if json.0 > 0.0 && json > welcome(headers, "text", "html") { Self::Json } else { Self::Html }
    }
}

/// How welcome a media type is: its quality, and how precisely the range that gives it is written.
fn welcome(headers: &HeaderMap, kind: &str, subtype: &str) -> (f32, u8) {
    let fields = headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok());
    let mut best = (0.0, 0);
    for range in fields.flat_map(|field| field.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let Some((range_kind, range_subtype)) = parts.next().and_then(|range| range.split_once('/')) else {
            continue;
        };
        let precision = match (range_kind, range_subtype) {
            ("*", "*") => 1,
            (range_kind, "*") if range_kind.eq_ignore_ascii_case(kind) => 2,
            (range_kind, range_subtype)
                if range_kind.eq_ignore_ascii_case(kind) && range_subtype.eq_ignore_ascii_case(subtype) =>
            {
                3
            }
            _ => continue,
        };
        if precision > best.1 {
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            best = (quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)), precision);
        }
    }
    best
}

/// A finished page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) content_type: &'static str,
    pub(super) text: String,
}

/// Reads a directory and writes its page. It blocks.
pub(super) fn page(root: &Dir, target: &Target, format: Format) -> io::Result<Page> {
    let listing = read(root, target)?;
    Ok(match format {
        Format::Html => Page { content_type: "text/html; charset=utf-8", text: html(&listing) },
        Format::Json => {
            let text = serde_json::to_string(&listing).map_err(io::Error::other)?;
            Page { content_type: "application/json", text }
        }
    })
}

#[derive(Serialize)]
struct Listing<'a> {
    path: &'a str,
    truncated: bool,
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(skip)]
    raw: OsString,
    name: String,
    href: String,
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
}

/// The order is the order of the page: directories come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Directory,
    File,
}

fn read<'a>(root: &Dir, target: &'a Target) -> io::Result<Listing<'a>> {
    let mut entries = Vec::new();
    let mut truncated = false;
    for (index, name) in root.read_dir(&target.path)?.enumerate() {
        let Some(entry) = describe(root, target, name?.file_name()) else {
            if index >= MAX_NAMES {
                truncated = true;
                break;
            }
            continue;
        };
        if entries.len() == MAX_ENTRIES {
            truncated = true;
            break;
        }
        entries.push(entry);
    }
    entries.sort_unstable_by(|one: &Entry, other| (one.kind, &one.raw).cmp(&(other.kind, &other.raw)));
    Ok(Listing { path: &target.shown, truncated, entries })
}

/// Describes an entry, or leaves it out when a request for it would not be answered: hidden names, devices, and links
/// that are broken or lead outside.
fn describe(root: &Dir, target: &Target, name: OsString) -> Option<Entry> {
    let bytes = name.as_encoded_bytes();
    if bytes.starts_with(b".") || bytes.contains(&b'\\') {
        return None;
    }
    // Asked of the root and not of the directory, so that a link may lead to the directory's siblings.
    let metadata = root.metadata(target.path.join(&name)).ok()?;
    let kind = match (metadata.is_dir(), metadata.is_file()) {
        (true, _) => Kind::Directory,
        (false, true) => Kind::File,
        (false, false) => return None,
    };
    let modified = metadata.modified().ok().and_then(|time| http_time(time.into_std()));
    Some(Entry {
        name: name.to_string_lossy().into_owned(),
        href: href(&name, kind),
        kind,
        size: (kind == Kind::File).then(|| metadata.len()),
        modified: modified.map(rfc3339),
        raw: name,
    })
}

fn href(name: &OsStr, kind: Kind) -> String {
    let slash = if kind == Kind::Directory { "/" } else { "" };
    format!("{}{slash}", percent_encode(name.as_encoded_bytes(), ESCAPED))
}

fn html(listing: &Listing<'_>) -> String {
    let path = escape(listing.path);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{path}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{path}</h1>\n<table>\n\
         <tr><th>Name</th><th class=\"n\">Size</th><th>Modified</th></tr>\n"
    );
    if listing.path != "/" {
        page.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for entry in &listing.entries {
        page.push_str(&row(entry));
    }
    page.push_str("</table>\n");
    if listing.truncated {
        page.push_str(&format!("<p>Only {} entries are shown.</p>\n", listing.entries.len()));
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn row(entry: &Entry) -> String {
    let slash = if entry.kind == Kind::Directory { "/" } else { "" };
    let (href, name) = (&entry.href, escape(&entry.name));
    let size = entry.size.map_or_else(String::new, human);
    let modified = entry.modified.as_deref().unwrap_or_default();
    format!(
        "<tr><td><a href=\"{href}\">{name}{slash}</a></td><td class=\"n\">{size}</td><td>{modified}</td></tr>\n"
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A size with one decimal place, rounded down.
fn human(size: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut whole, mut tenths, mut unit) = (size, 0, "B");
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        (tenths, whole, unit) = (whole % 1024 * 10 / 1024, whole / 1024, next);
    }
    if unit == "B" { format!("{whole} B") } else { format!("{whole}.{tenths} {unit}") }
}

/// A time as RFC 3339 writes it, in UTC and whole seconds. Times before 1970 do not come here.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Years are counted from March, so that the leap day is the last of its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{human, rfc3339};

    #[test]
    fn sizes_are_written_for_people() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1023.9 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (size, written) in cases {
            assert_eq!(human(size), written);
        }
    }

    #[test]
    fn times_are_written_with_the_right_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ];
        for (seconds, written) in cases {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), written);
        }
    }
}
