//! The identity of an agent or a person: a file with a certificate and its key, and the same in use.
//!
//! The file is JSON, `{"ztAPI": "https://…", "id": {"cert": "pem:…", "key": "pem:…", "ca": "pem:…"}}`. Each of the
//! three may be `file:PATH` instead, which is read from there; relative paths start at the file's own directory.
//! [`LiveIdentity`] is what connections are opened with: its certificate can be exchanged while they stand.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::{Zeroize as _, Zeroizing};

pub use live::LiveIdentity;
pub(crate) use live::Tickets;

mod live;

/// Longest identity file, or file it refers to, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what an enrollment writes.
    #[error("{} is no identity file; `adit enroll` writes one", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// Where it stops making sense.
        #[source]
        source: serde_json::Error,
    },
    /// One of its parts cannot be used.
    #[error("the identity's {part} cannot be used: {why}")]
    Part {
        /// `cert`, `key` or `ca`.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key are each good, and of two different identities.
    #[error("the identity's certificate does not belong to its key; enroll again")]
    Mismatch,
}

fn part(part: &'static str, why: impl Into<String>) -> IdentityError {
    IdentityError::Part { part, why: why.into() }
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The identity's name: what its URI ends with. For people; nothing is decided by it.
    pub name: String,
    /// Its serial number: lower-case hexadecimal.
    pub serial: String,
    /// When it begins, in seconds since 1970 (UTC).
    pub not_before: u64,
    /// When it ends, in seconds since 1970 (UTC).
    pub not_after: u64,
}

/// A certificate with its key, whom it trusts, and where it was made. Everything in it was checked to fit.
pub struct IdentityFile {
    api: String,
    cert: String,
    key: Zeroizing<String>,
    ca: String,
    /// What else the file says. It is kept.
    rest: serde_json::Map<String, serde_json::Value>,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    leaf: Leaf,
    /// The file that holds its key, if others can read it.
    exposed: Option<PathBuf>,
}

impl fmt::Debug for IdentityFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityFile")
            .field("api", &self.api)
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(rename = "ztAPI")]
    api: String,
    id: Parts,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Parts {
    cert: String,
    key: String,
    ca: String,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl IdentityFile {
    /// One from its parts (PEM): where the gateway is, the leaf and what is between it and the root, its key, and the
    /// authorities by which the gateway is known.
    ///
    /// # Errors
    /// [`IdentityError::Part`] or [`IdentityError::Mismatch`].
    pub fn new(api: String, cert: String, key: Zeroizing<String>, ca: String) -> Result<Self, IdentityError> {
        let chain = certificates("cert", &cert)?;
        let roots = certificates("ca", &ca)?;
        let leaf =
            chain.first().and_then(read_leaf).ok_or_else(|| part("cert", "it is no X.509 certificate"))?;
        let made =
            Self { api, cert, key, ca, rest: serde_json::Map::new(), chain, roots, leaf, exposed: None };
        made.certified()?;
        Ok(made)
    }

    /// Reads one. A key that others can read is used, and [`IdentityFile::exposed`] says so: a secret that a cluster
    /// mounts cannot always be made private.
    ///
    /// # Errors
    /// [`IdentityError`] names the file or the part of it.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let mut exposed = None;
        let text = read(path, &mut exposed)?;
        let document: Document = serde_json::from_str(&text)
            .map_err(|source| IdentityError::Form { path: path.to_owned(), source })?;
        let cert = resolve("cert", &document.id.cert, path, &mut exposed)?;
        let key = resolve("key", &document.id.key, path, &mut exposed)?;
        let ca = resolve("ca", &document.id.ca, path, &mut exposed)?;
        let loaded = Self::new(document.api, cert.as_str().to_owned(), key, ca.as_str().to_owned())?;
        Ok(Self { rest: document.rest, exposed, ..loaded })
    }

    /// Writes it, whole or not at all, for its owner alone. Parts that were in files of their own are in it afterwards.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let text = self.to_json();
        let failed = |source| IdentityError::File { what: "write", path: path.to_owned(), source };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut file =
            tempfile::NamedTempFile::new_in(directory.unwrap_or_else(|| Path::new("."))).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(path).map(drop).map_err(|error| failed(error.error))
    }

    /// The file's text. It holds the key.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<String> {
        let document = Document {
            api: self.api.clone(),
            id: Parts {
                cert: format!("pem:{}", self.cert),
                key: format!("pem:{}", self.key.as_str()),
                ca: format!("pem:{}", self.ca),
            },
            rest: self.rest.clone(),
        };
        let mut text = Zeroizing::new(serde_json::to_string_pretty(&document).unwrap_or_default());
        text.push('\n');
        text
    }

    /// The same identity with another certificate for the key given, and other authorities.
    ///
    /// # Errors
    /// As [`IdentityFile::new`].
    pub fn renewed(&self, cert: String, key: Zeroizing<String>, ca: String) -> Result<Self, IdentityError> {
        let renewed = Self::new(self.api.clone(), cert, key, ca)?;
        Ok(Self { rest: self.rest.clone(), ..renewed })
    }

    /// The gateway's control port, `https://host:port`.
    #[must_use]
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Its key, PEM.
    #[must_use]
    pub fn key(&self) -> Zeroizing<String> {
        self.key.clone()
    }

    /// The file that holds its key, if others than its owner could read that when it was loaded: something to warn of.
    #[must_use]
    pub fn exposed(&self) -> Option<&Path> {
        self.exposed.as_deref()
    }

    /// The authorities by which the gateway is known, PEM.
    #[must_use]
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The authorities by which the gateway is known.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The certificate, and what is between it and the root.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// What its certificate says.
    #[must_use]
    pub const fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    fn certified(&self) -> Result<rustls::sign::CertifiedKey, IdentityError> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|error| part("key", format!("it is no private key in PEM ({error})")))?;
        rustls::sign::CertifiedKey::from_der(self.chain.clone(), key, &crate::tls::provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => IdentityError::Mismatch,
                other => part("key", other.to_string()),
            },
        )
    }
}

