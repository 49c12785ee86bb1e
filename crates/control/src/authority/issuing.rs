//! The certificate that signs, with its key.

use std::fmt;

use jsonwebtoken::{DecodingKey, EncodingKey};
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{AuthorityError, RENEW_AT, certify};
use crate::model::Timestamp;

/// What leaves and enrollment tokens are signed with.
pub(crate) struct Issuing {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// What stands between a leaf and the root: the intermediate, or nothing below a root of the older form.
    pub(super) between: Vec<CertificateDer<'static>>,
    pub(super) root: CertificateDer<'static>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Names the key in the header of tokens.
    pub(crate) key_id: String,
    pub(crate) signs: EncodingKey,
    pub(crate) verifies: DecodingKey,
}

impl fmt::Debug for Issuing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuing").field("key_id", &self.key_id).field("not_after", &self.not_after).finish()
    }
}

impl Issuing {
    /// `certificate` is an intermediate below `root`, or `root` itself.
    pub(super) fn new(
        key: KeyPair,
        certificate: CertificateDer<'static>,
        root: &CertificateDer<'static>,
    ) -> Result<Self, AuthorityError> {
        let (not_before, not_after) = validity(&certificate)?;
        let key_id = certify::hex(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.public_key_raw())
                .as_ref()
                .get(..16)
                .unwrap_or_default(),
        );
        let signs = EncodingKey::from_ec_der(key.serialized_der());
        let verifies = DecodingKey::from_ec_der(key.public_key_raw());
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let between = if certificate == *root { Vec::new() } else { vec![certificate] };
        Ok(Self { issuer, between, root: root.clone(), not_before, not_after, key_id, signs, verifies })
    }

    /// Whether it is time to renew it. A root of the older form is not renewed.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        !self.between.is_empty() && self.not_after.saturating_sub(now) <= life / RENEW_AT
    }

    pub(super) fn key_der(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }
}

fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), AuthorityError> {
    let (_rest, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_broken| AuthorityError::Make(rcgen::Error::CouldNotParseCertificate))?;
    let seconds = |at: x509_parser::time::ASN1Time| Timestamp::try_from(at.timestamp()).unwrap_or_default();
    Ok((seconds(parsed.validity().not_before), seconds(parsed.validity().not_after)))
}
