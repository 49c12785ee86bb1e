//! All resources at once, with what belongs to them and is not written by operators.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use adit_proto::name::Name;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::{Identity, Route, Service, ServiceConfig, ServicePolicy, Timestamp, Token};

/// What a snapshot is compiled from. A copy shares the resources, and so does a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// Identities.
    pub identities: BTreeMap<Name, Arc<Identity>>,
    /// Configs.
    pub configs: BTreeMap<Name, Arc<ServiceConfig>>,
    /// Services.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// Policies.
    pub policies: BTreeMap<Name, Arc<ServicePolicy>>,
    /// Routes.
    pub routes: BTreeMap<Name, Arc<Route>>,
    /// Tokens.
    pub tokens: BTreeMap<Name, Arc<Token>>,
    /// The certificates that identities hold.
    pub credentials: BTreeMap<Name, Arc<Vec<Credential>>>,
    /// The secrets of tokens: one, or the old and the new one while it is rotated.
    pub secrets: BTreeMap<Name, Arc<Vec<TokenSecret>>>,
}

/// A certificate that was issued to an identity. One that is not listed opens nothing, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its serial number: lower-case hexadecimal digits.
    pub serial: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// The serial numbers of those that it was renewed from, the first one first, as far as they were still listed then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renewed_from: Vec<String>,
}

impl Credential {
    /// Whether it is this certificate, or was renewed from it.
    #[must_use]
    pub fn rests_on(&self, serial: &str) -> bool {
        self.serial == serial || self.renewed_from.iter().any(|before| before == serial)
    }
}

/// One secret of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSecret {
    /// Tells it from the token's other one.
    pub id: String,
    /// The secret itself.
    pub secret: SecretText,
    /// When it was made.
    pub issued_at: Timestamp,
    /// When it ends; `None`: with its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// Text that is not printed, and wiped when it is dropped. It is written out only into the store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Takes it in.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret, for whoever has to use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