/// A certificate as PEM.
#[must_use]
pub fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
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

fn certificates(which: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| part(which, format!("it is not PEM ({error})")))?;
    if all.is_empty() { Err(part(which, "it holds no certificate; it must be PEM")) } else { Ok(all) }
}

fn read_leaf(certificate: &CertificateDer<'static>) -> Option<Leaf> {
    let (_rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    let uri = parsed.subject_alternative_name().ok().flatten().and_then(|names| {
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
    });
    let last = uri.and_then(|uri| uri.rsplit('/').next()).unwrap_or_default();
    let name = percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned();
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let seconds = |at: x509_parser::time::ASN1Time| u64::try_from(at.timestamp()).unwrap_or_default();
    let validity = parsed.validity();
    Some(Leaf {
        name,
        serial,
        not_before: seconds(validity.not_before),
        not_after: seconds(validity.not_after),
    })
}

fn resolve(
    which: &'static str,
    value: &str,
    file: &Path,
    exposed: &mut Option<PathBuf>,
) -> Result<Zeroizing<String>, IdentityError> {
    if let Some(pem) = value.strip_prefix("pem:") {
        return Ok(Zeroizing::new(pem.to_owned()));
    }
    let Some(path) = value.strip_prefix("file://").or_else(|| value.strip_prefix("file:")) else {
        return Err(part(which, "it must begin with `pem:` or `file:`"));
    };
    read(&file.parent().unwrap_or_else(|| Path::new(".")).join(path), exposed)
}

/// A file's text. It is noted in `exposed` if it holds a key and others can read it.
fn read(path: &Path, exposed: &mut Option<PathBuf>) -> Result<Zeroizing<String>, IdentityError> {
    let failed = |source| IdentityError::File { what: "read", path: path.to_owned(), source };
    let about = fs::metadata(path).map_err(failed)?;
    if about.len() > MAX_FILE {
        return Err(failed(io::Error::other("it is too long for an identity")));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o077 != 0
        && text.contains("PRIVATE KEY")
    {
        *exposed = Some(path.to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
