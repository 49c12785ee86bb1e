//! The first two frames of a session: who the agent is and what it offers, and whether the gateway agrees.
//!
//! Both sides prove that they know the token without sending it: the agent's [`Hello`] and the gateway's
//! [`Welcome`] each carry a MAC over the other fields, keyed by the token and bound to this very TLS channel by
//! its exporter (RFC 8446 §7.5). What is MACed is what [`Hello::signed_part`] and [`Welcome::signed_part`]
//! return; the cryptography itself is not this crate's business.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::limits::{MAX_NOTICES, MAX_OFFERS};
use crate::names::{InstanceId, ServiceName};
use crate::reason::Reason;
use crate::wire::{DecodeError, Reader, put_text};

/// The protocol version this crate speaks.
pub const VERSION: u16 = 1;
/// The oldest version it still understands.
pub const MIN_VERSION: u16 = 1;
/// Length of a proof, in bytes (HMAC-SHA256).
pub const PROOF_LEN: usize = 32;
/// The application protocol name in TLS (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"adit/1";

/// Optional abilities, one bit each. Whoever does not know a bit ignores it.
pub mod capabilities {
    /// In a welcome: the session may have further lanes. In a hello: this connection is to be one, of the session with
    /// the same instance and generation.
    pub const LANES: u64 = 1;
    /// In a hello: the agent answers canaries ([`canary`](crate::names::canary)).
    pub const CANARIES: u64 = 2;
    /// The agent opens streams, and the gateway connects them to where they say. The agent asks for it, and the gateway
    /// grants it or refuses the session.
    pub const FORWARDING: u64 = 1 << 4;
    /// In a hello: the agent proves no token. The certificate of its TLS connection says who it is.
    pub const CERTIFICATE: u64 = 1 << 5;
    /// The agent opens streams to services by their names, and the gateway joins them to whoever offers those. The agent
    /// asks for it, and the gateway grants it; each stream is decided on its own.
    pub const DIALING: u64 = 1 << 6;
    /// In a hello: the agent reads notices. In a welcome: there are some.
    pub const NOTICES: u64 = 1 << 7;
    /// In a hello: the session is wanted also where forwarding is not granted. What the agent opens is then decided for
    /// each stream.
    pub const PARTIAL: u64 = 1 << 9;
    /// In a hello: the session with the same instance that stands is in order, and finishes what it carries.
    pub const SUCCESSION: u64 = 1 << 8;
}

/// One service an agent offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What it is reached by.
    pub service: ServiceName,
    /// What stands behind it, for people to read: `http://127.0.0.1:8080`.
    pub upstream: String,
}

/// Agent to gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest and newest version the agent understands.
    pub versions: (u16, u16),
    /// Optional [`capabilities`]. Unknown bits are ignored.
    pub capabilities: u64,
    /// Which process this is.
    pub instance: InstanceId,
    /// Counts the sessions of this process: a higher one replaces a lower one.
    pub generation: u64,
    /// The agent's release, for people.
    pub release: String,
    /// The machine the agent runs on, for people.
    pub hostname: String,
    /// What it offers.
    pub offers: Vec<Offer>,
    /// Proof that the agent knows a token.
    pub proof: [u8; PROOF_LEN],
}

impl Hello {
    /// The bytes the proof is made over: everything but the proof.
    #[must_use]
    pub fn signed_part(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_unproved(&mut out);
        out.freeze()
    }

