//! A store in one file of the state directory: SQLite, with one writer and readers that do not wait for it.
//!
//! What is acknowledged is on the disk. Start with `writer`; `schema` says what the file holds and whether it is
//! ours, `files` who may use it, `copies` how it is backed up and put back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::failure::Failure;
use self::files::Lock;
use self::writer::Writer;
use super::clerk::{Clerk, Desk};
use super::{Committed, Entry, History, LeaseId, Listing, Revision, Store, StoreError, Transaction};

pub use self::copies::{Restored, restore};

mod copies;
mod failure;
mod files;
mod schema;
mod writer;

/// How often a directory that is in use is looked at.
const AGAIN: Duration = Duration::from_millis(50);

/// A store in a directory. The directory is used by one process at a time.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    // In this order they end: the last connection to close tidies up, and only the writer's may write.
    reader: Clerk<Reader>,
    writer: Clerk<Writer>,
}

#[derive(Debug)]
struct Reader {
    path: PathBuf,
    database: Connection,
}

impl SqliteStore {
    /// Opens the store of a state directory, or makes it. Blocks while the whole file is checked.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if another process uses it; [`StoreError::Unusable`] if it is damaged, of a newer release,
    /// or not ours; [`StoreError::Unavailable`] if the directory cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with(directory, History::default())
    }

    /// As [`Self::open`], keeping so much of the past.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_with(directory: &Path, keep: History) -> Result<Self, StoreError> {
        let lock = Lock::take(directory)?;
        copies::finish(directory)?;
        let path = files::database(directory);
        let writer = Writer::open(&path, lock, keep).map_err(|failure| failure.of(&path))?;
        let database = schema::open_to_read(&path).map_err(|error| Failure::from(error).of(&path))?;
        let reader = Reader { path: path.clone(), database };
        Ok(Self {
            path,
            writer: Clerk::start("adit-store", writer)?,
            reader: Clerk::start("adit-store-read", reader)?,
        })
    }

    /// As [`Self::open`], and waits so long for another process to let go of the directory: the one before, which drains.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn open_within(directory: &Path, patience: Duration) -> Result<Self, StoreError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::open(directory) {
                Err(StoreError::InUse(_)) if Instant::now() < deadline => sleep(AGAIN).await,
                outcome => return outcome,
            }
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = |reader: &mut Reader| {
            work(&mut reader.database).map_err(|error| Failure::from(error).of(&reader.path))
        };
        self.reader.ask(read).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.ask(|writer| work(writer).map_err(|failure| failure.of(writer.path()))).await
    }
}

impl Desk for Reader {}

impl Store for SqliteStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.to_owned();
        Box::pin(self.read(move |database| {
            let select = "SELECT key, value, created, modified FROM entries WHERE key = ?1";
            database.query_row(select, [key], entry).optional()
        }))
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing, StoreError>> {
        let prefix = prefix.to_owned();
        Box::pin(self.read(move |database| list(database, &prefix)))
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(self.write(move |writer| writer.commit(&transaction)))
    }

    fn watch(
        &self,
        prefix: &str,
        since: Revision,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Committed>, StoreError>> {
        let prefix = prefix.to_owned();
        Box::pin(self.write(move |writer| writer.watch(&prefix, since)))
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        Box::pin(self.write(move |writer| writer.grant(ttl)))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |writer| writer.keep_alive(lease)))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |writer| writer.revoke(lease)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.reader.close().await;
            self.writer.close().await;
        })
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        // A thread of its own: reads go on meanwhile.
        let (from, to) = (self.path.clone(), to.to_owned());
        Box::pin(async move {
            let copier = Clerk::start("adit-backup", Copier)?;
            copier.ask(move |_| copies::back_up(&from, &to)).await
        })
    }
}

struct Copier;

impl Desk for Copier {}

/// One read transaction: the revision and the entries are of the same moment.
fn list(database: &mut Connection, prefix: &str) -> rusqlite::Result<Listing> {
    let moment = database.transaction()?;
    let revision = moment.query_row("SELECT revision FROM state", [], |row| number(row, 0))?;
    let mut select =
        moment.prepare("SELECT key, value, created, modified FROM entries WHERE key >= ?1 ORDER BY key")?;
    let mut rows = select.query(params![prefix])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let entry = entry(row)?;
        // In the order of keys, those with a prefix stand together.
        if !entry.key.starts_with(prefix) {
            break;
        }
        entries.push(entry);
    }
    Ok(Listing { revision, entries })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { key: row.get(0)?, value: row.get(1)?, created: number(row, 2)?, modified: number(row, 3)? })
}

/// What the database counts is never negative.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_negative| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// The database counts to 2^63; so do we.
fn counted(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
