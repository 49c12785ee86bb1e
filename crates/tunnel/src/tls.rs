//! TLS as both roles use it: TLS 1.3 for sessions, and what an agent needs towards its upstreams.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::{LiveIdentity, Tickets};
use crate::proof::{EXPORTER_LABEL, EXPORTER_LEN, Exporter};

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file with authorities could not be read.
    #[error("cannot read the authorities in {path}")]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A file that should hold authorities holds none.
    #[error("{0} holds no certificate; it must be PEM")]
    NoAuthority(PathBuf),
    /// The system has no authorities and none were given.
    #[error("no certificate authorities found on this system; give a CA file")]
    NoSystemAuthorities,
    /// What rustls said.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// Whom a TLS client believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Any certificate. Only where something else proves who the peer is, or on explicit demand.
    Anyone,
    /// The system's authorities, or the built-in list where the system has none.
    System,
    /// The authorities in a PEM file, and nobody else.
    Ca(PathBuf),
}

/// The one cryptography provider.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// How many tickets a client keeps for its next connections. They are used once, and two come with each connection.
const TICKETS: usize = 16;

/// A client configuration for sessions and the control port: TLS 1.3 only. It keeps tickets, so one configuration is
/// to be used for one gateway, again and again. Nothing is ever sent before the handshake is done (no 0-RTT): what is
/// said first could be said again by whoever recorded it.
///
/// # Errors
/// [`TlsError`] when authorities cannot be loaded.
pub fn session_client(trust: &Trust, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = client(trust, alpn, &[&rustls::version::TLS13])?;
    config.resumption = Resumption::in_memory_sessions(TICKETS);
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// The same for an identity: it shows the certificate, and believes the identity's own authorities and the system's.
/// What it shows and believes follows [`LiveIdentity::exchange`].
///
/// # Errors
/// [`TlsError::Rustls`], which only a broken library brings about.
pub fn session_client_with(
    identity: &Arc<LiveIdentity>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(identity) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(Arc::clone(identity) as Arc<dyn ResolvesClientCert>);
    config.resumption = Resumption::store(Arc::new(Tickets::new(Arc::clone(identity), TICKETS)));
    config.enable_early_data = false;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Believes these authorities and the system's.
pub(crate) fn verifier_with(
    authorities: &[CertificateDer<'static>],
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = system_roots().unwrap_or_else(|_none| RootCertStore::empty());
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    verifier(roots)
}

/// A client configuration towards upstreams: TLS 1.2 and 1.3.
///
/// # Errors
/// [`TlsError`] when authorities cannot be loaded.
pub fn upstream_client(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    client(trust, &[b"http/1.1"], rustls::ALL_VERSIONS).map(Arc::new)
}

fn client(
    trust: &Trust,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match trust {
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        }
        Trust::System => builder.with_webpki_verifier(verifier(system_roots()?)?),
        Trust::Ca(path) => builder.with_webpki_verifier(verifier(roots_in(path)?)?),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Rustls(rustls::Error::General(error.to_string())))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        // Containers built from nothing have no bundle of their own.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if roots.is_empty() { Err(TlsError::NoSystemAuthorities) } else { Ok(roots) }
}

fn roots_in(path: &PathBuf) -> Result<RootCertStore, TlsError> {
    let broken = |source| TlsError::Authorities { path: path.clone(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(broken)? {
        roots.add(certificate.map_err(broken)?)?;
    }
    if roots.is_empty() { Err(TlsError::NoAuthority(path.clone())) } else { Ok(roots) }
}

/// The keying material of a finished TLS 1.3 handshake.
///
/// # Errors
/// Only before the handshake is finished, which is a bug of the caller.
pub fn exporter<D>(connection: &rustls::ConnectionCommon<D>) -> Result<Exporter, rustls::Error> {
    connection.export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None)
}

/// Whether the handshake was shortened by a ticket from an earlier connection: `resumed` or `full`, for logs and
/// metrics. It says nothing about who the peer is; proofs do, and they are bound to each connection's own exporter.
#[must_use]
pub fn handshake_label(connection: &rustls::CommonState) -> &'static str {
    match connection.handshake_kind() {
        Some(HandshakeKind::Resumed) => "resumed",
        _ => "full",
    }
}

/// Accepts any certificate but still checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
