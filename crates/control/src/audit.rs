//! Who changed what, from where and when, with what was there before and after.
//!
//! A record is written in the transaction of its change, so there is none without the other. Secrets are no part of
//! resources, so none can get here; what is said of a secret or a certificate is its id or serial number. The log is
//! bounded: the oldest records go, and how many went is known.

use std::collections::VecDeque;
use std::net::SocketAddr;

use adit_proto::name::Name;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::changes::ChangeError;
use crate::changes::kept::{self, Turn};
use crate::model::moment::as_text;
use crate::model::{Kind, NameText, Timestamp};
use crate::store::{Store, Write};

/// Records that are kept.
pub const MAX_RECORDS: u64 = 100_000;
/// Bytes of one record at most; of more, what was before and after is left out.
const MAX_RECORD: usize = 32 << 10;
/// Records that are read at once: a power of ten, so that their keys have a prefix of their own.
const BLOCK: u64 = 1000;
/// Digits that tell the records of a block apart.
const BLOCK_DIGITS: usize = 3;

/// Who makes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `identity:alice`, `token:ops`, or `local` for the process itself.
    pub name: String,
    /// Where from.
    pub address: Option<SocketAddr>,
}

impl Actor {
    /// The process itself.
    #[must_use]
    pub fn local() -> Self {
        Self { name: "local".to_owned(), address: None }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditAction {
    /// A resource was created.
    Create,
    /// A resource was changed.
    Update,
    /// A resource was deleted.
    Delete,
    /// An identity was invited to get a certificate.
    Invite,
    /// An invitation was used.
    Enroll,
    /// A certificate followed another.
    Renew,
    /// A certificate was revoked.
    RevokeCredential,
    /// A token got a secret.
    IssueSecret,
    /// A token got a new secret beside the old one.
    RotateSecret,
    /// A secret was revoked.
    RevokeSecret,
    /// The whole state was copied, with its secrets.
    Backup,
}

impl AuditAction {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Invite => "invite",
            Self::Enroll => "enroll",
            Self::Renew => "renew",
            Self::RevokeCredential => "revoke-credential",
            Self::IssueSecret => "issue-secret",
            Self::RotateSecret => "rotate-secret",
            Self::RevokeSecret => "revoke-secret",
            Self::Backup => "backup",
        }
    }
}

/// One change to one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// Counts records; a later one is higher.
    pub seq: u64,
    /// When.
    #[serde(with = "as_text")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who: `identity:alice`, `token:ops`, `local`.
    pub actor: String,
    /// Where from, if from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What was done.
    pub action: AuditAction,
    /// To what kind of resource; a backup is about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// To which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NameText>)]
    pub name: Option<Name>,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub before: Option<Value>,
    /// What was there after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub after: Option<Value>,
}

/// A record that is being made.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) action: AuditAction,
    pub(crate) about: Option<(Kind, Name)>,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// The writes of these records, with those that make room for them; `turn` is moved on.
///
/// # Errors
/// A record cannot be written as JSON.
pub(crate) fn writes(
    entries: Vec<Entry>,
    actor: &Actor,
    now: Timestamp,
    turn: &mut Turn,
) -> Result<Vec<Write>, ChangeError> {
    let mut writes = Vec::with_capacity(entries.len());
    for Entry { action, about, before, after } in entries {
        let (kind, name) = about.unzip();
        let seq = turn.audit_next;
        turn.audit_next += 1;
        let record = AuditRecord {
            seq,
            at: now,
            actor: actor.name.clone(),
            address: actor.address.map(|address| address.to_string()),
            action,
            kind,
            name,
            before,
            after,
        };
        let write = kept::put(kept::audit_key(seq), &record)?;
        let is_long = matches!(&write, Write::Put { value, .. } if value.len() > MAX_RECORD);
        writes.push(if is_long { kept::put(kept::audit_key(seq), &shortened(record))? } else { write });
    }
    // What this very transaction writes is kept, however much it is: a key may be written once.
    let own = turn.audit_next - writes.len() as u64;
    let first = turn.audit_next.saturating_sub(MAX_RECORDS).min(own);
    let old = turn.audit_first..first.max(turn.audit_first);
    writes.extend(old.map(|seq| Write::Delete { key: kept::audit_key(seq) }));
    turn.audit_first = turn.audit_first.max(first);
    Ok(writes)
}

/// Without what was before and after: a log of large resources must not fill the disk.
fn shortened(record: AuditRecord) -> AuditRecord {
    let short = |value: Value| {
        let length = value.to_string().len();
        json!({ "left_out": format!("{length} bytes: a record takes {MAX_RECORD} at most") })
    };
    AuditRecord { before: record.before.map(short), after: record.after.map(short), ..record }
}

/// Which records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Those that follow this one in the order that is asked for.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
    /// The newest first; else the oldest.
    pub newest_first: bool,
    /// About this kind of resource.
    pub kind: Option<Kind>,
    /// About this one.
    pub name: Option<Name>,
    /// By this actor.
    pub actor: Option<String>,
}

/// Some records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The records, in the order that was asked for.
    pub records: Vec<AuditRecord>,
    /// What to ask for records after, if there may be more.
    pub next: Option<u64>,
    /// How many were dropped for newer ones, since ever.
    pub dropped: u64,
}

impl AuditQuery {
    fn wants(&self, record: &AuditRecord) -> bool {
        self.kind.is_none_or(|kind| record.kind == Some(kind))
            && self.name.as_ref().is_none_or(|name| record.name.as_ref() == Some(name))
            && self.actor.as_ref().is_none_or(|actor| record.actor == *actor)
    }
}

/// Reads records. Cancel safe.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn query(
    store: &dyn Store,
    turn: Turn,
    query: &AuditQuery,
) -> Result<AuditPage, ChangeError> {
    let mut page = AuditPage { records: Vec::new(), next: None, dropped: turn.audit_first };
    let limit = query.limit.max(1);
    let (mut low, mut high) = (turn.audit_first, turn.audit_next);
    match query.after {
        Some(after) if query.newest_first => high = high.min(after),
        Some(after) => low = low.max(after.saturating_add(1)),
        None => {}
    }
    while low < high {
        let number = if query.newest_first { high - 1 } else { low };
        let block = number / BLOCK;
        let mut records = read(store, number).await?;
        while let Some(record) = if query.newest_first { records.pop_back() } else { records.pop_front() } {
            if !(low..high).contains(&record.seq) || !query.wants(&record) {
                continue;
            }
            if page.records.len() == limit {
                page.next = page.records.last().map(|last: &AuditRecord| last.seq);
                return Ok(page);
            }
            page.records.push(record);
        }
        if query.newest_first {
            high = block * BLOCK;
        } else {
            low = (block + 1) * BLOCK;
        }
    }
    Ok(page)
}

/// The records of the block that this one is in, oldest first.
async fn read(store: &dyn Store, number: u64) -> Result<VecDeque<AuditRecord>, ChangeError> {
    let mut prefix = kept::audit_key(number);
    prefix.truncate(prefix.len() - BLOCK_DIGITS);
    let listing = store.list(&prefix).await?;
    listing.entries.iter().map(|entry| kept::read(&entry.key, &entry.value)).collect()
}
