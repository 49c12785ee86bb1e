//! What each kind of certificate says.

use std::fmt::Write as _;
use std::ops::Range;

use adit_proto::name::Name;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use super::AuthorityError;
use crate::model::Timestamp;

/// Length of a serial number, in bytes (RFC 5280 allows 20).
pub(super) const SERIAL: usize = 16;

const DAY: u64 = 24 * 3600;
const ROOT_LIFE: u64 = 20 * 365 * DAY;
const INTERMEDIATE_LIFE: u64 = 3 * 365 * DAY;
const SERVER_LIFE: u64 = 397 * DAY;
/// How far before now everything begins at most, for clocks that are late.
const SKEW: u64 = 300;
/// Names every certificate of the control port is valid for.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

fn time(at: Timestamp) -> Result<OffsetDateTime, AuthorityError> {
    i64::try_from(at)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(AuthorityError::Make(rcgen::Error::Time))
}

fn params(
    common_name: &str,
    serial: &[u8],
    now: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, AuthorityError> {
    // A short life is not spent in the past.
    let skew = SKEW.min(not_after.saturating_sub(now) / 10);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.not_before = time(now.saturating_sub(skew))?;
    params.not_after = time(not_after)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A serial number nobody can guess. The first byte makes it positive and of one length.
pub(super) fn serial() -> Result<[u8; SERIAL], AuthorityError> {
    let mut serial = [0; SERIAL];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_unspecified| rcgen::Error::RingUnspecified)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

/// A root: a new key, and a certificate that allows one intermediate below it.
pub(super) fn root(now: Timestamp) -> Result<(KeyPair, CertificateDer<'static>), AuthorityError> {
    let key = KeyPair::generate()?;
    let certificate = root_of(&key, now)?;
    Ok((key, certificate))
}

/// The certificate of a root whose key is there.
pub(super) fn root_of(key: &KeyPair, now: Timestamp) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = params("Adit root", &serial()?, now, now.saturating_add(ROOT_LIFE))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.der().clone())
}

/// An intermediate below a root. It allows nothing but leaves below it.
pub(super) fn intermediate(
    key: &KeyPair,
    root: &CertificateDer<'_>,
    root_key: &KeyPair,
    now: Timestamp,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = params("Adit intermediate", &serial()?, now, now.saturating_add(INTERMEDIATE_LIFE))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = Issuer::from_ca_cert_der(root, root_key)?;
    Ok(params.signed_by(key, &issuer)?.der().clone())
}

/// A leaf of an identity.
pub(super) fn identity(
    key: &SubjectPublicKeyInfo,
    identity: &Name,
    uri: &str,
    serial: &[u8],
    life: Range<Timestamp>,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<CertificateDer<'static>, AuthorityError> {
    // Long names do not fit into a common name (64 bytes); nobody reads it but people.
    let shown = identity.as_str().get(..64).unwrap_or(identity.as_str());
    let mut params = params(shown, serial, life.start, life.end)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params.signed_by(key, issuer)?.der().clone())
}

/// A leaf of the control port with its key, and when it ends.
pub(super) fn server(
    names: &[String],
    issuer: &Issuer<'_, KeyPair>,
    now: Timestamp,
    latest: Timestamp,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>, Timestamp), AuthorityError> {
    let mut all = names.to_vec();
    all.extend(LOCAL_NAMES.iter().map(ToString::to_string).filter(|name| !names.contains(name)));
    let not_after = now.saturating_add(SERVER_LIFE).min(latest);
    let first = names.first().map_or("localhost", String::as_str);
    let mut params = params(first, &serial()?, now, not_after)?;
    params.subject_alt_names = CertificateParams::new(all)
        .map_err(|_invalid| AuthorityError::ServerName(names.join(", ")))?
        .subject_alt_names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, issuer)?.der().clone();
    Ok((leaf, PrivateKeyDer::Pkcs8(key.serialize_der().into()), not_after))
}

/// A certificate as PEM.
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
