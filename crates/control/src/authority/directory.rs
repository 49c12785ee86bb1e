//! The authority's files. A key is written before its certificate, so a certificate without a key means that the key
//! was taken away, and a key without a certificate that writing was interrupted: then the certificate is made again.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::issuing::Issuing;
use super::{AuthorityError, certify};
use crate::model::{Timestamp, rfc3339};

/// The names of a certificate and its key.
pub(super) struct Pair {
    pub(super) certificate: &'static str,
    pub(super) key: &'static str,
}

pub(super) const ROOT: Pair = Pair { certificate: "ca.crt", key: "ca.key" };
const INTERMEDIATE: Pair = Pair { certificate: "intermediate.crt", key: "intermediate.key" };

/// The root as the directory holds it.
pub(super) struct Root {
    /// Its own certificate first; the file may hold more, which are trusted as well.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// `None`: it was taken away.
    key: Option<KeyPair>,
}

/// Reads what is there and makes what is missing.
pub(super) fn open(directory: &Path, now: Timestamp) -> Result<(Root, Issuing), AuthorityError> {
    create(directory)?;
    let _alone = lock(directory);
    let root = open_root(directory, now)?;
    let Some(certificate) = root.certificates.first().cloned() else {
        return Err(broken(directory.join(ROOT.certificate), "it holds no certificate; it must be PEM"));
    };
    if path_length(&certificate) == Some(0) {
        // Made by a release that had no intermediate, and none may stand below it.
        let Some(key) = root.key else {
            let what = format!("{} is of a form that signs leaves itself", ROOT.certificate);
            return Err(AuthorityError::RootNeeded { what, key: directory.join(ROOT.key) });
        };
        let issuing = Issuing::new(key, certificate.clone(), &certificate)?;
        return Ok((Root { certificates: root.certificates, key: None }, issuing));
    }
    let issuing = open_intermediate(directory, &certificate, root.key.as_ref(), now)?;
    Ok((root, issuing))
}

/// Renews the intermediate, if the root's key is there.
pub(super) fn renew(
    directory: &Path,
    issuing: &Issuing,
    now: Timestamp,
) -> Result<Option<Issuing>, AuthorityError> {
    let _alone = lock(directory);
    let root = open_root(directory, now)?;
    let Some(root_key) = &root.key else {
        return Ok(None);
    };
    let key = KeyPair::try_from(issuing.key_der())?;
    certified(directory, key, &issuing.root, root_key, now).map(Some)
}

fn open_root(directory: &Path, now: Timestamp) -> Result<Root, AuthorityError> {
    let path = directory.join(ROOT.certificate);
    let key = read_key(&directory.join(ROOT.key))?;
    let certificates = read_certificates(&path)?;
    match (certificates, key) {
        (Some(certificates), Some(key)) => {
            if certificates.first().is_some_and(|first| !belongs(first, &key)) {
                return Err(broken(
                    path,
                    "it does not belong to the key beside it (ca.key); bring back the one that does",
                ));
            }
            Ok(Root { certificates, key: Some(key) })
        }
        (Some(certificates), None) => Ok(Root { certificates, key: None }),
        (None, Some(key)) => {
            tracing::warn!(file = %path.display(), "made the certificate of the root again; its key was there alone");
            let certificate = certify::root_of(&key, now)?;
            write(&path, &certify::pem(&certificate))?;
            Ok(Root { certificates: vec![certificate], key: Some(key) })
        }
        (None, None) if directory.join(INTERMEDIATE.key).exists() => Err(broken(
            path,
            "it is missing, and the intermediate beside it was signed by it; bring it back, or remove \
             intermediate.crt and intermediate.key as well to begin anew",
        )),
        (None, None) => {
            let (key, certificate) = certify::root(now)?;
            write(&directory.join(ROOT.key), &key.serialize_pem())?;
            write(&path, &certify::pem(&certificate))?;
            tracing::info!(directory = %directory.display(), "made a new root");
            Ok(Root { certificates: vec![certificate], key: Some(key) })
        }
    }
}