    fn encode_unproved(&self, out: &mut BytesMut) {
        out.put_u16(self.versions.0);
        out.put_u16(self.versions.1);
        out.put_u64(self.capabilities);
        out.put_slice(self.instance.as_bytes());
        out.put_u64(self.generation);
        put_text(out, &self.release);
        put_text(out, &self.hostname);
        let offers = &self.offers[..self.offers.len().min(MAX_OFFERS)];
        out.put_u16(u16::try_from(offers.len()).unwrap_or(0));
        for offer in offers {
            put_text(out, &offer.service.to_string());
            put_text(out, &offer.upstream);
        }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_unproved(out);
        out.put_slice(&self.proof);
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a hello.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let versions = (r.u16("versions")?, r.u16("versions")?);
        let capabilities = r.u64("capabilities")?;
        let instance = InstanceId::from_bytes(r.array("instance")?);
        let generation = r.u64("generation")?;
        let release = r.text("release")?;
        let hostname = r.text("hostname")?;
        let count = usize::from(r.u16("offers")?);
        if count > MAX_OFFERS {
            return Err(DecodeError::TooLong { what: "offers", got: count, limit: MAX_OFFERS });
        }
        let mut offers = Vec::with_capacity(count);
        for _ in 0..count {
            let service = r.text("service")?.parse().map_err(|_name| DecodeError::Invalid("service"))?;
            offers.push(Offer { service, upstream: r.text("upstream")? });
        }
        let proof = r.array("proof")?;
        r.finish()?;
        Ok(Self { versions, capabilities, instance, generation, release, hostname, offers, proof })
    }

    /// The newest version both sides understand, if there is one.
    #[must_use]
    pub fn agree_version(&self) -> Option<u16> {
        let (oldest, newest) = self.versions;
        let version = newest.min(VERSION);
        (version >= MIN_VERSION && version >= oldest).then_some(version)
    }
}

/// In a welcome: one offer that is not taken, although the session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The offer.
    pub service: ServiceName,
    /// Why.
    pub reason: Reason,
    /// The same for a person, with what to do next.
    pub message: String,
}

/// Gateway to agent: the session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version both use from here on.
    pub version: u16,
    /// The gateway's optional [`capabilities`].
    pub capabilities: u64,
    /// The gateway's release, for people.
    pub release: String,
    /// Offers that are not taken. Only with [`capabilities::NOTICES`]; without it they are not written, and none are read.
    pub notices: Vec<Notice>,
    /// Proof that the gateway knows the same token.
    pub proof: [u8; PROOF_LEN],
}

impl Welcome {
    /// The bytes the proof is made over: everything but the proof.
    #[must_use]
    pub fn signed_part(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_unproved(&mut out);
        out.freeze()
    }

    fn encode_unproved(&self, out: &mut BytesMut) {
        out.put_u16(self.version);
        out.put_u64(self.capabilities);
        put_text(out, &self.release);
        if self.capabilities & capabilities::NOTICES == 0 {
            return;
        }
        let notices = &self.notices[..self.notices.len().min(MAX_NOTICES)];
        out.put_u16(u16::try_from(notices.len()).unwrap_or(0));
        for notice in notices {
            put_text(out, &notice.service.to_string());
            out.put_u16(notice.reason.code());
            put_text(out, &notice.message);
        }
    }

    fn decode_notices(r: &mut Reader) -> Result<Vec<Notice>, DecodeError> {
        let count = usize::from(r.u16("notices")?);
        if count > MAX_NOTICES {
            return Err(DecodeError::TooLong { what: "notices", got: count, limit: MAX_NOTICES });
        }
        let mut notices = Vec::with_capacity(count);
        for _ in 0..count {
            let service = r.text("service")?.parse().map_err(|_name| DecodeError::Invalid("service"))?;
            let reason = Reason::from_code(r.u16("reason")?);
            notices.push(Notice { service, reason, message: r.text("message")? });
        }
        Ok(notices)
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_unproved(out);
        out.put_slice(&self.proof);
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a welcome.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let version = r.u16("version")?;
        let capabilities = r.u64("capabilities")?;
        let release = r.text("release")?;
        let has_notices = capabilities & capabilities::NOTICES != 0;
        let notices = if has_notices { Self::decode_notices(&mut r)? } else { Vec::new() };
        let proof = r.array("proof")?;
        r.finish()?;
        Ok(Self { version, capabilities, release, notices, proof })
    }
}

/// Gateway to agent: no session, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason from the closed list.
    pub reason: Reason,
    /// The same for a person, with what to do next.
    pub message: String,
}

