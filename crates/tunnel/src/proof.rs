//! Proof of a shared token, bound to one TLS channel, so that a self-signed certificate cannot be impersonated.
//!
//! Each side MACs what it says together with the channel's exported keying material (RFC 8446 §7.5, RFC 9266).
//! A man in the middle has two channels with two different exporters, so neither proof is worth anything to him.

use std::sync::Arc;

use aws_lc_rs::hmac;

/// Length of the exported keying material, in bytes.
pub const EXPORTER_LEN: usize = 32;
/// The exporter's label.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-adit-session-v1";

/// Keying material both ends of one TLS channel, and nobody else, can compute.
pub type Exporter = [u8; EXPORTER_LEN];

/// Who makes a proof. Part of what is MACed, so that one side's proof cannot be sent back to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prover {
    /// The agent's hello.
    Agent,
    /// The gateway's welcome.
    Gateway,
    /// A request to the control port, by whoever knows the token.
    Caller,
    /// The gateway's answer to such a request.
    Answerer,
}

impl Prover {
    const fn context(self) -> &'static [u8] {
        match self {
            Self::Agent => b"adit/1 agent",
            Self::Gateway => b"adit/1 gateway",
            Self::Caller => b"adit/1 caller",
            Self::Answerer => b"adit/1 answerer",
        }
    }
}

/// A token, ready to make and check proofs. The token itself cannot be read back, and does not print.
#[derive(Clone)]
pub struct TokenKey(Arc<hmac::Key>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(<redacted>)")
    }
}

impl TokenKey {
    /// A key from the token's text.
    #[must_use]
    pub fn new(token: &[u8]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, token)))
    }

    fn context(&self, prover: Prover, exporter: &Exporter) -> hmac::Context {
        let mut mac = hmac::Context::with_key(&self.0);
        mac.update(prover.context());
        mac.update(exporter);
        mac
    }

    /// Proves knowledge of the token on this channel.
    ///
    /// # Panics
    /// Never: an HMAC-SHA256 tag is always 32 bytes long.
    #[must_use]
    pub fn prove(&self, prover: Prover, exporter: &Exporter, said: &[u8]) -> [u8; 32] {
        let mut mac = self.context(prover, exporter);
        mac.update(said);
        mac.sign().as_ref().try_into().expect("an HMAC-SHA256 tag has 32 bytes")
    }

    /// Whether a proof is right, in time that does not depend on where it is wrong.
    #[must_use]
    pub fn check(&self, prover: Prover, exporter: &Exporter, said: &[u8], proof: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.prove(prover, exporter, said), proof).is_ok()
    }

    /// Whether a presented token is this one, in time that depends on neither.
    #[must_use]
    pub fn is_token(&self, presented: &[u8]) -> bool {
        const NONE: Exporter = [0; EXPORTER_LEN];
        self.check(Prover::Caller, &NONE, b"", &Self::new(presented).prove(Prover::Caller, &NONE, b""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_only_for_its_token_channel_prover_and_words() {
        let key = TokenKey::new(b"secret");
        let proof = key.prove(Prover::Agent, &[1; 32], b"hello");
        assert!(key.check(Prover::Agent, &[1; 32], b"hello", &proof));
        assert!(!key.check(Prover::Agent, &[2; 32], b"hello", &proof));
        assert!(!key.check(Prover::Gateway, &[1; 32], b"hello", &proof));
        assert!(!key.check(Prover::Agent, &[1; 32], b"hullo", &proof));
        assert!(!TokenKey::new(b"Secret").check(Prover::Agent, &[1; 32], b"hello", &proof));
        assert!(!key.check(Prover::Agent, &[1; 32], b"hello", &proof[..31]));
    }

    #[test]
    fn a_token_is_recognised_and_never_printed() {
        let key = TokenKey::new(b"secret");
        assert!(key.is_token(b"secret"));
        assert!(!key.is_token(b"secret2"));
        assert!(!key.is_token(b""));
        assert_eq!(format!("{key:?}"), "TokenKey(<redacted>)");
    }
}
