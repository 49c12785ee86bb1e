//! Why a change was refused, in the form in which the admin interface says it.

use std::fmt;

use adit_proto::reason::Fault;

use crate::model::Kind;
use crate::store::{Revision, StoreError};

/// A no to a change or a question: what, whose move it is, and what that move could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeError {
    /// A word for programs: `not_found`, `exists`, `in_use`…
    pub code: &'static str,
    /// The HTTP status it is answered with.
    pub status: u16,
    /// What is wrong, for people.
    pub message: String,
    /// Whose move it is.
    pub fault: Fault,
    /// What to do.
    pub next: String,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.next)
    }
}

impl std::error::Error for ChangeError {}

impl ChangeError {
    /// A mistake of whoever asked.
    #[must_use]
    pub fn client(
        code: &'static str,
        status: u16,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { code, status, message: message.into(), fault: Fault::Client, next: next.into() }
    }

    /// A resource that is not as it has to be.
    pub(super) fn invalid(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::client("invalid", 422, message, next)
    }

    /// There is no such resource.
    #[must_use]
    pub fn not_found(kind: Kind, name: impl fmt::Display) -> Self {
        Self::client(
            "not_found",
            404,
            format!("there is no {kind} `{name}`"),
            format!("list what there is: GET /v1/{}", kind.plural()),
        )
    }

    pub(super) fn exists(kind: Kind, name: impl fmt::Display) -> Self {
        let article = if kind == Kind::Identity { "an" } else { "a" };
        Self::client(
            "exists",
            409,
            format!("there is {article} {kind} `{name}` already"),
            "choose another name, or replace it with PUT",
        )
    }

    pub(super) fn changed(kind: Kind, name: impl fmt::Display, expected: Revision, found: Revision) -> Self {
        Self::client(
            "changed_meanwhile",
            412,
            format!("the {kind} `{name}` is at revision {found}, not at {expected}"),
            "read it again, and make the change from there",
        )
    }

    pub(super) fn busy() -> Self {
        Self {
            code: "busy",
            status: 503,
            message: "others change resources so fast that this change found no moment".to_owned(),
            fault: Fault::Gateway,
            next: "try again".to_owned(),
        }
    }

    /// The store cannot be written or read now.
    pub(super) fn unavailable(why: impl fmt::Display) -> Self {
        Self {
            code: "unavailable",
            status: 503,
            message: format!("the store does not answer: {why}"),
            fault: Fault::Gateway,
            next: "what was decided stays in force; look at the gateway's log and its disk, then try again"
                .to_owned(),
        }
    }

    pub(super) fn damaged(key: &str, why: impl fmt::Display) -> Self {
        Self {
            code: "damaged",
            status: 500,
            message: format!("what the store holds under {key} cannot be understood: {why}"),
            fault: Fault::Gateway,
            next:
                "it was written by a newer release, or from outside; start that release, or restore a backup"
                    .to_owned(),
        }
    }
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::unavailable(text)
    }
}
