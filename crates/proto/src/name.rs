//! Names of identities, services and the other resources: kept as written, compared without case or trailing dot.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::MAX_NAME;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing there, or nothing but a dot.
    #[error("a name must not be empty")]
    Empty,
    /// Over [`MAX_NAME`] bytes.
    #[error("a name must not be longer than {MAX_NAME} bytes")]
    TooLong,
    /// It begins with what stands in front of names in roles, or with a dot or hyphen.
    #[error("a name must begin with a letter, a digit or `_`, not with `{0}`")]
    First(char),
    /// A character that names do not have.
    #[error("`{0}` is not allowed in a name; letters, digits, `-`, `_`, `.`, `+` and `@` are")]
    Character(char),
}

/// The name of an identity, a service, a policy, an attribute…
///
/// Two names are the same if they differ only in the case of letters or in one dot at the end, as host names are
/// (RFC 4343, RFC 1034 §3.1). What was written is what is shown.
#[derive(Clone)]
pub struct Name {
    shown: Arc<str>,
    folded: Arc<str>,
}

impl Name {
    /// As it was written, without a dot at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// In the form that is compared: lower case. Keys in the store are made of it.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > MAX_NAME {
            return Err(BadName::TooLong);
        }
        let first = text.chars().next().ok_or(BadName::Empty)?;
        if let Some(other) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.+@".contains(*c))) {
            return Err(BadName::Character(other));
        }
        if !(first.is_ascii_alphanumeric() || first == '_') {
            return Err(BadName::First(first));
        }
        let shown: Arc<str> = text.into();
        let folded = if text.bytes().any(|b| b.is_ascii_uppercase()) {
            text.to_ascii_lowercase().into()
        } else {
            Arc::clone(&shown)
        };
        Ok(Self { shown, folded })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.shown)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.folded == other.folded
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded.cmp(&other.folded)
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded.hash(state);
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.folded == *other
    }
}

/// So that maps can be asked with text that is folded already.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.folded
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("`{text}`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn names_compare_without_case_or_trailing_dot_and_show_what_was_written() {
        assert_eq!(name("kubeA.Reflect.svc."), name("kubea.reflect.SVC"));
        assert_eq!(name("kubeA.reflect.svc.").to_string(), "kubeA.reflect.svc");
        let names: HashSet<Name> = [name("A"), name("a"), name("b")].into();
        assert_eq!(names.len(), 2);
        assert!(names.contains("b"));
        assert!(name("a-b.c_d+e@f").as_str().contains('-'));
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (text, error) in [
            ("", BadName::Empty),
            (".", BadName::Empty),
            ("#all", BadName::Character('#')),
            ("@x", BadName::First('@')),
            ("-x", BadName::First('-')),
            ("a b", BadName::Character(' ')),
            ("a/b", BadName::Character('/')),
            ("ä", BadName::Character('ä')),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text:?}");
        }
        assert_eq!("a".repeat(254).parse::<Name>(), Err(BadName::TooLong));
        let error = serde_json::from_str::<Name>("\"a b\"").unwrap_err().to_string();
        assert!(error.contains("`a b`"), "{error}");
    }
}
