//! An identity in use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, ResolvesClientCert, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier, verify_server_name,
};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, NamedGroup, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::watch;

use super::{IdentityError, IdentityFile, part};
use crate::tls;

/// An identity that connections are opened with. Its certificate can be exchanged: those that stand are not touched,
/// the next ones show the new one.
pub struct LiveIdentity {
    path: Option<PathBuf>,
    current: ArcSwap<Current>,
    exchanged: watch::Sender<u64>,
}

struct Current {
    file: Arc<IdentityFile>,
    certified: Arc<CertifiedKey>,
    trust: Arc<WebPkiServerVerifier>,
}

impl fmt::Debug for LiveIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveIdentity").field("leaf", self.file().leaf()).finish_non_exhaustive()
    }
}

impl Current {
    fn new(file: Arc<IdentityFile>) -> Result<Self, IdentityError> {
        let certified = Arc::new(file.certified()?);
        let trust = tls::verifier_with(file.roots()).map_err(|error| part("ca", error.to_string()))?;
        Ok(Self { file, certified, trust })
    }
}

impl LiveIdentity {
    /// One that is kept in memory only.
    ///
    /// # Errors
    /// [`IdentityError::Part`] when its authorities cannot be used.
    pub fn new(file: IdentityFile) -> Result<Arc<Self>, IdentityError> {
        let current = ArcSwap::from_pointee(Current::new(Arc::new(file))?);
        Ok(Arc::new(Self { path: None, current, exchanged: watch::Sender::new(0) }))
    }

    /// One from a file, which its renewals are written to.
    ///
    /// # Errors
    /// As [`IdentityFile::load`].
    pub fn open(path: &Path) -> Result<Arc<Self>, IdentityError> {
        let current = ArcSwap::from_pointee(Current::new(Arc::new(IdentityFile::load(path)?))?);
        Ok(Arc::new(Self { path: Some(path.to_owned()), current, exchanged: watch::Sender::new(0) }))
    }

    /// Where it is kept, if it is.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// As it is now.
    #[must_use]
    pub fn file(&self) -> Arc<IdentityFile> {
        Arc::clone(&self.current.load().file)
    }

    /// Connections that are opened from now on show this certificate and trust its authorities. Nothing is written.
    ///
    /// # Errors
    /// [`IdentityError::Part`] when its authorities cannot be used; then nothing has changed.
    pub fn exchange(&self, file: IdentityFile) -> Result<(), IdentityError> {
        self.current.store(Arc::new(Current::new(Arc::new(file))?));
        self.exchanged.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Takes what its file holds now, if that is another certificate: somebody has enrolled again. Whether it was.
    pub fn look_again(&self) -> bool {
        let Some(file) = self.path().and_then(|path| IdentityFile::load(path).ok()) else { return false };
        file.chain() != self.file().chain() && self.exchange(file).is_ok()
    }

    /// Ticks each time the certificate is exchanged.
    #[must_use]
    pub fn exchanges(&self) -> watch::Receiver<u64> {
        self.exchanged.subscribe()
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for LiveIdentity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let current = self.current.load();
        let verified =
            current.trust.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // A gateway whose certificate signs itself is in the list as it is.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            )) if current.file.roots().iter().any(|root| root == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current.load().trust.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current.load().trust.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().trust.supported_verify_schemes()
    }
}

/// Tickets of an identity. A ticket stands for the certificate that was shown when it was given, so they are thrown
/// away when another one takes its place.
pub(crate) struct Tickets {
    identity: Arc<LiveIdentity>,
    of: AtomicU64,
    kept: ArcSwap<ClientSessionMemoryCache>,
    size: usize,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    pub(crate) fn new(identity: Arc<LiveIdentity>, size: usize) -> Self {
        let of = AtomicU64::new(*identity.exchanged.borrow());
        Self { identity, of, kept: ArcSwap::from_pointee(ClientSessionMemoryCache::new(size)), size }
    }

    fn kept(&self) -> Arc<ClientSessionMemoryCache> {
        let now = *self.identity.exchanged.borrow();
        if self.of.swap(now, Ordering::AcqRel) != now {
            self.kept.store(Arc::new(ClientSessionMemoryCache::new(self.size)));
        }
        self.kept.load_full()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.kept().set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.kept().remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.kept().insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().take_tls13_ticket(server_name)
    }
}
