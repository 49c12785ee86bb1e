//! Turns a request's path into the name of a file below the root, or refuses it.

use std::ffi::OsString;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::Refusal;

/// What a request asks for.
#[derive(Debug)]
pub(super) struct Target {
    /// Relative to the root; `.` for the root itself. It has no `..` and no hidden name.
    pub(super) path: PathBuf,
    /// Whether the request's path ends in a slash.
    pub(super) slash: bool,
    /// The path for people to read; it begins with a slash, and ends in one when `slash` is set.
    pub(super) shown: String,
}

impl Target {
    /// Reads a path segment by segment. It decodes each segment after splitting, so that an escape can never become
    /// a separator, and never resolves `..`, so that nothing above the root is asked of the file system.
    ///
    /// An empty segment names nothing: `//host` is no other way to write `/host`.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        // The asterisk form and a path without its slash are no file's name.
        let rest = path.strip_prefix('/').ok_or(Refusal::Malformed)?;
        let mut target = Self { path: PathBuf::from("."), slash: true, shown: String::from("/") };
        if rest.is_empty() {
            return Ok(target);
        }
        let names = rest.strip_suffix('/');
        target.slash = names.is_some();
        for (depth, segment) in names.unwrap_or(rest).split('/').enumerate() {
            let name = decode(segment)?;
            if !visible(&name, depth) {
                return Err(Refusal::NotFound);
            }
            if depth > 0 {
                target.shown.push('/');
            }
            target.shown.push_str(&String::from_utf8_lossy(&name));
            target.path.push(os_name(name)?);
        }
        if target.slash {
            target.shown.push('/');
        }
        Ok(target)
    }
}

/// RFC 3986 section 2.1: a percent sign begins an escape of two hexadecimal digits, and stands for nothing else.
fn decode(segment: &str) -> Result<Vec<u8>, Refusal> {
    let well_formed = segment.split('%').skip(1).all(|after| {
        let digits = after.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    let name: Vec<u8> = percent_decode_str(segment).collect();
    if well_formed && !name.contains(&0) { Ok(name) } else { Err(Refusal::Malformed) }
}

/// Whether a name may be asked for at all. `.` and `..` are hidden names like any other.
fn visible(name: &[u8], depth: usize) -> bool {
    let separator = |byte: &u8| matches!(byte, b'/' | b'\\');
    // A colon introduces a drive or an alternate stream on Windows.
    let foreign = cfg!(windows) && name.contains(&b':');
    // RFC 8615: the well-known directory is meant to be served, and only at the root.
    let hidden = name.starts_with(b".") && !(depth == 0 && name == b".well-known");
    !name.is_empty() && !name.iter().any(separator) && !foreign && !hidden
}

#[cfg(unix)]
fn os_name(name: Vec<u8>) -> Result<OsString, Refusal> {
    Ok(std::os::unix::ffi::OsStringExt::from_vec(name))
}

#[cfg(not(unix))]
fn os_name(name: Vec<u8>) -> Result<OsString, Refusal> {
    String::from_utf8(name).map(OsString::from).or(Err(Refusal::NotFound))
}
