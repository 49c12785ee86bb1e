//! What the database holds, and whether a file is one of ours.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::failure::{Failure, damaged, foreign, newer};
use super::files;

/// In the header of each of our databases: `adit`.
const APPLICATION: i64 = 0x6164_6974;

/// What a database of each format needs to be of the next. They are never edited once released; `user_version` counts
/// those that were applied.
const MIGRATIONS: [&str; 1] = [include_str!("schema/1.sql")];

/// For whoever looks into the database with another program: a commit waits so long for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the database to write, or makes it. Whoever calls holds the directory's lock.
pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    let failed = |error: io::Error| files::unavailable("open", path, error);
    refuse_foreign(path).map_err(Failure::from)?;
    files::private().truncate(false).open(path).map_err(failed)?;
    if let Some(directory) = path.parent() {
        files::sync_directory(directory).map_err(failed)?;
    }
    let mut database = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // What is not ours is left as it is, so this comes before anything that changes the file.
    version(&database, path)?;
    for suffix in ["", "-wal", "-shm"] {
        files::make_private(&files::beside(path, suffix)).map_err(failed)?;
    }
    database.pragma_update(None, "journal_mode", "wal")?;
    // Acknowledged is on the disk, and what was deleted is not in it any more.
    database.pragma_update(None, "synchronous", "full")?;
    database.pragma_update(None, "secure_delete", true)?;
    database.pragma_update(None, "journal_size_limit", 8 << 20)?;
    prepare(&mut database, path)?;
    Ok(database)
}

/// Opens it to read beside the writer.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Refuses what is not ours, newer or damaged, and brings an older format to this one.
pub(super) fn prepare(database: &mut Connection, path: &Path) -> Result<(), Failure> {
    let version = version(database, path)?;
    check(database)?;
    for (next, migration) in (1_i64..).zip(&MIGRATIONS).skip(version) {
        let step = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(migration)?;
        step.pragma_update(None, "application_id", APPLICATION)?;
        step.pragma_update(None, "user_version", next)?;
        step.commit()?;
    }
    Ok(())
}

/// The format of a database of ours; 0 if it is empty.
pub(super) fn version(database: &Connection, path: &Path) -> Result<usize, Failure> {
    let application: i64 = database.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = database.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    // A gateway that was stopped while it made the file leaves an empty one.
    let is_empty = application == 0 && version == 0 && tables == 0;
    if application != APPLICATION && !is_empty {
        return Err(foreign(path).into());
    }
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(newer(path, version, MIGRATIONS.len()).into()),
    }
}

/// Reads all of it to see that it hangs together.
pub(super) fn check(database: &Connection) -> Result<(), Failure> {
    let found: String = database.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Failure::Damaged(found)) }
}

/// SQLite would take a file of another kind for a damaged one, and an empty one beside a log for a new one.
pub(super) fn refuse_foreign(path: &Path) -> Result<(), super::StoreError> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut start = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(MAGIC.len() as u64)
                .read_to_end(&mut start)
                .map_err(|error| files::unavailable("read", path, error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(files::unavailable("open", path, error)),
    }
    if !start.is_empty() && start != MAGIC {
        return Err(foreign(path));
    }
    let log = files::beside(path, "-wal");
    if start.is_empty() && log.metadata().is_ok_and(|log| log.len() > 0) {
        return Err(damaged(path, &format!("it is empty or missing, but {} is there", log.display())));
    }
    Ok(())
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let database = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    database.busy_timeout(PATIENCE)?;
    database.pragma_update(None, "trusted_schema", false)?;
    database.pragma_update(None, "cell_size_check", true)?;
    database.pragma_update(None, "temp_store", "memory")?;
    Ok(database)
}
