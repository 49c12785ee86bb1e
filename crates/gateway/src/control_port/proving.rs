//! How a caller of the HTTP face shows who it is: a token, a proof of one, or a certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use adit_control::authority::PeerCertificate;
use adit_control::{Snapshot, Who};
use adit_proto::reason::Reason;
use adit_tunnel::proof::{Prover, TokenKey};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method};

use super::keys::NamedKey;
use super::{Caller, ControlPort};
use crate::grants::now;

/// Who a caller has shown to be.
#[derive(Debug, Clone)]
pub(crate) struct Proven {
    pub(crate) who: Who,
    /// The key of the proof it gave: it expects one back.
    pub(crate) key: Option<Arc<NamedKey>>,
    /// The certificate it showed instead.
    pub(crate) certificate: Option<PeerCertificate>,
}

impl Proven {
    /// Whether it may (still) change resources. Any good secret of its token will do: the one that was shown may have
    /// been rotated out meanwhile.
    pub(crate) fn is_admin(&self, snapshot: &Snapshot) -> bool {
        let now = now();
        let stands = match &self.certificate {
            Some(shown) => snapshot.credential(&shown.identity, &shown.serial, now).is_some(),
            None => snapshot.tokens().iter().any(|token| {
                self.who.name() == Some(&token.name) && token.not_after.is_none_or(|end| now < end)
            }),
        };
        stands && snapshot.is_admin(&self.who)
    }
}

impl Caller {
    /// Where it connected from.
    pub(crate) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The certificate that TLS has verified.
    pub(crate) const fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_ref()
    }

    /// The gateway's proof of what it answers, in hexadecimal.
    pub(crate) fn proof_of(&self, key: &NamedKey, answer: &[u8]) -> String {
        super::http::hex(&key.key.prove(Prover::Answerer, &self.exporter, answer))
    }
}

impl ControlPort {
    /// Finds out who asks. A failure is counted and held against the address; asking without credentials is how one
    /// finds out that they are needed, and is not.
    ///
    /// # Errors
    /// [`Reason::Unauthorized`], [`Reason::Revoked`] for a certificate that is not good any more, or
    /// [`Reason::RateLimited`] after too many failures.
    pub(super) fn prove(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Proven, Reason> {
        let presented = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let snapshot = self.snapshots.current();
        if presented.is_empty()
            && let Some(shown) = &caller.certificate
        {
            let Some(name) = snapshot.credential(&shown.identity, &shown.serial, now()) else {
                self.observe.auth_failed(Reason::Revoked);
                return Err(Reason::Revoked);
            };
            caller.proved();
            let who = Who::Identity(name.clone());
            return Ok(Proven { who, key: None, certificate: Some(shown.clone()) });
        }
        let (found, is_proof) = if let Some(bearer) = scheme(presented, b"bearer ") {
            (self.keys.find(&snapshot, |key| key.is_token(bearer)), false)
        } else {
            let said = format!("{method} {path}");
            let proof = scheme(presented, b"adit-proof ").and_then(unhex);
            let is_it = |key: &TokenKey, proof: &[u8]| {
                key.check(Prover::Caller, &caller.exporter, said.as_bytes(), proof)
            };
            (proof.and_then(|proof| self.keys.find(&snapshot, |key| is_it(key, &proof))), true)
        };
        if let Some(found) = found {
            caller.proved();
            let who = found.who.clone();
            return Ok(Proven { who, key: is_proof.then_some(found), certificate: None });
        }
        if presented.is_empty() {
            return Err(Reason::Unauthorized);
        }
        self.held_against(caller)?;
        Err(Reason::Unauthorized)
    }

    /// Counts something that was shown and is not good, and holds it against the address.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] if the address has had its failures: it hears no more than that.
    pub(super) fn held_against(&self, caller: &Caller) -> Result<(), Reason> {
        if self.penalties.is_barred(caller.peer.ip()) {
            self.failed(caller.peer, Reason::RateLimited);
            return Err(Reason::RateLimited);
        }
        self.failed(caller.peer, Reason::Unauthorized);
        Ok(())
    }
}

/// What follows an authentication scheme; schemes compare without case (RFC 9110 §11.1).
fn scheme<'a>(presented: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = presented.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
