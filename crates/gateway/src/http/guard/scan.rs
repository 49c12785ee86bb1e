//! The strict reading of a client's HTTP/1.x bytes: where each message ends, and which messages are refused.
//!
//! Sans-IO: [`Scanner`] is given the bytes that wait and says how many of them may go on to the HTTP library.
//! A head goes on only when it is complete and keeps every rule below, so that no byte of a refused head is
//! ever parsed by anything else. Body bytes go on as they come; only the lines between chunks are held until
//! they are complete. The verdict on a stream does not depend on how it is cut into reads.

pub(crate) mod strict;
mod syntax;

use adit_proto::reason::Reason;

use syntax::{Authority, Coding};

#[cfg(test)]
pub(super) mod tests;

/// Longest method; the longest registered one has 17 bytes.
const MAX_METHOD: usize = 32;
/// Longest line of a chunk size with its extensions.
const MAX_SIZE_LINE: usize = 4 * 1024;
/// Extension bytes of one body, counted from behind the size to the end of the line. What the HTTP library
/// accepts ends one byte later.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Bytes of ` HTTP/1.1`.
const VERSION_LEN: usize = 9;

/// How much a head may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Fields of a head, and of a trailer section.
    pub(crate) max_headers: usize,
    /// Bytes of a head with its request line and line ends, and of a trailer section.
    pub(crate) max_header_bytes: usize,
    /// Bytes of a request target.
    pub(crate) max_target: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_headers: 100, max_header_bytes: 64 * 1024, max_target: 16 * 1024 }
    }
}

/// Why a request is refused. As an [`std::error::Error`] it is the inner error of the [`std::io::Error`] that a
/// refused body ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Gives the status, the label and the page.
    pub(crate) reason: Reason,
    /// Which rule was broken, in words for the client. Never a byte of what the client sent.
    pub(crate) detail: &'static str,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail)
    }
}

impl std::error::Error for Refusal {}

/// What may happen with the bytes that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The first so many bytes may go on; never zero. The rest is to be asked about again.
    Release(usize),
    /// None of the bytes may go on before more have come.
    NeedMore,
    /// Nothing may go on any more. Every later verdict is the same.
    Refuse(Refusal),
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A head, from its first byte to its last.
    Head,
    /// The body of the request whose head was released last.
    Body,
    /// Nobody knows yet: the request whose head was released last asked for an upgrade.
    AwaitUpgrade,
    /// Another protocol.
    Upgraded,
    /// Nothing: a head or a body was refused.
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Head,
    /// A body with so many bytes left.
    Fixed(u64),
    ChunkSize,
    /// A chunk with so many bytes left.
    ChunkData(u64),
    /// The line end behind the data of a chunk.
    ChunkEnd,
    Trailers,
    AwaitUpgrade,
    Upgraded,
    HeadRefused(Refusal),
    BodyRefused(Refusal),
}

/// Which line of a head comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    First,
    /// The request line, behind the one empty line that RFC 9112 2.2 asks servers to skip.
    BehindEmptyLine,
    Fields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Version {
    Http10,
    #[default]
    Http11,
}

/// Where a part of the head stands, counted from the head's first byte.
type Span = (usize, usize);

/// What the lines of a head have said so far; also counts the fields of a trailer section.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    part: Part,
    version: Version,
    fields: usize,
    /// The authority of a target in absolute form, and the default port of its scheme.
    target: Option<(Span, u16)>,
    host: Option<Span>,
    length: Option<u64>,
    coding: Option<Coding>,
    /// `Connection` has the option `upgrade`.
    asks_upgrade: bool,
    /// There is an `Upgrade` field.
    names_protocol: bool,
}

/// Why there is no line.
enum NoLine {
    /// Its end has not come.
    Unfinished,
    /// It cannot end within the limit.
    TooLong,
    Bad(Refusal),
}

/// Reads one client's byte stream.
#[derive(Debug)]
pub(crate) struct Scanner {
    limits: Limits,
    state: State,
    facts: Facts,
    /// Where the first unfinished line of the current head, size line or trailer section starts.
    line: usize,
    /// Up to where that line was looked at, so that a head that comes byte by byte is not read again each time.
    looked: usize,
    /// Extension bytes of the current body.
    extensions: usize,
    /// What comes behind the current message: a head, or nobody knows.
    upgrade_follows: bool,
    /// A request of HTTP/1.0 was released.
    seen_http10: bool,
}

