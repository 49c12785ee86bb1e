//! The one writer: transactions, the past that watches are told, leases.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use tokio::sync::mpsc;

use super::failure::Failure;
use super::files::{FileId, Lock};
use super::{counted, number, schema};
use crate::store::clerk::Desk;
use crate::store::leases::Leases;
use crate::store::watchers::Watchers;
use crate::store::{Committed, Event, Expect, History, LeaseId, Revision, StoreError, Transaction, Write};

/// A lease that cannot be ended now, because the disk is full for example, is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: FileId,
    database: Connection,
    keep: History,
    past: Past,
    watchers: Watchers,
    leases: Leases,
    // After the connection: it is let go of when nothing uses the files any more.
    _lock: Lock,
}

/// The transactions that the database tells of, with the bytes of each.
#[derive(Debug, Default)]
struct Past {
    sizes: VecDeque<(Revision, usize)>,
    bytes: usize,
    /// What everybody who watches was told last.
    told: Revision,
}

impl Writer {
    pub(super) fn open(path: &Path, lock: Lock, keep: History) -> Result<Self, Failure> {
        let database = schema::open(path)?;
        let file = FileId::of(path)?;
        let past = Past::load(&database)?;
        let mut leases = Leases::default();
        let now = Instant::now();
        for (id, ttl) in stored_leases(&database)? {
            leases.begin(id, ttl, now);
        }
        let watchers = Watchers::default();
        Ok(Self { path: path.to_owned(), file, database, keep, past, watchers, leases, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn commit(&mut self, transaction: &Transaction) -> Result<Revision, Failure> {
        transaction.check()?;
        for write in &transaction.writes {
            if let Write::Put { lease: Some(lease), .. } = write {
                // What was expected comes first, but a lease that is gone does not come back.
                self.leases
                    .check(*lease)
                    .or_else(|gone| self.compare(&transaction.expect).and(Err(gone.into())))?;
            }
        }
        self.apply(transaction, None)
    }

    fn compare(&self, expect: &[Expect]) -> Result<(), Failure> {
        compare(&self.database, expect)
    }

    pub(super) fn watch(
        &mut self,
        prefix: &str,
        since: Revision,
    ) -> Result<mpsc::Receiver<Committed>, Failure> {
        if since < self.past.compacted() || since > self.past.told {
            return Err(StoreError::Compacted(since).into());
        }
        let history = history(&self.database, since)?;
        Ok(self.watchers.add(prefix, history))
    }

    pub(super) fn grant(&mut self, ttl: Duration) -> Result<LeaseId, Failure> {
        self.file.check(&self.path)?;
        let milliseconds = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        self.database.execute("INSERT INTO leases (ttl_ms) VALUES (?1)", [milliseconds])?;
        let id = LeaseId(self.database.last_insert_rowid().unsigned_abs());
        self.leases.begin(id, ttl, Instant::now());
        Ok(id)
    }

    pub(super) fn keep_alive(&mut self, lease: LeaseId) -> Result<(), Failure> {
        Ok(self.leases.keep_alive(lease, Instant::now())?)
    }

    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<(), Failure> {
        self.leases.check(lease)?;
        self.end_lease(lease)
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<(), Failure> {
        let keys: Vec<String> = self
            .database
            .prepare("SELECT key FROM entries WHERE lease = ?1")?
            .query_map([counted(lease.0)], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let writes = keys.into_iter().map(|key| Write::Delete { key }).collect();
        self.apply(&Transaction { expect: Vec::new(), writes }, Some(lease))?;
        self.leases.end(lease);
        Ok(())
    }

    /// Does all of it or nothing, and then tells who watches.
    fn apply(&mut self, transaction: &Transaction, ends: Option<LeaseId>) -> Result<Revision, Failure> {
        let still_there = || self.file.check(&self.path);
        match write(&mut self.database, transaction, ends, &self.past, self.keep, still_there) {
            Ok(None) => Ok(self.past.told),
            Ok(Some(committed)) => {
                self.past.add(&committed, self.keep);
                self.watchers.tell(&committed);
                Ok(committed.revision)
            }
            Err(failure) => {
                self.catch_up();
                Err(failure)
            }
        }
    }

    /// A commit that failed has left nothing, as far as SQLite says. If it is there nevertheless, whoever watches lists
    /// again rather than misses it.
    fn catch_up(&mut self) {
        let revision = self.database.query_row("SELECT revision FROM state", [], |row| number(row, 0));
        if revision.is_ok_and(|revision| revision != self.past.told)
            && let Ok(past) = Past::load(&self.database)
        {
            self.past = past;
            self.watchers.let_go();
        }
    }
}

impl Desk for Writer {
    fn look(&mut self) -> Option<Instant> {
        let now = Instant::now();
        for lease in self.leases.due(now) {
            if let Err(failure) = self.end_lease(lease) {
                tracing::warn!(error = ?failure, "a lease could not be ended; it is tried again");
                self.leases.put_off(lease, now + AGAIN);
            }
        }
        self.leases.next()
    }
}

impl Past {
    fn load(database: &Connection) -> rusqlite::Result<Self> {
        let told = database.query_row("SELECT revision FROM state", [], |row| number(row, 0))?;
        let mut select = database.prepare(
            "SELECT revision, sum(length(CAST(key AS BLOB)) + ifnull(length(value), 0)) FROM changes GROUP BY revision",
        )?;
        let size = |row: &rusqlite::Row<'_>| {
            Ok((number(row, 0)?, usize::try_from(number(row, 1)?).unwrap_or(usize::MAX)))
        };
        let sizes: VecDeque<_> = select.query_map([], size)?.collect::<Result<_, _>>()?;
        let bytes = sizes.iter().map(|(_, size)| size).sum();
        Ok(Self { sizes, bytes, told })
    }

    /// The last transaction that is not known any more.
    fn compacted(&self) -> Revision {
        self.sizes.front().map_or(self.told, |(revision, _)| revision - 1)
    }

    /// How many of the oldest have to go when a transaction of this size comes.
    fn surplus(&self, size: usize, keep: History) -> usize {
        let mut bytes = self.bytes + size;
        let mut left = self.sizes.len() + 1;
        let over = self.sizes.iter().take_while(|(_, size)| {
            let is_over = left > keep.transactions || bytes > keep.bytes;
            bytes -= size;
            left -= 1;
            is_over
        });
        over.count()
    }

    fn add(&mut self, committed: &Committed, keep: History) {
        let size = committed.size();
        for (_, old) in self.sizes.drain(..self.surplus(size, keep)).collect::<Vec<_>>() {
            self.bytes -= old;
        }
        self.sizes.push_back((committed.revision, size));
        self.bytes += size;
        self.told = committed.revision;
    }
}

fn write(
    database: &mut Connection,
    transaction: &Transaction,
    ends: Option<LeaseId>,
    past: &Past,
    keep: History,
    still_there: impl FnOnce() -> Result<(), StoreError>,
) -> Result<Option<Committed>, Failure> {
    let whole = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    compare(&whole, &transaction.expect)?;
    if let Some(lease) = ends {
        whole.execute("DELETE FROM leases WHERE id = ?1", [counted(lease.0)])?;
    }
    let revision = past.told + 1;
    let events = write_entries(&whole, &transaction.writes, revision)?;
    if events.is_empty() {
        if ends.is_some() {
            whole.commit()?;
        }
        return Ok(None);
    }
    let committed = Committed { revision, events };
    write_changes(&whole, &committed)?;
    if let Some((last, _)) =
        past.surplus(committed.size(), keep).checked_sub(1).and_then(|last| past.sizes.get(last))
    {
        whole.execute("DELETE FROM changes WHERE revision <= ?1", [counted(*last)])?;
    }
    let moved =
        whole.execute("UPDATE state SET revision = ?1 WHERE revision = ?1 - 1", [counted(revision)])?;
    if moved != 1 {
        let other = "another program has written to the database; restart the gateway";
        return Err(StoreError::Unavailable(other.into()).into());
    }
    still_there()?;
    whole.commit()?;
    Ok(Some(committed))
}

fn compare(database: &Connection, expect: &[Expect]) -> Result<(), Failure> {
    let mut select = database.prepare("SELECT modified FROM entries WHERE key = ?1")?;
    for expect in expect {
        expect.check(select.query_row([expect.key()], |row| number(row, 0)).optional()?)?;
    }
    Ok(())
}

fn write_entries(
    database: &Connection,
    writes: &[Write],
    revision: Revision,
) -> rusqlite::Result<Vec<Event>> {
    let mut put = database.prepare(
        "INSERT INTO entries (key, value, created, modified, lease) VALUES (?1, ?2, ?3, ?3, ?4)
         ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3, lease = ?4",
    )?;
    let mut delete = database.prepare("DELETE FROM entries WHERE key = ?1")?;
    let mut events = Vec::new();
    for write in writes {
        match write {
            Write::Put { key, value, lease } => {
                put.execute(params![key, value, counted(revision), lease.map(|lease| counted(lease.0))])?;
                events.push(Event { key: key.clone(), value: Some(value.clone()) });
            }
            Write::Delete { key } if delete.execute([key])? > 0 => {
                events.push(Event { key: key.clone(), value: None })
            }
            Write::Delete { .. } => {}
        }
    }
    Ok(events)
}

fn write_changes(database: &Connection, committed: &Committed) -> rusqlite::Result<()> {
    let mut insert =
        database.prepare("INSERT INTO changes (revision, place, key, value) VALUES (?1, ?2, ?3, ?4)")?;
    for (place, event) in (0_i64..).zip(&committed.events) {
        insert.execute(params![counted(committed.revision), place, event.key, event.value])?;
    }
    Ok(())
}

fn history(database: &Connection, since: Revision) -> rusqlite::Result<Vec<Committed>> {
    let mut select = database
        .prepare("SELECT revision, key, value FROM changes WHERE revision > ?1 ORDER BY revision, place")?;
    let mut rows = select.query([counted(since)])?;
    let mut history: Vec<Committed> = Vec::new();
    while let Some(row) = rows.next()? {
        let revision = number(row, 0)?;
        let event = Event { key: row.get(1)?, value: row.get(2)? };
        match history.last_mut().filter(|last| last.revision == revision) {
            Some(last) => last.events.push(event),
            None => history.push(Committed { revision, events: vec![event] }),
        }
    }
    Ok(history)
}

fn stored_leases(database: &Connection) -> rusqlite::Result<Vec<(LeaseId, Duration)>> {
    let lease =
        |row: &rusqlite::Row<'_>| Ok((LeaseId(number(row, 0)?), Duration::from_millis(number(row, 1)?)));
    database.prepare("SELECT id, ttl_ms FROM leases")?.query_map([], lease)?.collect()
}
