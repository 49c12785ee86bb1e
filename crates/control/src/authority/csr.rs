//! Reads signing requests: of all that they say, only the public key counts.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo as Key;

use super::AuthorityError;

/// Longest request that is read, in bytes of PEM.
const MAX_CSR: usize = 8 * 1024;

/// id-ecPublicKey with its curves, and Ed25519 (RFC 5480, RFC 8410).
const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const ED25519: &str = "1.3.101.112";

/// The key that a request asks a certificate for, if the request is signed with it.
pub(super) fn public_key(pem: &str) -> Result<SubjectPublicKeyInfo, AuthorityError> {
    if pem.len() > MAX_CSR {
        return Err(AuthorityError::Csr("it is too long"));
    }
    let mut requests = CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes());
    let (Some(Ok(der)), None) = (requests.next(), requests.next()) else {
        return Err(AuthorityError::Csr("it must be one PEM block `CERTIFICATE REQUEST`"));
    };
    let Ok((rest, request)) = X509CertificationRequest::from_der(&der) else {
        return Err(AuthorityError::Csr("it is not PKCS #10"));
    };
    if !rest.is_empty() {
        return Err(AuthorityError::Csr("something follows it"));
    }
    let key = &request.certification_request_info.subject_pki;
    if !is_welcome(key) {
        return Err(AuthorityError::Csr("its key must be ECDSA P-256, ECDSA P-384 or Ed25519"));
    }
    // Whoever asks holds the key: nobody can have a certificate made for the key of somebody else.
    if request.verify_signature().is_err() {
        return Err(AuthorityError::Csr("it is not signed by its own key"));
    }
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_kind| AuthorityError::Csr("its key cannot be read"))
}

fn is_welcome(key: &Key<'_>) -> bool {
    match key.algorithm.algorithm.to_id_string().as_str() {
        ED25519 => true,
        EC => key
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok())
            .is_some_and(|curve| matches!(curve.to_id_string().as_str(), P256 | P384)),
        _ => false,
    }
}