/// What one state makes of the bytes: so many belong to it and may go on, or it needs more.
type Step = Result<Option<usize>, Refusal>;

impl Scanner {
    /// A scanner in front of the first head.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Head,
            facts: Facts::default(),
            line: 0,
            looked: 0,
            extensions: 0,
            upgrade_follows: false,
            seen_http10: false,
        }
    }

    /// Whether a request of HTTP/1.0 was released.
    pub(crate) const fn has_seen_http10(&self) -> bool {
        self.seen_http10
    }

    /// What the next byte belongs to.
    pub(crate) fn place(&self) -> Place {
        match self.state {
            State::Head => Place::Head,
            State::Fixed(_) | State::ChunkSize | State::ChunkData(_) | State::ChunkEnd | State::Trailers => {
                Place::Body
            }
            State::AwaitUpgrade => Place::AwaitUpgrade,
            State::Upgraded => Place::Upgraded,
            State::HeadRefused(_) | State::BodyRefused(_) => Place::Refused,
        }
    }

    /// Whether the stream was refused inside a body, whose head is released already.
    pub(crate) fn refused_in_body(&self) -> bool {
        matches!(self.state, State::BodyRefused(_))
    }

    /// Judges `bytes`, which start with the first byte that was not released.
    ///
    /// After `Release(n)` the caller takes `n` bytes off the front and asks again; after `NeedMore` it asks
    /// again with the same bytes and more. One release holds at most one head, and when it holds one it starts
    /// with it.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Verdict {
        let mut released = 0;
        loop {
            let rest = bytes.get(released..).unwrap_or_default();
            let step = match self.state {
                State::Head if released > 0 => Ok(None),
                State::Head => self.head(rest),
                State::Fixed(left) => Ok(self.fixed(left, rest)),
                State::ChunkSize => self.chunk_size(rest),
                State::ChunkData(left) => Ok(self.chunk_data(left, rest)),
                State::ChunkEnd => self.chunk_end(rest),
                State::Trailers => self.trailers(rest),
                State::AwaitUpgrade => Ok(None),
                State::Upgraded => Ok((!rest.is_empty()).then_some(rest.len())),
                State::HeadRefused(refusal) | State::BodyRefused(refusal) => Err(refusal),
            };
            match step {
                Ok(Some(length)) => released += length,
                Ok(None) if released == 0 => return Verdict::NeedMore,
                Ok(None) => return Verdict::Release(released),
                // Behind bytes that may go on, the refusal is told at the next call.
                Err(refusal) => {
                    self.refuse(refusal);
                    if released > 0 {
                        return Verdict::Release(released);
                    }
                    return Verdict::Refuse(refusal);
                }
            }
        }
    }

    /// The upgrade was agreed on with a 101: every byte from here on goes through. Anywhere but in
    /// [`Place::AwaitUpgrade`] this does nothing, because bytes behind any other request are HTTP.
    pub(crate) fn upgraded(&mut self) {
        if matches!(self.state, State::AwaitUpgrade) {
            self.state = State::Upgraded;
        }
    }

    /// The upgrade was answered with something else: the bytes from here on are HTTP again (RFC 9110 7.8).
    pub(crate) fn response_done(&mut self) {
        if matches!(self.state, State::AwaitUpgrade) {
            self.state = State::Head;
        }
    }

    /// Refuses the stream, also from outside: for a head that took too long.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.state = match self.place() {
            Place::Refused => return,
            Place::Body => State::BodyRefused(refusal),
            Place::Head | Place::AwaitUpgrade | Place::Upgraded => State::HeadRefused(refusal),
        };
    }

    /// The next whole line without its CRLF, which ends within `limit` bytes of the start.
    fn next_line<'a>(&mut self, bytes: &'a [u8], limit: usize) -> Result<&'a [u8], NoLine> {
        let end = self.looked + syntax::line_run(bytes.get(self.looked..).unwrap_or_default());
        self.looked = end;
        // Asked before the byte at `end` is judged: else a long line with a wrong byte behind the limit would
        // be one refusal when it comes at once and another one when it comes in pieces.
        if end + 2 > limit {
            return Err(NoLine::TooLong);
        }
        match bytes.get(end..).unwrap_or_default() {
            [] | [b'\r'] => Err(NoLine::Unfinished),
            [b'\r', b'\n', ..] => {
                let line = bytes.get(self.line..end).unwrap_or_default();
                self.line = end + 2;
                self.looked = self.line;
                Ok(line)
            }
            // RFC 9112 2.2 lets a recipient take a bare LF for a line end. Two recipients that differ in this
            // see different messages, so neither is served.
            [b'\n', ..] => Err(NoLine::Bad(bad("A line ends with LF instead of CRLF."))),
            [b'\r', ..] => Err(NoLine::Bad(bad("A CR is not followed by LF."))),
            _ => Err(NoLine::Bad(bad("A line holds a control character."))),
        }
    }

    /// Forgets the lines of the finished head, size line or trailer section and says how long it was.
    fn finish_lines(&mut self) -> usize {
        self.looked = 0;
        std::mem::take(&mut self.line)
    }

    fn head(&mut self, bytes: &[u8]) -> Step {
        loop {
            let start = self.line;
            let mut limit = self.limits.max_header_bytes;
            if self.facts.part != Part::Fields {
                let longest = start + MAX_METHOD + 1 + self.limits.max_target + VERSION_LEN + 2;
                limit = limit.min(longest);
            }
            let line = match self.next_line(bytes, limit) {
                Ok(line) => line,
                Err(NoLine::Unfinished) => return Ok(None),
                Err(NoLine::Bad(refusal)) => return Err(refusal),
                Err(NoLine::TooLong) if self.facts.part == Part::Fields => return Err(too_large()),
                Err(NoLine::TooLong) => {
                    return Err(
                        self.long_request_line(bytes.get(start..limit.saturating_sub(1)).unwrap_or_default())
                    );
                }
            };
            match self.facts.part {
                Part::First if line.is_empty() => self.facts.part = Part::BehindEmptyLine,
                Part::First | Part::BehindEmptyLine => self.request_line(line, start)?,
                Part::Fields if line.is_empty() => return self.finish_head(bytes).map(Some),
                Part::Fields => self.field(line, start)?,
            }
        }
    }

    /// Why a request line that cannot end in time is refused, told from its first bytes.
    fn long_request_line(&self, line: &[u8]) -> Refusal {
        let method = syntax::run(line, syntax::TOKEN);
        if method == 0 || method > MAX_METHOD || line.get(method) != Some(&b' ') {
            return bad("The method is not a token of at most 32 bytes.");
        }
        let target = line.get(method + 1..).unwrap_or_default();
        match target.iter().position(|byte| *byte == b' ') {
            Some(length) if length <= self.limits.max_target => bad("The request line is malformed."),
            _ => target_too_long(),
        }
    }

    /// `method SP target SP version` with single spaces (RFC 9112 3).
    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), Refusal> {
        let (method, rest) = line.split_at(syntax::run(line, syntax::TOKEN));
        if method.is_empty() || method.len() > MAX_METHOD {
            return Err(bad("The method is not a token of at most 32 bytes."));
        }
        let Some(rest) = rest.strip_prefix(b" ") else {
            return Err(bad("The method is not followed by a space."));
        };
        let (target, version) = if let Some(target) = rest.strip_suffix(b" HTTP/1.1") {
            (target, Version::Http11)
        } else if let Some(target) = rest.strip_suffix(b" HTTP/1.0") {
            (target, Version::Http10)
        } else {
            return Err(bad("The request line does not end with HTTP/1.1 or HTTP/1.0."));
        };
        if target.len() > self.limits.max_target {
            return Err(target_too_long());
        }
        if method == b"CONNECT" {
            return Err(Refusal { reason: Reason::NotImplemented, detail: "CONNECT is not served here." });
        }
        self.facts.version = version;
        self.facts.part = Part::Fields;
        if syntax::is_path_form(target) || (target == b"*" && method == b"OPTIONS") {
            return Ok(());
        }
        self.facts.target = Some(absolute_form(target, start + method.len() + 1)?);
        Ok(())
    }

    /// `name ":" OWS value OWS` on one line (RFC 9112 5).
    fn field(&mut self, line: &[u8], start: usize) -> Result<(), Refusal> {
        self.facts.fields += 1;
        if self.facts.fields > self.limits.max_headers {
            return Err(too_large());
        }
        let (name, value, offset) = split_field(line)?;
        // Only these fields say where a message ends or whom it is for. Told apart by length first, so that
        // all others cost one comparison.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value, start + offset),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.facts.names_protocol |= !value.is_empty();
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.facts.asks_upgrade |= syntax::list_has(value, b"upgrade");
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8], at: usize) -> Result<(), Refusal> {
        if self.facts.host.replace((at, at + value.len())).is_some() {
            return Err(bad("There is more than one Host field."));
        }
        syntax::authority(value).map(|_| ()).ok_or(bad("The Host field is not a host with an optional port."))
    }

    /// One number. RFC 9110 8.6 lets a recipient take equal numbers for one; here they are refused, because
    /// the next hop may read the list in another way.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let length = syntax::decimal(value).ok_or(bad("Content-Length is not one number of bytes."))?;
        match self.facts.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(bad("There is more than one Content-Length field.")),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let coding = syntax::transfer_coding(value)
            .ok_or(bad("Transfer-Encoding does not end with one chunked coding."))?;
        match self.facts.coding.replace(coding) {
            None => Ok(()),
            Some(_) => Err(bad("There is more than one Transfer-Encoding field.")),
        }
    }

    /// The rules between fields, and what follows the head.
    fn finish_head(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let facts = std::mem::take(&mut self.facts);
        check_host(&facts, bytes)?;
        self.upgrade_follows = false;
        if facts.version == Version::Http11 {
            self.upgrade_follows = facts.asks_upgrade && facts.names_protocol;
        }
        match (facts.coding, facts.length) {
            // RFC 9112 6.3 lets a server believe the coding and close afterwards. This pair has no honest
            // sender and is the classic way to smuggle a request, so it is not served at all.
            (Some(_), Some(_)) => return Err(bad("There are both Transfer-Encoding and Content-Length.")),
            (Some(_), None) if facts.version == Version::Http10 => {
                return Err(bad("HTTP/1.0 has no Transfer-Encoding."));
            }
            (Some(Coding::Unknown), None) => {
                return Err(Refusal {
                    reason: Reason::NotImplemented,
                    detail: "No transfer coding but chunked is served here.",
                });
            }
            (Some(Coding::Chunked), None) => {
                self.extensions = 0;
                self.state = State::ChunkSize;
            }
            (None, Some(length)) if length > 0 => self.state = State::Fixed(length),
            (None, _) => self.end_message(),
        }
        self.seen_http10 |= facts.version == Version::Http10;
        Ok(self.finish_lines())
    }

    fn end_message(&mut self) {
        self.state = if self.upgrade_follows { State::AwaitUpgrade } else { State::Head };
    }

    fn fixed(&mut self, left: u64, bytes: &[u8]) -> Option<usize> {
        let (taken, left) = syntax::take(left, bytes)?;
        self.state = State::Fixed(left);
        if left == 0 {
            self.end_message();
        }
        Some(taken)
    }

    /// A size line of a chunked body (RFC 9112 7.1).
    fn chunk_size(&mut self, bytes: &[u8]) -> Step {
        let line = match self.next_line(bytes, MAX_SIZE_LINE) {
            Ok(line) => line,
            Err(NoLine::Unfinished) => return Ok(None),
            Err(NoLine::TooLong) => return Err(bad("The line of a chunk size is too long.")),
            Err(NoLine::Bad(refusal)) => return Err(refusal),
        };
        let (size, extensions) =
            syntax::chunk_size(line).ok_or(bad("A chunk size is not 1 to 16 hexadecimal digits."))?;
        if !syntax::is_chunk_extensions(extensions) {
            return Err(bad("A chunk extension is malformed."));
        }
        self.extensions += extensions.len();
        if self.extensions > MAX_EXTENSIONS {
            return Err(bad("The body has too many chunk extensions."));
        }
        self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
        Ok(Some(self.finish_lines()))
    }

    fn chunk_data(&mut self, left: u64, bytes: &[u8]) -> Option<usize> {
        let (taken, left) = syntax::take(left, bytes)?;
        self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
        Some(taken)
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Step {
        match bytes {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => {
                self.state = State::ChunkSize;
                Ok(Some(2))
            }
            _ => Err(bad("The data of a chunk is not followed by CRLF.")),
        }
    }

    /// The trailer section with the empty line that ends the body (RFC 9112 7.1.2).
    fn trailers(&mut self, bytes: &[u8]) -> Step {
        loop {
            let line = match self.next_line(bytes, self.limits.max_header_bytes) {
                Ok(line) => line,
                Err(NoLine::Unfinished) => return Ok(None),
                Err(NoLine::TooLong) => return Err(too_large()),
                Err(NoLine::Bad(refusal)) => return Err(refusal),
            };
            if line.is_empty() {
                self.facts.fields = 0;
                self.end_message();
                return Ok(Some(self.finish_lines()));
            }
            self.facts.fields += 1;
            if self.facts.fields > self.limits.max_headers {
                return Err(too_large());
            }
            let (name, ..) = split_field(line)?;
            if syntax::NEVER_TRAILERS.iter().any(|never| name.eq_ignore_ascii_case(never)) {
                return Err(bad("A field that cannot be a trailer is one."));
            }
        }
    }
}

