//! A log file that is found again at its path after it was moved away.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Appends to the file at a path; opens the path anew when it no longer leads to the open file.
#[derive(Debug)]
pub(super) struct RotatedFile {
    path: PathBuf,
    file: File,
    checked: Instant,
    /// The least time between two looks at the path.
    interval: Duration,
    /// A line must not be torn between two files.
    is_line_start: bool,
}

impl RotatedFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::with_interval(path, Duration::from_secs(1))
    }

    fn with_interval(path: &Path, interval: Duration) -> io::Result<Self> {
        let file = append(path)?;
        Ok(Self { path: path.to_owned(), file, checked: Instant::now(), interval, is_line_start: true })
    }

    fn follow(&mut self) {
        self.checked = Instant::now();
        let (there, here) = (fs::metadata(&self.path), self.file.metadata());
        if there.is_ok_and(|there| here.is_ok_and(|here| is_same(&there, &here))) {
            return;
        }
        // When this fails, the old file is still the better place for the lines.
        if let Ok(file) = append(&self.path) {
            self.file = file;
        }
    }
}

impl Write for RotatedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_line_start && self.checked.elapsed() >= self.interval {
            self.follow();
        }
        let written = self.file.write(bytes)?;
        if let Some(last) = bytes.get(..written).and_then(<[u8]>::last) {
            self.is_line_start = *last == b'\n';
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Elsewhere a file has no identity that the standard library tells, so a moved one is only noticed at a restart.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_go_to_a_new_file_after_the_old_one_was_moved() {
        let root = tempfile::tempdir().unwrap();
        let (path, moved) = (root.path().join("log"), root.path().join("log.1"));
        fs::write(&path, "zero\n").unwrap();
        let mut file = RotatedFile::with_interval(&path, Duration::ZERO).unwrap();
        file.write_all(b"one\ntw").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write_all(b"o\n").unwrap();
        file.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "zero\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn lines_go_to_the_old_file_while_no_new_one_can_be_opened() {
        let root = tempfile::tempdir().unwrap();
        let (path, moved) = (root.path().join("log"), root.path().join("log.1"));
        let mut file = RotatedFile::with_interval(&path, Duration::ZERO).unwrap();
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
    }

    #[test]
    fn the_path_is_not_looked_at_before_its_time() {
        let root = tempfile::tempdir().unwrap();
        let (path, moved) = (root.path().join("log"), root.path().join("log.1"));
        let mut file = RotatedFile::with_interval(&path, Duration::from_secs(3600)).unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write_all(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
    }

    #[test]
    fn others_cannot_read_the_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        RotatedFile::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }
}
