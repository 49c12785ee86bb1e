//! Opens what a path names without leaving the root. Everything here blocks.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use cap_std::fs::{Dir, OpenOptions};

use super::Refusal;
use super::conditional::{Validators, http_time};
use super::listing::{self, Format, Page};
use super::target::Target;

/// What a path turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    File(Opened),
    /// A directory that was asked for without its slash.
    Directory,
    Listing(Page),
}

/// A regular file that is open for reading.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    /// Its length when it was opened, which is the length that is announced.
    pub(super) len: u64,
    pub(super) validators: Validators,
    pub(super) content_type: Cow<'static, str>,
}

/// Finds what a request asks for; `listing` is `None` when directories may not be listed.
pub(super) fn find(root: &Dir, target: &Target, listing: Option<Format>) -> Result<Found, Refusal> {
    match (open(root, &target.path)?, target.slash) {
        (Entry::File(opened), false) => Ok(Found::File(opened)),
        (Entry::File(_), true) => Err(Refusal::NotFound),
        (Entry::Directory, false) => Ok(Found::Directory),
        (Entry::Directory, true) => directory(root, target, listing),
    }
}

fn directory(root: &Dir, target: &Target, listing: Option<Format>) -> Result<Found, Refusal> {
    match open(root, &target.path.join("index.html")) {
        Ok(Entry::File(opened)) => return Ok(Found::File(opened)),
        Ok(Entry::Directory) | Err(Refusal::NotFound) => {}
        Err(refusal) => return Err(refusal),
    }
    let format = listing.ok_or(Refusal::NotFound)?;
    let page = listing::page(root, target, format).map_err(|error| refusal(&error))?;
    Ok(Found::Listing(page))
}

enum Entry {
    File(Opened),
    Directory,
}

/// Opens a regular file below the root. Symbolic links are followed as long as they stay inside.
fn open(root: &Dir, path: &Path) -> Result<Entry, Refusal> {
    // Merely opening a device can act on it, so what is no file is refused before it is opened.
    let seen = root.metadata(path).map_err(|error| refusal(&error))?;
    if seen.is_dir() {
        return Ok(Entry::Directory);
    }
    if !seen.is_file() {
        return Err(Refusal::NotFound);
    }
    // The name may by now stand for a FIFO, which would hold this thread until someone writes to it; so it is opened
    // without blocking, and judged again by what was opened. cap-std gives the flag its portable name only here; its
    // companion crate does no more than call this.
    let mut options = OpenOptions::new();
    options.read(true)._cap_fs_ext_nonblock(true);
    let file = root.open_with(path, &options).map_err(|error| refusal(&error))?.into_std();
    let metadata = file.metadata().map_err(|error| refusal(&error))?;
    if !metadata.is_file() {
        return Err(Refusal::NotFound);
    }
    Ok(Entry::File(Opened {
        len: metadata.len(),
        validators: Validators {
            etag: etag(&metadata),
            modified: metadata.modified().ok().and_then(http_time),
        },
        content_type: content_type(path),
        file,
    }))
}

/// How a failed look-up is answered.
pub(super) fn refusal(error: &io::Error) -> Refusal {
    // A chain of links without end; the standard library has no stable name for it.
    const LOOP: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 40 } else { 62 };
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            Refusal::NotFound
        }
        // A link that leads outside is refused by cap-std, not by the system. It looks like nothing at all, so that
        // nobody learns what is there.
        io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => Refusal::NotFound,
        io::ErrorKind::PermissionDenied => Refusal::Forbidden,
        _ if cfg!(unix) && error.raw_os_error() == Some(LOOP) => Refusal::NotFound,
        _ => {
            tracing::debug!(error = %error, "the file server could not read a file");
            Refusal::Failed
        }
    }
}

/// A strong tag (RFC 9110 section 8.8.3): a file that is replaced has another inode, and one that is rewritten has
/// another time to the nanosecond.
#[cfg(unix)]
fn etag(metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let (inode, len) = (metadata.ino(), metadata.len());
    format!("\"{inode:x}-{len:x}-{:x}-{:x}\"", metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(not(unix))]
fn etag(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let nanoseconds = modified.unwrap_or_default().as_nanos();
    format!("\"{:x}-{nanoseconds:x}\"", metadata.len())
}

/// The type that the extension suggests. Text is said to be UTF-8, because a client's guess would be an older code.
fn content_type(path: &Path) -> Cow<'static, str> {
    match mime_guess::from_path(path).first_raw() {
        None => Cow::Borrowed("application/octet-stream"),
        Some(kind) if kind.starts_with("text/") || kind == "application/javascript" => {
            Cow::Owned(format!("{kind}; charset=utf-8"))
        }
        Some(kind) => Cow::Borrowed(kind),
    }
}
