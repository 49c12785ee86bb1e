//! Identities as SPIFFE URIs, and who a presented certificate belongs to.

use adit_proto::name::Name;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certify;
use crate::model::Timestamp;

/// Whose certificate a client presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The identity's name, folded.
    pub identity: String,
    /// The certificate's serial number: lower-case hexadecimal.
    pub serial: String,
    /// When it ends.
    pub not_after: Timestamp,
}

fn prefix(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/identity/")
}

/// The URI of an identity. Two characters of names (`@`, `+`) have no place in a path of SPIFFE and are written as
/// `%40` and `%2b`.
pub(super) fn identity_uri(trust_domain: &str, identity: &Name) -> String {
    prefix(trust_domain) + &identity.folded().replace('@', "%40").replace('+', "%2b")
}

/// The one identity that a certificate names, if it is of this trust domain and could have been made by [`super`].
pub(super) fn read(trust_domain: &str, leaf: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (rest, certificate) = X509Certificate::from_der(leaf).ok()?;
    if !rest.is_empty() || certificate.is_ca() {
        return None;
    }
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return None;
    };
    let written = uri.strip_prefix(&prefix(trust_domain))?;
    let name: Name = written.replace("%40", "@").replace("%2b", "+").parse().ok()?;
    // One name, one URI: any other way to write it is nobody's.
    if identity_uri(trust_domain, &name) != uri {
        return None;
    }
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let serial = certify::hex(certificate.raw_serial());
    Some(PeerCertificate { identity: name.folded().to_owned(), serial, not_after })
}
