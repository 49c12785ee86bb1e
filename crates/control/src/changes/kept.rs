//! How things are kept in the store: keys, and values in JSON.

use adit_proto::name::Name;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::ChangeError;
use crate::model::{Credential, Kind, Resource, Timestamp, TokenSecret};
use crate::store::Write;

/// Written by every transaction, and compared by it: who decided on an older state decides again. It is the last
/// write of its transaction, so that a watch shows where that ends.
pub(crate) const TURN: &str = "/changes";
/// In front of audit records.
pub(crate) const AUDIT: &str = "/audit/";
const CREDENTIALS: &str = "credentials";
const SECRETS: &str = "token-secrets";
const ENROLLMENTS: &str = "enrollments";

/// What is under [`TURN`]: which audit records there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// The oldest that is kept; as many were dropped before it.
    pub(crate) audit_first: u64,
    /// The number of the next one.
    pub(crate) audit_next: u64,
}

/// A resource in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept<T> {
    /// Names this very resource, also when another one of its name follows it.
    pub(super) id: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) spec: T,
}

/// Somebody may get a certificate, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enrollment {
    pub(super) identity: Name,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// What a key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Resource(Kind, &'a str),
    /// Of an identity, with the serial number.
    Credential(&'a str, &'a str),
    /// Of a token, with the secret's id.
    Secret(&'a str, &'a str),
    Enrollment(&'a str),
    Turn,
    Other,
}

impl<'a> Key<'a> {
    pub(super) fn of(key: &'a str) -> Self {
        if key == TURN {
            return Self::Turn;
        }
        let Some((prefix, rest)) = key.strip_prefix('/').and_then(|key| key.split_once('/')) else {
            return Self::Other;
        };
        let two = || rest.split_once('/');
        match prefix {
            CREDENTIALS => two().map_or(Self::Other, |(identity, serial)| Self::Credential(identity, serial)),
            SECRETS => two().map_or(Self::Other, |(token, id)| Self::Secret(token, id)),
            ENROLLMENTS => Self::Enrollment(rest),
            _ => Kind::ALL
                .into_iter()
                .find(|kind| kind.plural() == prefix)
                .map_or(Self::Other, |kind| Self::Resource(kind, rest)),
        }
    }
}

/// Every prefix that the state is read from.
pub(super) fn prefixes() -> impl Iterator<Item = String> {
    let words = Kind::ALL.into_iter().map(Kind::plural).chain([CREDENTIALS, SECRETS, ENROLLMENTS]);
    words.map(|word| format!("/{word}/"))
}

pub(super) fn resource_key(kind: Kind, name: &Name) -> String {
    format!("/{}/{}", kind.plural(), name.folded())
}

pub(super) fn credential_key(identity: &Name, serial: &str) -> String {
    format!("/{CREDENTIALS}/{}/{serial}", identity.folded())
}

pub(super) fn secret_key(token: &Name, id: &str) -> String {
    format!("/{SECRETS}/{}/{id}", token.folded())
}

pub(super) fn enrollment_key(jti: &str) -> String {
    format!("/{ENROLLMENTS}/{jti}")
}

pub(crate) fn audit_key(number: u64) -> String {
    format!("{AUDIT}{number:020}")
}

/// Sets a key to a value.
///
/// # Errors
/// The value cannot be written as JSON.
pub(crate) fn put(key: String, value: &impl Serialize) -> Result<Write, ChangeError> {
    let value = serde_json::to_vec(value).map_err(|error| ChangeError::damaged(&key, error))?;
    Ok(Write::Put { key, value, lease: None })
}

pub(super) const fn delete(key: String) -> Write {
    Write::Delete { key }
}

pub(crate) fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, ChangeError> {
    serde_json::from_slice(value).map_err(|error| ChangeError::damaged(key, error))
}

/// The write of a resource, without its kind: the key says that.
pub(super) fn put_resource(
    key: String,
    resource: &Resource,
    id: String,
    times: (Timestamp, Timestamp),
) -> Result<Write, ChangeError> {
    fn keep<T: Serialize>(
        key: String,
        id: String,
        times: (Timestamp, Timestamp),
        spec: &T,
    ) -> Result<Write, ChangeError> {
        put(key, &Kept { id, created_at: times.0, updated_at: times.1, spec })
    }
    match resource {
        Resource::Identity(it) => keep(key, id, times, it),
        Resource::Config(it) => keep(key, id, times, it),
        Resource::Service(it) => keep(key, id, times, it),
        Resource::ServicePolicy(it) => keep(key, id, times, it),
        Resource::Route(it) => keep(key, id, times, it),
        Resource::Token(it) => keep(key, id, times, it),
    }
}

/// Reads a resource of this kind.
pub(super) fn read_resource(kind: Kind, key: &str, value: &[u8]) -> Result<Kept<Resource>, ChangeError> {
    fn kept<T: DeserializeOwned>(
        key: &str,
        value: &[u8],
        make: fn(T) -> Resource,
    ) -> Result<Kept<Resource>, ChangeError> {
        let Kept { id, created_at, updated_at, spec } = read::<Kept<T>>(key, value)?;
        Ok(Kept { id, created_at, updated_at, spec: make(spec) })
    }
    match kind {
        Kind::Identity => kept(key, value, Resource::Identity),
        Kind::Config => kept(key, value, Resource::Config),
        Kind::Service => kept(key, value, Resource::Service),
        Kind::ServicePolicy => kept(key, value, Resource::ServicePolicy),
        Kind::Route => kept(key, value, Resource::Route),
        Kind::Token => kept(key, value, Resource::Token),
    }
}

pub(super) fn read_credential(key: &str, value: &[u8]) -> Result<Credential, ChangeError> {
    read(key, value)
}

pub(super) fn read_secret(key: &str, value: &[u8]) -> Result<TokenSecret, ChangeError> {
    read(key, value)
}
