//! The embedded authority: a root that may be kept elsewhere, an intermediate that signs, and short-lived leaves.
//!
//! | who | lives | key |
//! |---|---|---|
//! | root (`ca.crt`) | 20 years | `ca.key`; needed only to make or renew an intermediate, so it may be taken away |
//! | intermediate (`intermediate.crt`) | 3 years, renewed after 2 | `intermediate.key`, kept when it is renewed |
//! | leaf of an identity | a day unless told otherwise | made where it is used, never seen here |
//! | leaf of the control port | 397 days, made anew at each start | in memory |
//!
//! A root of an older release may not have an intermediate below it (its path length is 0). It is kept, and signs
//! leaves itself: whoever trusts it goes on doing so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_proto::name::Name;
use arc_swap::ArcSwap;
use aws_lc_rs::{digest, hmac};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::model::{Credential, Timestamp};
use issuing::Issuing;
pub use peer::PeerCertificate;

mod certify;
mod csr;
mod directory;
mod issuing;
mod peer;

/// How long the certificate of an identity lives unless something else is asked for.
pub const IDENTITY_LIFE: Duration = Duration::from_hours(24);
/// The shortest life that makes sense, and the longest that is given.
const LIVES: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(24 * 397));
/// How much is left of an intermediate's life when it is renewed: one third.
const RENEW_AT: u64 = 3;
/// Longest trust domain, in bytes (SPIFFE).
const MAX_TRUST_DOMAIN: usize = 255;

/// Why the authority cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the state directory cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried: `read`, `write`, `create`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the state directory holds something else than it should.
    #[error("{}: {why}", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// Something has to be made that only the root can sign, and its key is not here.
    #[error("{what}, and only the root can sign one: bring back {} and start again; afterwards it may be taken away", key.display())]
    RootNeeded {
        /// What is missing.
        what: String,
        /// Where the key belongs.
        key: PathBuf,
    },
    /// The trust domain is none.
    #[error(
        "`{0}` is no trust domain: lower-case letters, digits, `.`, `-` and `_`, at most {MAX_TRUST_DOMAIN}"
    )]
    TrustDomain(String),
    /// The signing request cannot be used. The fault of whoever sent it.
    #[error("the signing request cannot be used: {0}")]
    Csr(&'static str),
    /// A name cannot be put into a certificate.
    #[error("`{0}` cannot be put into a certificate")]
    ServerName(String),
    /// The issuing certificate has ended.
    #[error("the certificate that signs has expired; {0}")]
    Expired(String),
    /// The library could not make it.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// A token could not be signed.
    #[error("cannot sign a token")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// A certificate that was made for an identity.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM: the leaf first, then what is between it and the root.
    pub chain_pem: String,
    /// What has to be listed for it to open anything.
    pub credential: Credential,
}

/// A certificate for the control port.
#[derive(Debug)]
pub struct ServerLeaf {
    /// The leaf, what is between, and the root: the last one is what enrolling sides pin.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// When it ends.
    pub not_after: Timestamp,
}

/// What [`Authority::maintain`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maintained {
    /// Nothing to do.
    Fine,
    /// The intermediate was renewed: certificates that it signs from now on show the new one.
    Renewed,
    /// The intermediate should be renewed, and the root's key is not here. Until then everything works.
    RootNeeded {
        /// Where the key belongs.
        key: PathBuf,
        /// When the intermediate ends.
        until: Timestamp,
    },
}

/// Makes and recognises certificates and enrollment tokens.
#[derive(Debug)]
pub struct Authority {
    trust_domain: String,
    roots: Vec<CertificateDer<'static>>,
    roots_pem: String,
    /// `None`: everything is in memory, and gone with the process.
    directory: Option<PathBuf>,
    issuing: ArcSwap<Issuing>,
}

impl Authority {
    /// The one that a state directory holds; what is missing is made. Without a trust domain, one is derived from
    /// the root, so that no two gateways share one by accident.
    ///
    /// # Errors
    /// [`AuthorityError`] names the file and says what to do.
    pub fn open(
        directory: &Path,
        trust_domain: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let (root, issuing) = directory::open(directory, now)?;
        Self::of(root.certificates, issuing, Some(directory.to_owned()), trust_domain)
    }

    /// Whether a state directory holds one already. Where there is none, [`Authority::open`] makes another, and nobody
    /// whom one of before has certified is let in any more.
    #[must_use]
    pub fn is_kept_in(directory: &Path) -> bool {
        [directory::ROOT.certificate, directory::ROOT.key].iter().any(|file| directory.join(file).exists())
    }

    /// One that lives as long as the process.
    ///
    /// # Errors
    /// [`AuthorityError::TrustDomain`], or what the library says.
    pub fn in_memory(trust_domain: Option<&str>, now: Timestamp) -> Result<Self, AuthorityError> {
        let (root_key, root) = certify::root(now)?;
        let key = rcgen::KeyPair::generate()?;
        let certificate = certify::intermediate(&key, &root, &root_key, now)?;
        let issuing = Issuing::new(key, certificate, &root)?;
        Self::of(vec![root], issuing, None, trust_domain)
    }

