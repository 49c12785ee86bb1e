//! Backups, and how one is put back: at every moment the directory holds one whole database, or says which it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tempfile::{Builder, NamedTempFile};

use super::failure::{Failure, foreign};
use super::files::{self, BESIDE, Lock, beside};
use super::{StoreError, number, schema};

/// A database that was put back counts on from far ahead, so that no revision that somebody remembers from before names
/// another state now.
const LEAP: i64 = 1_000_000;

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// How many entries it holds.
    pub entries: u64,
    /// Where the database is that was there before, if there was one. The next restore removes it.
    pub replaced: Option<PathBuf>,
}

/// Copies the database as of one moment to a file that appears whole or not at all.
pub(super) fn back_up(from: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |error| files::unavailable("write", to, error);
    let directory = parent(to);
    let file = Builder::new().prefix(".adit-backup-").tempfile_in(directory).map_err(failed)?;
    copy(from, file.path()).map_err(|failure| failure.of(from))?;
    put_on_disk(file, to, directory).map_err(failed)
}

fn put_on_disk(file: NamedTempFile, to: &Path, directory: &Path) -> std::io::Result<()> {
    // Another descriptor than SQLite's; the data is the file's.
    file.as_file().sync_all()?;
    file.persist(to).map_err(|error| error.error)?;
    files::sync_directory(directory)
}

/// Puts a backup in the place of the database of a state directory that nobody uses, or where there is none. The backup
/// is copied and checked first; whatever goes wrong then leaves the directory as it was.
///
/// # Errors
///
/// [`StoreError::InUse`] if a gateway uses the directory; [`StoreError::Unusable`] if the file is no backup of ours, is
/// damaged, or is of a newer release; [`StoreError::Unavailable`] if something cannot be read or written.
pub fn restore(from: &Path, directory: &Path) -> Result<Restored, StoreError> {
    File::open(from).map_err(|error| files::unavailable("read", from, error))?;
    schema::refuse_foreign(from)?;
    let _lock = Lock::take(directory)?;
    finish(directory)?;
    let failed = |error| files::unavailable("write", directory, error);

    let incoming = Builder::new().prefix(".adit-restore-").tempfile_in(directory).map_err(failed)?;
    let database = copy(from, incoming.path()).map_err(|failure| failure.of_backup(from))?;
    let entries = adopt(database, from).map_err(|failure| failure.of_backup(from))?;

    let replaced = replaced(directory);
    for suffix in [""].iter().chain(&BESIDE) {
        files::remove_if_there(&beside(&replaced, suffix)).map_err(failed)?;
    }
    let is_replaced = files::database(directory).exists();
    // From here on the new one counts: whoever opens the directory next finishes it, if this process does not.
    put_on_disk(incoming, &restored(directory), directory).map_err(failed)?;
    finish(directory)?;
    Ok(Restored { entries, replaced: is_replaced.then_some(replaced) })
}

/// Puts what was restored in its place, if that was interrupted. Whoever calls holds the directory's lock.
pub(super) fn finish(directory: &Path) -> Result<(), StoreError> {
    let (restored, database, replaced) =
        (restored(directory), files::database(directory), replaced(directory));
    let failed = |error| files::unavailable("replace", &database, error);
    if !restored.try_exists().map_err(failed)? {
        return Ok(());
    }
    // A log that stayed would be taken for the new one's.
    for suffix in [""].iter().chain(&BESIDE) {
        files::move_if_there(&beside(&database, suffix), &beside(&replaced, suffix)).map_err(failed)?;
    }
    files::sync_directory(directory).map_err(failed)?;
    fs::rename(&restored, &database).map_err(failed)?;
    files::sync_directory(directory).map_err(failed)
}

fn restored(directory: &Path) -> PathBuf {
    beside(&files::database(directory), ".restored")
}

fn replaced(directory: &Path) -> PathBuf {
    beside(&files::database(directory), ".replaced")
}

/// Copies a database of ours over an empty file, with what its log holds, and checks the copy. The copy needs no log.
fn copy(from: &Path, to: &Path) -> Result<Connection, Failure> {
    let source = schema::open_to_read(from)?;
    let mut copy = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let outcome = Backup::new(&source, &mut copy)?.step(-1)?;
    if !matches!(outcome, StepResult::Done) {
        return Err(StoreError::Unavailable("the database is locked by another program".into()).into());
    }
    if schema::version(&copy, from)? == 0 {
        return Err(foreign(from).into());
    }
    schema::check(&copy)?;
    copy.pragma_update(None, "journal_mode", "delete")?;
    Ok(copy)
}

/// Makes a copy the next database of a directory, and says how many keys it holds.
fn adopt(mut database: Connection, from: &Path) -> Result<u64, Failure> {
    schema::prepare(&mut database, from)?;
    let change = database.transaction()?;
    change.execute("UPDATE state SET revision = revision + ?1", [LEAP])?;
    change.execute("DELETE FROM changes", [])?;
    let entries = change.query_row("SELECT count(*) FROM entries", [], |row| number(row, 0))?;
    change.commit()?;
    database.close().map_err(|(_, error)| error)?;
    Ok(entries)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
