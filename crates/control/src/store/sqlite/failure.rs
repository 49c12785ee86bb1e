//! What can go wrong with the database, in words for whoever runs the gateway.

use std::path::Path;

use rusqlite::ErrorCode;

use super::StoreError;

/// Not told to anybody yet.
#[derive(Debug)]
pub(super) enum Failure {
    /// Has its words.
    Told(StoreError),
    /// The file is damaged: how.
    Damaged(String),
    /// SQLite's own.
    Database(rusqlite::Error),
}

impl Failure {
    /// In words, of a state that a gateway uses. Damage is no reason to try again, everything else may pass.
    pub(super) fn of(self, path: &Path) -> StoreError {
        match self {
            Self::Told(error) => error,
            Self::Damaged(how) => damaged(path, &how),
            Self::Database(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt) => damaged(path, &error.to_string()),
                Some(ErrorCode::NotADatabase) => foreign(path),
                _ => StoreError::Unavailable(Box::new(error)),
            },
        }
    }
}

impl Failure {
    /// In words, of a backup that was to be put back: damage is mended with another one.
    pub(super) fn of_backup(self, path: &Path) -> StoreError {
        let how = match self {
            Self::Damaged(how) => how,
            Self::Database(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                error.to_string()
            }
            other => return other.of(path),
        };
        let path = path.display();
        StoreError::Unusable(format!("this backup is damaged: {path} ({how}); take another one"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Told(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

pub(super) fn damaged(path: &Path, how: &str) -> StoreError {
    let path = path.display();
    StoreError::Unusable(format!(
        "{path} is damaged ({how}); stop the gateway and put a backup back: adit backup restore FILE --state-dir DIR"
    ))
}

pub(super) fn foreign(path: &Path) -> StoreError {
    let path = path.display();
    StoreError::Unusable(format!(
        "{path} is not a database of this program; it was left as it is: name another directory, or move the file away"
    ))
}

pub(super) fn newer(path: &Path, version: i64, known: usize) -> StoreError {
    let path = path.display();
    StoreError::Unusable(format!(
        "{path} was written by a newer release (format {version}, this one knows up to {known}); run that release, \
         or put a backup of this one back: adit backup restore FILE --state-dir DIR"
    ))
}