fn open_intermediate(
    directory: &Path,
    root: &CertificateDer<'static>,
    root_key: Option<&KeyPair>,
    now: Timestamp,
) -> Result<Issuing, AuthorityError> {
    let path = directory.join(INTERMEDIATE.certificate);
    let key = read_key(&directory.join(INTERMEDIATE.key))?;
    let certificate = read_certificates(&path)?.and_then(|all| all.into_iter().next());
    let what = match (&certificate, &key) {
        (Some(certificate), Some(key)) if belongs(certificate, key) && is_below(certificate, root) => None,
        (Some(_), Some(_)) => Some(format!("{} belongs to another key or root", path.display())),
        (None, _) => Some(format!("there is no {}", path.display())),
        (Some(_), None) => Some(format!("there is no {}", directory.join(INTERMEDIATE.key).display())),
    };
    let needs = |what: String| AuthorityError::RootNeeded { what, key: directory.join(ROOT.key) };
    let key = match key {
        Some(key) => key,
        None => {
            let what = what.clone().unwrap_or_default();
            root_key.ok_or_else(|| needs(what))?;
            let key = KeyPair::generate()?;
            write(&directory.join(INTERMEDIATE.key), &key.serialize_pem())?;
            key
        }
    };
    match (what, certificate) {
        (None, Some(certificate)) => {
            let issuing = Issuing::new(key, certificate, root)?;
            match root_key {
                Some(root_key) if issuing.is_due(now) => {
                    certified(directory, KeyPair::try_from(issuing.key_der())?, root, root_key, now)
                }
                _ if issuing.not_after <= now => Err(needs(format!("{} has expired", path.display()))),
                _ => Ok(issuing),
            }
        }
        (what, _) => {
            let root_key = root_key.ok_or_else(|| needs(what.unwrap_or_default()))?;
            certified(directory, key, root, root_key, now)
        }
    }
}

/// Has the root sign the intermediate's key, and keeps the result. The key stays: there is no moment at which the
/// two files do not fit, and tokens that are on their way stay good.
fn certified(
    directory: &Path,
    key: KeyPair,
    root: &CertificateDer<'static>,
    root_key: &KeyPair,
    now: Timestamp,
) -> Result<Issuing, AuthorityError> {
    let certificate = certify::intermediate(&key, root, root_key, now)?;
    write(&directory.join(INTERMEDIATE.certificate), &certify::pem(&certificate))?;
    let issuing = Issuing::new(key, certificate, root)?;
    tracing::info!(directory = %directory.display(), until = rfc3339(issuing.not_after), "the root signed an intermediate");
    Ok(issuing)
}

fn broken(path: PathBuf, why: &str) -> AuthorityError {
    AuthorityError::Broken { path, why: why.to_owned() }
}

fn create(directory: &Path) -> Result<(), AuthorityError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|source| AuthorityError::File {
        what: "create",
        path: directory.to_owned(),
        source,
    })
}

/// Two gateways that start at once in one directory make one authority, not two halves. Where directories cannot be
/// locked, that is left to whoever starts them.
fn lock(directory: &Path) -> Option<fs::File> {
    let file = fs::File::open(directory).ok()?;
    file.lock().is_ok().then_some(file)
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::File { what: "read", path: path.to_owned(), source }),
    }
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, AuthorityError> {
    let parse = |text: String| {
        KeyPair::from_pem(&text)
            .ok()
            .filter(|key| key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256)
            .ok_or_else(|| {
                broken(path.to_owned(), "it is no key that can be used; it must be ECDSA P-256, PKCS #8, PEM")
            })
    };
    read(path)?.map(parse).transpose()
}

fn read_certificates(path: &Path) -> Result<Option<Vec<CertificateDer<'static>>>, AuthorityError> {
    let parse = |text: String| {
        CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|all| !all.is_empty() && all.iter().all(|one| X509Certificate::from_der(one).is_ok()))
            .ok_or_else(|| broken(path.to_owned(), "it holds no certificate; it must be PEM"))
    };
    read(path)?.map(parse).transpose()
}

/// Whether a certificate is of this key.
fn belongs(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_rest, parsed)| *parsed.public_key().subject_public_key.data == *key.public_key_raw())
}

/// Whether a certificate was signed by this root.
fn is_below(certificate: &CertificateDer<'_>, root: &CertificateDer<'_>) -> bool {
    let (Ok((_, certificate)), Ok((_, root))) =
        (X509Certificate::from_der(certificate), X509Certificate::from_der(root))
    else {
        return false;
    };
    certificate.issuer() == root.subject() && certificate.verify_signature(Some(root.public_key())).is_ok()
}

fn path_length(certificate: &CertificateDer<'_>) -> Option<u32> {
    let (_rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    parsed.basic_constraints().ok()??.value.path_len_constraint
}

/// Writes a file that only its owner can read, whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let failed = |source| AuthorityError::File { what: "write", path: path.to_owned(), source };
    let mut file =
        tempfile::NamedTempFile::new_in(path.parent().unwrap_or_else(|| Path::new("."))).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}