    fn of(
        roots: Vec<CertificateDer<'static>>,
        issuing: Issuing,
        directory: Option<PathBuf>,
        trust_domain: Option<&str>,
    ) -> Result<Self, AuthorityError> {
        let trust_domain = match trust_domain {
            Some(given) if is_trust_domain(given) => given.to_owned(),
            Some(given) => return Err(AuthorityError::TrustDomain(given.to_owned())),
            None => {
                let first = roots.first().map(|root| fingerprint(root)).unwrap_or_default();
                format!("adit-{}", first.get(..16).unwrap_or_default())
            }
        };
        let roots_pem = roots.iter().map(|root| certify::pem(root)).collect();
        Ok(Self { trust_domain, roots, roots_pem, directory, issuing: ArcSwap::from_pointee(issuing) })
    }

    /// The trust domain of the identities in its certificates.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The roots, PEM. What `/.well-known/ca.crt` serves and an identity file holds.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// The roots by which client certificates are verified.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// A secret that this gateway alone knows, the same after a restart.
    #[must_use]
    pub fn secret(&self, label: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.issuing().key_der());
        hmac::sign(&key, label).as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// When the certificate that signs ends, and with it everything that it signed.
    #[must_use]
    pub fn issuing_until(&self) -> Timestamp {
        self.issuing().not_after
    }

    pub(crate) fn issuing(&self) -> Arc<Issuing> {
        self.issuing.load_full()
    }

    /// Makes a certificate for an identity. Of the request (PEM) only the public key is used; subject, names and
    /// usages are ours. It never outlives the certificate that signs it.
    ///
    /// # Errors
    /// [`AuthorityError::Csr`] for a request that is none, is not signed by its own key, or has a key of another
    /// kind than ECDSA P-256, P-384 or Ed25519; [`AuthorityError::Expired`] when nothing can be signed any more.
    pub fn issue(
        &self,
        identity: &Name,
        csr_pem: &str,
        life: Duration,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let key = csr::public_key(csr_pem)?;
        let issuing = self.usable(now)?;
        let life = life.clamp(LIVES.0, LIVES.1).as_secs();
        let not_after = now.saturating_add(life).min(issuing.not_after);
        let serial = certify::serial()?;
        let uri = peer::identity_uri(&self.trust_domain, identity);
        let leaf = certify::identity(&key, identity, &uri, &serial, now..not_after, &issuing.issuer)?;
        let mut chain_pem = certify::pem(&leaf);
        for certificate in &issuing.between {
            chain_pem.push_str(&certify::pem(certificate));
        }
        let credential =
            Credential { serial: certify::hex(&serial), issued_at: now, not_after, renewed_from: Vec::new() };
        Ok(Issued { chain_pem, credential })
    }

    /// Makes a certificate for the control port. Always also for this machine's own names.
    ///
    /// # Errors
    /// [`AuthorityError::ServerName`] for a name that is none; [`AuthorityError::Expired`].
    pub fn server_leaf(&self, names: &[String], now: Timestamp) -> Result<ServerLeaf, AuthorityError> {
        let issuing = self.usable(now)?;
        let (leaf, key, not_after) = certify::server(names, &issuing.issuer, now, issuing.not_after)?;
        let mut chain = vec![leaf];
        chain.extend(issuing.between.iter().cloned());
        chain.push(issuing.root.clone());
        Ok(ServerLeaf { chain, key, not_after })
    }

    /// Who a client is, by the certificate it presented: the first of the chain, nothing else. To be asked only after
    /// TLS has verified the chain against [`roots`](Self::roots). Whether the certificate still opens anything is for
    /// the snapshot to say (its serial must be listed).
    #[must_use]
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Option<PeerCertificate> {
        peer::read(&self.trust_domain, chain.first()?)
    }

    fn usable(&self, now: Timestamp) -> Result<Arc<Issuing>, AuthorityError> {
        let issuing = self.issuing();
        if issuing.not_after > now {
            return Ok(issuing);
        }
        Err(AuthorityError::Expired(match &self.directory {
            Some(directory) => format!(
                "bring back {} so that it can be renewed",
                directory.join(directory::ROOT.key).display()
            ),
            None => "start the gateway again".to_owned(),
        }))
    }

    /// Renews the intermediate when a third of its life is left. To be called now and then (once an hour will do).
    /// Reads and writes files.
    ///
    /// # Errors
    /// [`AuthorityError`] when the root's key is there and cannot be used, or the result cannot be kept.
    pub fn maintain(&self, now: Timestamp) -> Result<Maintained, AuthorityError> {
        let issuing = self.issuing();
        let Some(directory) = self.directory.as_deref().filter(|_| issuing.is_due(now)) else {
            return Ok(Maintained::Fine);
        };
        match directory::renew(directory, &issuing, now)? {
            Some(renewed) => {
                self.issuing.store(Arc::new(renewed));
                Ok(Maintained::Renewed)
            }
            None => Ok(Maintained::RootNeeded {
                key: directory.join(directory::ROOT.key),
                until: issuing.not_after,
            }),
        }
    }
}

/// SHA-256 of a certificate, in hexadecimal: how the claim `ca` names the one to pin.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    certify::hex(digest::digest(&digest::SHA256, certificate).as_ref())
}

/// Whether a text is a trust domain: lower-case letters, digits, `.`, `-` and `_`.
#[must_use]
pub fn is_trust_domain(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    !text.is_empty() && text.len() <= MAX_TRUST_DOMAIN && text.bytes().all(fits)
}

#[cfg(test)]
mod tests;