impl Refused {
    /// Appends the payload.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.reason.code());
        put_text(out, &self.message);
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a refusal.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let reason = Reason::from_code(r.u16("reason")?);
        let message = r.text("message")?;
        r.finish()?;
        Ok(Self { reason, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::HostPattern;

    fn hello() -> Hello {
        Hello {
            versions: (1, 1),
            capabilities: 0,
            instance: InstanceId::from_bytes([7; 16]),
            generation: 3,
            release: "0.1.0".into(),
            hostname: "edge-1".into(),
            offers: vec![
                Offer { service: HostPattern::Any.into(), upstream: "http://127.0.0.1:8080".into() },
                Offer { service: ServiceName::Tcp(5432), upstream: "tcp://127.0.0.1:5432".into() },
            ],
            proof: [9; PROOF_LEN],
        }
    }

    fn welcome(capabilities: u64) -> Welcome {
        let notice = Notice {
            service: ServiceName::Tcp(5432),
            reason: Reason::PortUnavailable,
            message: "no policy permits it".into(),
        };
        let proof = [1; PROOF_LEN];
        Welcome { version: 1, capabilities, release: "x".into(), notices: vec![notice], proof }
    }

    #[test]
    fn a_welcome_of_more_notices_than_there_may_be_is_refused_and_none_is_written() {
        let mut many = welcome(capabilities::NOTICES);
        many.notices = vec![many.notices[0].clone(); MAX_NOTICES + 1];
        let mut out = BytesMut::new();
        many.encode(&mut out);
        assert_eq!(Welcome::decode(out.clone().freeze()).unwrap().notices.len(), MAX_NOTICES);
        // The count stands behind version, capabilities and release.
        out[13..15].copy_from_slice(&u16::MAX.to_be_bytes());
        assert!(matches!(Welcome::decode(out.freeze()), Err(DecodeError::TooLong { what: "notices", .. })));
    }

    #[test]
    fn each_message_reads_back_as_written() {
        let mut out = BytesMut::new();
        hello().encode(&mut out);
        assert_eq!(Hello::decode(out.split().freeze()), Ok(hello()));

        let welcome = welcome(5);
        welcome.encode(&mut out);
        assert_eq!(Welcome::decode(out.split().freeze()), Ok(Welcome { notices: Vec::new(), ..welcome }));
        let welcome = self::welcome(capabilities::NOTICES);
        welcome.encode(&mut out);
        assert_eq!(Welcome::decode(out.split().freeze()), Ok(welcome));

        let refused = Refused { reason: Reason::Unauthorized, message: "no".into() };
        refused.encode(&mut out);
        assert_eq!(Refused::decode(out.split().freeze()), Ok(refused));
    }

    #[test]
    fn the_proof_covers_every_other_field() {
        let base = hello().signed_part();
        let mut other = hello();
        other.generation += 1;
        assert_ne!(other.signed_part(), base);
        other = hello();
        other.offers.clear();
        assert_ne!(other.signed_part(), base);
        other = hello();
        other.proof = [0; PROOF_LEN];
        assert_eq!(other.signed_part(), base);
    }

    #[test]
    fn versions_meet_at_the_newest_both_know() {
        let with = |versions| Hello { versions, ..hello() }.agree_version();
        assert_eq!(with((1, 1)), Some(1));
        assert_eq!(with((1, 9)), Some(1));
        assert_eq!(with((2, 9)), None);
        assert_eq!(with((0, 0)), None);
    }

    #[test]
    fn text_with_control_characters_is_refused_on_reading_and_cleaned_on_writing() {
        let mut out = BytesMut::new();
        Refused { reason: Reason::Internal, message: "a\nb\u{85}".into() }.encode(&mut out);
        assert_eq!(Refused::decode(out.freeze()).unwrap().message, "a b ");
        assert!(Refused::decode(Bytes::from_static(b"\0\x34\0\x01\n")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn decoding_is_total(raw: Vec<u8>) {
            drop(Hello::decode(raw.clone().into()));
            drop(Welcome::decode(raw.clone().into()));
            drop(Refused::decode(raw.into()));
        }
    }
}
