//! Self-signed certificates, and TLS clients that take any.

use std::sync::Arc;

use adit_tunnel::tls::{self, Trust, provider};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::PrivateKeyDer;

/// A TLS server's configuration with a certificate nobody has signed.
#[must_use]
pub fn self_signed(alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A TLS client that takes any certificate.
#[must_use]
pub fn credulous(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    tls::session_client(&Trust::Anyone, alpn).unwrap()
}