const fn bad(detail: &'static str) -> Refusal {
    Refusal { reason: Reason::BadRequest, detail }
}

const fn too_large() -> Refusal {
    Refusal { reason: Reason::HeadersTooLarge, detail: "The fields are too many or too large." }
}

const fn target_too_long() -> Refusal {
    Refusal { reason: Reason::TargetTooLong, detail: "The target is too long." }
}

/// The name and the value of a field line, and where in the line the value starts.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8], usize), Refusal> {
    let (name, rest) = line.split_at(syntax::run(line, syntax::TOKEN));
    match rest {
        [b':', value @ ..] if !name.is_empty() => {
            let padded = value.len();
            let value = syntax::trim_start(value);
            Ok((name, syntax::trim(value), name.len() + 1 + padded - value.len()))
        }
        // A folded value (RFC 9112 5.2), or a first line that some recipients skip (RFC 9112 2.2).
        [b' ' | b'\t', ..] if name.is_empty() => Err(bad("A field line starts with a space.")),
        // RFC 9112 5.1: a space before the colon must be refused.
        [b' ' | b'\t', ..] => Err(bad("A field name is followed by a space.")),
        _ => Err(bad("A field line does not start with a name and a colon.")),
    }
}

/// Reads a target in absolute form, `http://authority[/path[?query]]`; `at` is where it stands in the head.
///
/// `http://host?query` is refused: `http::Uri` would put a slash into it.
fn absolute_form(target: &[u8], at: usize) -> Result<(Span, u16), Refusal> {
    let (rest, port) = if let Some(rest) = syntax::strip_prefix_ignore_case(target, b"http://") {
        (rest, 80)
    } else if let Some(rest) = syntax::strip_prefix_ignore_case(target, b"https://") {
        (rest, 443)
    } else {
        return Err(bad("The target is neither a path nor an http or https address."));
    };
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if syntax::authority(authority).is_none() || !(path.is_empty() || syntax::is_path_form(path)) {
        return Err(bad("The address in the target is malformed."));
    }
    let start = at + target.len() - rest.len();
    Ok(((start, start + end), port))
}

/// One Host in HTTP/1.1, at most one in HTTP/1.0, and none that contradicts the target (RFC 9112 3.2).
///
/// RFC 9112 3.2.2 says that the target wins. A client that means what it says sends the same twice.
fn check_host(facts: &Facts, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(host) = facts.host else {
        return match facts.version {
            Version::Http10 => Ok(()),
            Version::Http11 => Err(bad("There is no Host field.")),
        };
    };
    let Some((target, port)) = facts.target else { return Ok(()) };
    let same = |target: Authority<'_>, host: Authority<'_>| target.same_place(&host, port);
    match (parse_span(bytes, target), parse_span(bytes, host)) {
        (Some(target), Some(host)) if same(target, host) => Ok(()),
        _ => Err(bad("The target and the Host field name different places.")),
    }
}

fn parse_span(bytes: &[u8], (start, end): Span) -> Option<Authority<'_>> {
    syntax::authority(bytes.get(start..end)?)
}
