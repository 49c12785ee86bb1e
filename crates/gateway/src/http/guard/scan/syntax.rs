//! The byte rules of HTTP/1.x: which bytes may stand where, and small parsers over whole lines.

use std::net::Ipv6Addr;

/// A byte of a token: methods, field names, chunk extension names (RFC 9110 5.6.2).
pub(super) const TOKEN: u8 = 1;
/// A byte of a path that `http::Uri` keeps as it is.
const PATH: u8 = 2;
/// A byte of a query that `http::Uri` keeps as it is.
const QUERY: u8 = 4;
/// A byte of a registered name in an authority, without `%` and `,` (RFC 3986 3.2.2).
const HOST: u8 = 8;

/// Fields for framing, routing, the connection, authentication and the form of the content, which a recipient
/// that merges trailers into the head would act on (RFC 9110 6.5.1).
pub(super) const NEVER_TRAILERS: [&[u8]; 18] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"keep-alive",
    b"max-forwards",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = class_of(byte);
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

const fn class_of(byte: u8) -> u8 {
    let mut class = 0;
    let alphanumeric = byte.is_ascii_alphanumeric();
    if alphanumeric
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
    {
        class |= TOKEN;
    }
    // These two sets are those of `http::Uri`: what it would refuse or cut off (a fragment) is refused here,
    // so that the target that goes upstream is byte for byte the one that came.
    if byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'`' | b'?') {
        class |= PATH;
    }
    if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>') {
        class |= QUERY;
    }
    if alphanumeric || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b'+' | b';' | b'=') {
        class |= HOST;
    }
    class
}

/// How many of the first bytes are of this class.
pub(super) fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| CLASS[usize::from(*byte)] & class == 0).unwrap_or(bytes.len())
}

/// How many of the first bytes may stand inside a line: all but the controls, of which HTAB may.
///
/// Eight bytes at a time, because every byte of every head passes here.
pub(super) fn line_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*word);
        let delete = word ^ (ONES * 0x7f);
        // The lowest mark is exact; marks above it may be borrows and are looked at again.
        let marks = (word.wrapping_sub(ONES * 0x20) & !word | delete.wrapping_sub(ONES) & !delete) & HIGHS;
        if marks == 0 {
            at += 8;
            continue;
        }
        at += (marks.trailing_zeros() / 8) as usize;
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| is_control(*byte)).unwrap_or(rest.len())
}

const fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// `value` without the spaces and tabs around it (OWS, RFC 9110 5.6.3).
pub(super) fn trim(value: &[u8]) -> &[u8] {
    let mut value = trim_start(value);
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `value` without the spaces and tabs before it.
pub(super) fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

/// `bytes` behind `prefix`, which is compared without case.
pub(super) fn strip_prefix_ignore_case<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Whether this is a path that starts with `/`, with or without a query, that `http::Uri` keeps as it is.
pub(super) fn is_path_form(target: &[u8]) -> bool {
    if target.first() != Some(&b'/') {
        return false;
    }
    match target.get(run(target, PATH)..) {
        None | Some([]) => true,
        Some([b'?', query @ ..]) => run(query, QUERY) == query.len(),
        Some(_) => false,
    }
}

/// A host and, when it was written, a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    /// A registered name, an IPv4 address, or an IPv6 address with its brackets.
    pub(super) host: &'a [u8],
    pub(super) port: Option<u16>,
}

impl Authority<'_> {
    /// Whether both name the same place when a port that is not written is `default_port`.
    pub(super) fn same_place(&self, other: &Self, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// Parses `host[:port]`: no userinfo, no percent-encoding, no zone, no empty host and no empty port.
///
/// The grammar of RFC 3986 3.2 allows more. What is left out has no use in a Host field, and every spelling of
/// one host less is one way less around an exact match of host names.
pub(super) fn authority(bytes: &[u8]) -> Option<Authority<'_>> {
    let (host, rest) = match bytes.strip_prefix(b"[") {
        None => bytes.split_at(run(bytes, HOST)),
        Some(inside) => {
            let end = inside.iter().position(|byte| *byte == b']')?;
            let literal = std::str::from_utf8(inside.get(..end)?).ok()?;
            literal.parse::<Ipv6Addr>().ok()?;
            bytes.split_at_checked(end + 2)?
        }
    };
    let port = match rest {
        [] => None,
        [b':', digits @ ..] => Some(u16::try_from(decimal(digits)?).ok()?),
        _ => return None,
    };
    (!host.is_empty()).then_some(Authority { host, port })
}

/// Parses one or more digits and nothing else, up to 2^63 - 1.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let mut number = 0_u64;
    for byte in bytes {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    (number <= i64::MAX.unsigned_abs()).then_some(number)
}

/// Parses 1 to 16 hexadecimal digits at the start, up to 2^63 - 1, and gives what stands behind them.
pub(super) fn chunk_size(line: &[u8]) -> Option<(u64, &[u8])> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (size <= i64::MAX.unsigned_abs()).then_some((size, rest))
}

/// Whether `rest` is a list of chunk extensions, which may be empty (RFC 9112 7.1.1).
///
/// Controls are not looked for: the line was found by [`line_run`].
pub(super) fn is_chunk_extensions(mut rest: &[u8]) -> bool {
    loop {
        let Some(extension) = trim_start(rest).strip_prefix(b";") else { return rest.is_empty() };
        let name = trim_start(extension);
        let Some((name, behind)) = name.split_at_checked(run(name, TOKEN)) else { return false };
        if name.is_empty() {
            return false;
        }
        rest = behind;
        let Some(value) = trim_start(behind).strip_prefix(b"=") else { continue };
        let Some(behind) = behind_extension_value(trim_start(value)) else { return false };
        rest = behind;
    }
}

/// What stands behind the token or quoted string at the start.
fn behind_extension_value(value: &[u8]) -> Option<&[u8]> {
    let Some(mut quoted) = value.strip_prefix(b"\"") else {
        let (token, behind) = value.split_at(run(value, TOKEN));
        return (!token.is_empty()).then_some(behind);
    };
    loop {
        quoted = match quoted {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', _, behind @ ..] | [_, behind @ ..] => behind,
            [] => return None,
        };
    }
}

/// Whether a comma-separated list has this member, compared without case.
pub(super) fn list_has(list: &[u8], member: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| trim(item).eq_ignore_ascii_case(member))
}

/// What a Transfer-Encoding field asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// `chunked` alone.
    Chunked,
    /// Other codings, then `chunked`: framed well, but not served here.
    Unknown,
}

/// Reads the value of a Transfer-Encoding field; `None` when no length can be read from it (RFC 9112 6.1).
pub(super) fn transfer_coding(value: &[u8]) -> Option<Coding> {
    const CHUNKED: &[u8] = b"chunked";
    if value.eq_ignore_ascii_case(CHUNKED) {
        return Some(Coding::Chunked);
    }
    let mut items = value.rsplit(|byte| *byte == b',').map(trim);
    if !items.next()?.eq_ignore_ascii_case(CHUNKED) {
        return None;
    }
    let sound = |item: &[u8]| {
        !item.is_empty() && run(item, TOKEN) == item.len() && !item.eq_ignore_ascii_case(CHUNKED)
    };
    items.all(sound).then_some(Coding::Unknown)
}

/// How many of `bytes` belong to a run of data with `left` bytes, and how many are left of it then.
pub(super) fn take(left: u64, bytes: &[u8]) -> Option<(usize, u64)> {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    let taken_long = u64::try_from(taken).unwrap_or(left);
    (taken > 0).then_some((taken, left - taken_long))
}
