//! Enrollment tokens: JSON Web Tokens that are good for one certificate each.
//!
//! Verifying one says that this authority signed it and that its time has not run out. That it was not used before
//! is for the store to say, in the transaction that lists the certificate.

use std::time::Duration;

use adit_proto::name::Name;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, AuthorityError};
use crate::model::Timestamp;

/// How long an enrollment may take unless something else is asked for.
pub const ENROLLMENT_LIFE: Duration = Duration::from_mins(180);
/// How far the clocks of gateways that share an authority may be apart, in seconds.
pub const SKEW: u64 = 60;
/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// The one method there is: a one-time token.
pub const METHOD: &str = "ott";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Where to enroll: the gateway's control port, `https://host:port`.
    pub iss: String,
    /// The identity.
    pub sub: String,
    /// Whom it is meant for: this authority's trust domain.
    pub aud: String,
    /// When it ends.
    pub exp: Timestamp,
    /// When it was made.
    pub iat: Timestamp,
    /// What makes it good for one time.
    pub jti: String,
    /// How to enroll: [`METHOD`].
    pub em: String,
    /// Further addresses of the gateway, like `iss`.
    #[serde(default)]
    pub ctrls: Vec<String>,
    /// SHA-256 of the last certificate of the chain that the control port serves, in hexadecimal.
    pub ca: String,
}

/// What an invitation is made from.
#[derive(Debug, Clone)]
pub struct Invite {
    /// The gateway's control port, `https://host:port`.
    pub issuer: String,
    /// Whom it is for.
    pub identity: Name,
    /// What makes it good for one time.
    pub jti: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Further addresses of the gateway.
    pub controllers: Vec<String>,
    /// [`fingerprint`](crate::authority::fingerprint) of the last certificate that the control port serves.
    pub pin: String,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrollmentError {
    /// No token at all, or one that says too little.
    #[error("it is no enrollment token")]
    Malformed,
    /// Longer than any that are made here.
    #[error("it is too long for an enrollment token")]
    TooLong,
    /// Signed in another way than ours are, or not at all.
    #[error("it is not signed with ES256")]
    Algorithm,
    /// By another authority, or by one whose key has changed.
    #[error("it was signed with a key that this gateway does not have; ask for a new one")]
    UnknownKey,
    /// Altered, or forged.
    #[error("its signature is wrong")]
    Signature,
    /// Its time has run out.
    #[error("it has expired; ask for a new one")]
    Expired,
    /// Made in the future.
    #[error("it is not valid yet; compare the clocks")]
    NotYet,
    /// Meant for somebody else.
    #[error("it is meant for another trust domain")]
    Audience,
    /// Of another gateway.
    #[error("it names another gateway as its issuer")]
    Issuer,
    /// Another method than one-time tokens.
    #[error("it asks for another method of enrollment than `{METHOD}`")]
    Method,
}

impl Authority {
    /// The audience of its tokens.
    #[must_use]
    pub fn audience(&self) -> String {
        format!("spiffe://{}/enrollment", self.trust_domain())
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`], which only a broken key brings about.
    pub fn invite(&self, invite: &Invite, now: Timestamp) -> Result<String, AuthorityError> {
        let claims = Claims {
            iss: invite.issuer.clone(),
            sub: invite.identity.as_str().to_owned(),
            aud: self.audience(),
            exp: invite.expires_at,
            iat: now,
            jti: invite.jti.clone(),
            em: METHOD.to_owned(),
            ctrls: invite.controllers.clone(),
            ca: invite.pin.clone(),
        };
        self.sign(&claims)
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, AuthorityError> {
        let issuing = self.issuing();
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(issuing.key_id.clone());
        Ok(jsonwebtoken::encode(&header, claims, &issuing.signs)?)
    }

    /// Checks a token. `issuer` is the one that tokens of this gateway name.
    ///
    /// # Errors
    /// [`EnrollmentError`] says what is wrong with it; all of it is the fault of whoever presents it.
    pub fn verify(&self, jwt: &str, issuer: &str, now: Timestamp) -> Result<Claims, EnrollmentError> {
        if jwt.len() > MAX_TOKEN {
            return Err(EnrollmentError::TooLong);
        }
        // The library knows no algorithm `none`, and takes the key of one family for no other; the header says which
        // key, and nothing else in it is looked at.
        let header = jsonwebtoken::decode_header(jwt).map_err(|_error| undecoded(jwt))?;
        if header.alg != Algorithm::ES256 {
            return Err(EnrollmentError::Algorithm);
        }
        if header.crit.is_some() {
            return Err(EnrollmentError::Malformed);
        }
        let issuing = self.issuing();
        if header.kid.as_deref() != Some(&issuing.key_id) {
            return Err(EnrollmentError::UnknownKey);
        }
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[self.audience()]);
        // By our own clock, below.
        rules.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(jwt, &issuing.verifies, &rules)
            .map_err(|error| refused(error.kind()))?
            .claims;
        if claims.exp.saturating_add(SKEW) <= now {
            return Err(EnrollmentError::Expired);
        }
        if claims.iat > now.saturating_add(SKEW) {
            return Err(EnrollmentError::NotYet);
        }
        if claims.em != METHOD {
            return Err(EnrollmentError::Method);
        }
        if claims.jti.is_empty() || claims.sub.parse::<Name>().is_err() {
            return Err(EnrollmentError::Malformed);
        }
        Ok(claims)
    }
}

/// A header that cannot be read is most often one of an algorithm that the library does not have.
fn undecoded(jwt: &str) -> EnrollmentError {
    if jwt.split('.').count() == 3 { EnrollmentError::Algorithm } else { EnrollmentError::Malformed }
}

fn refused(kind: &jsonwebtoken::errors::ErrorKind) -> EnrollmentError {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidSignature => EnrollmentError::Signature,
        ErrorKind::InvalidAudience => EnrollmentError::Audience,
        ErrorKind::InvalidIssuer => EnrollmentError::Issuer,
        ErrorKind::InvalidAlgorithm => EnrollmentError::Algorithm,
        _ => EnrollmentError::Malformed,
    }
}

#[cfg(test)]
mod tests;
