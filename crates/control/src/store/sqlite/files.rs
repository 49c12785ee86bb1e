//! The files of a state directory: who may read them, and that one process uses them at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;

use super::StoreError;

/// What SQLite may keep beside a database.
pub(super) const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The database of a state directory.
pub(super) fn database(directory: &Path) -> PathBuf {
    directory.join("adit.db")
}

/// A file beside another: `adit.db` and `-wal` give `adit.db-wal`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Which file a path led to when it was opened: device and number. A directory that is removed, or another disk in its
/// place, leaves an open database that still takes everything, and nobody finds it there again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    /// Of the file that is there now.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let found = fs::metadata(path).map_err(|error| unavailable("look at", path, error))?;
        Ok(Self(found.dev(), found.ino()))
    }

    /// Says no when another file is there, or none.
    pub(super) fn check(self, path: &Path) -> Result<(), StoreError> {
        if Self::of(path).is_ok_and(|now| now == self) {
            return Ok(());
        }
        let path = path.display();
        Err(StoreError::Unavailable(
            format!(
                "{path} was removed or replaced while the gateway runs; put it back, or restart the gateway with what \
                 is there now"
            )
            .into(),
        ))
    }
}

/// Held while a process uses a state directory. The system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Says so, and does not only close the file: a child that another thread is just starting has it open too, until it
    /// becomes another program (flock(2)).
    fn drop(&mut self) {
        drop(self.file.unlock());
    }
}

impl Lock {
    /// Makes the directory if there is none, and takes it.
    pub(super) fn take(directory: &Path) -> Result<Self, StoreError> {
        make_directory(directory).map_err(|error| unavailable("make the directory", directory, error))?;
        let path = directory.join("adit.lock");
        let open = private().read(true).truncate(false).open(&path);
        let mut file = open.map_err(|error| unavailable("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(directory, &mut file)),
            Err(TryLockError::Error(error)) => return Err(unavailable("lock", &path, error)),
        }
        note(&mut file).map_err(|error| unavailable("write", &path, error))?;
        Ok(Self { file })
    }
}

/// For whoever comes second. A full disk is no reason not to start, so nothing depends on it.
fn note(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    match writeln!(file, "{}", process::id()) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        outcome => outcome,
    }
}

fn in_use(directory: &Path, file: &mut File) -> StoreError {
    let mut holder = String::new();
    // Empty for a moment, when the other one has only just begun.
    drop(file.read_to_string(&mut holder));
    let holder = match holder.trim().parse::<u32>() {
        Ok(pid) if pid == process::id() => "this process already".to_owned(),
        Ok(pid) => format!("another gateway (pid {pid})"),
        Err(_) => "another gateway".to_owned(),
    };
    StoreError::InUse(format!(
        "the state in {} is used by {holder}; stop that one first, or give this one a directory of its own",
        directory.display()
    ))
}

pub(super) fn unavailable(what: &str, path: &Path, error: io::Error) -> StoreError {
    let told = format!("cannot {what} {}: {error}", path.display());
    StoreError::Unavailable(io::Error::new(error.kind(), told).into())
}

fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// A file for its owner alone. What SQLite puts beside a database has the same mode.
pub(super) fn private() -> OpenOptions {
    let mut options = File::options();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Takes what others may do away from a file that is there.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        match fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Puts the names in a directory on the disk.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Moves a file if it is there.
pub(super) fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    if_there(fs::rename(from, to))
}

/// Removes a file if it is there.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    if_there(fs::remove_file(path))
}

fn if_there(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn who_comes_next_does_not_wait_for_a_child_that_is_being_started() {
        let directory = TempDir::new().expect("a directory");
        let lock = Lock::take(directory.path()).expect("it is free");
        let child = lock.file.try_clone().expect("a descriptor as a fork makes it");
        assert!(matches!(Lock::take(directory.path()), Err(StoreError::InUse(_))));
        drop(lock);
        let next = Lock::take(directory.path());
        drop(child);
        next.expect("it is free again");
    }
}
