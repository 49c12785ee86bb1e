//! Certificates: from files, or from an authority of the gateway's own.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use adit_tunnel::tls::provider;
use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;
use crate::server::StartError;

/// Names every certificate of `auto` is valid for.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The certificate that a listener serves. Another one can take its place; connections that stand go on.
#[derive(Debug)]
pub(crate) struct Served(ArcSwap<CertifiedKey>);

impl Served {
    /// Serves another certificate from now on.
    pub(crate) fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// A server's certificate, ready to serve.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) served: Arc<Served>,
    /// Known to this gateway alone, and the same after a restart if the key is.
    pub(crate) secret: [u8; 32],
    /// PEM of the authority behind it, when it is our own.
    pub(crate) authority: Option<String>,
}

fn failed<E>(what: String) -> impl FnOnce(E) -> StartError
where
    E: std::error::Error + Send + Sync + 'static,
{
    |source| StartError::Tls { what, source: Box::new(source) }
}

impl Identity {
    /// Loads or makes a certificate.
    ///
    /// # Errors
    /// [`StartError::Tls`] names the file.
    pub(crate) fn load(tls: &Tls) -> Result<Self, StartError> {
        match tls {
            Tls::Files { cert, key } => from_files(cert, key),
            Tls::Auto { names, directory } => auto(names, directory.as_deref()),
        }
    }

    /// A configuration for the control port: TLS 1.3 only.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn control_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, StartError> {
        let mut config = self.config(&[&rustls::version::TLS13], alpn)?;
        // Whoever comes back has a ticket, and the gateway keeps nothing for it. The key of the tickets is made at
        // start, changes every six hours, and is nobody else's: a ticket of another gateway opens nothing here.
        config.ticketer = Ticketer::new().map_err(failed("the system has no random numbers".to_owned()))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    /// A configuration for a public listener: TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn public_config(&self) -> Result<Arc<ServerConfig>, StartError> {
        self.config(rustls::ALL_VERSIONS, &[b"h2", b"http/1.1"]).map(Arc::new)
    }

    fn config(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Result<ServerConfig, StartError> {
        let broken = failed("TLS cannot be set up".to_owned());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(broken)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Served>::clone(&self.served));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

fn from_files(cert: &Path, key: &Path) -> Result<Identity, StartError> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(format!("cannot read the certificate in {}", cert.display())))?;
    if chain.is_empty() {
        return Err(failed(format!("{} holds no certificate; it must be PEM", cert.display()))(
            io::Error::from(io::ErrorKind::InvalidData),
        ));
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(failed(format!("cannot read the private key in {}", key.display())))?;
    let secret = secret_from(key.secret_der());
    Ok(Identity { served: served(chain, key)?, secret, authority: None })
}

/// A leaf for `names`, signed by the authority in `directory`, which is made on the first start. The leaf is made
/// anew at each start; whoever has the authority's certificate need not notice.
fn auto(names: &[String], directory: Option<&Path>) -> Result<Identity, StartError> {
    let broken = || failed("cannot make a certificate".to_owned());
    let (authority_pem, authority_key) = match directory {
        Some(directory) => kept_authority(directory)?,
        None => new_authority().map_err(broken())?,
    };
    let secret = secret_from(&authority_key.serialize_der());
    let issuer = Issuer::new(authority_params().map_err(broken())?, authority_key);
    let mut all: Vec<String> = names.to_vec();
    all.extend(LOCAL_NAMES.iter().map(ToString::to_string).filter(|name| !names.contains(name)));
    let mut params = CertificateParams::new(all)
        .map_err(failed(format!("`{}` cannot be put into a certificate", names.join(", "))))?;
    params.distinguished_name = named(names.first().map_or("localhost", String::as_str));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(broken())?;
    let leaf = params.signed_by(&key, &issuer).map_err(broken())?;
    let key = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|text| failed("cannot make a key".to_owned())(io::Error::other(text)))?;
    Ok(Identity { served: served(vec![leaf.der().clone()], key)?, secret, authority: Some(authority_pem) })
}

/// Fails when key and certificate do not belong together.
fn served(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<Served>, StartError> {
    let certified = CertifiedKey::from_der(chain, key, &provider())
        .map_err(failed("the certificate and its key cannot be used".to_owned()))?;
    Ok(Arc::new(Served(ArcSwap::from_pointee(certified))))
}

fn secret_from(key: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, b"adit gateway secret");
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// The same for every start, so that a kept key makes the same issuer.
fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("Adit gateway authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn new_authority() -> Result<(String, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    Ok((authority_params()?.self_signed(&key)?.pem(), key))
}

fn kept_authority(directory: &Path) -> Result<(String, KeyPair), StartError> {
    let (cert_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
    let cannot = |what: &str, path: &Path| failed(format!("cannot {what} {}", path.display()));
    if key_path.exists() {
        let pem = fs::read_to_string(&key_path).map_err(cannot("read", &key_path))?;
        let key = KeyPair::from_pem(&pem)
            .map_err(failed(format!("cannot use the key in {}", key_path.display())))?;
        let cert = fs::read_to_string(&cert_path).map_err(cannot("read", &cert_path))?;
        return Ok((cert, key));
    }
    let (cert, key) = new_authority().map_err(failed("cannot make an authority".to_owned()))?;
    fs::create_dir_all(directory).map_err(cannot("create", directory))?;
    write_private(&cert_path, &cert).map_err(cannot("write", &cert_path))?;
    // The key comes last: with it, the pair is complete.
    write_private(&key_path, &key.serialize_pem()).map_err(cannot("write", &key_path))?;
    Ok((cert, key))
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let result = options.open(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if result.is_err() {
        drop(fs::remove_file(&temporary));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_a_restart_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let tls = Tls::Auto { names: vec!["gw.example".into()], directory: Some(state.clone()) };
        let first = Identity::load(&tls).unwrap();
        let second = Identity::load(&tls).unwrap();
        assert_eq!(first.authority, second.authority);
        let leaf = |identity: &Identity| identity.served.0.load().cert[0].clone();
        assert_ne!(leaf(&first), leaf(&second));
        first.served.replace(&second.served);
        assert_eq!(leaf(&first), leaf(&second));
        assert_eq!(first.secret, second.secret);
        assert_ne!(
            first.secret,
            Identity::load(&Tls::Auto { names: Vec::new(), directory: None }).unwrap().secret
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(state.join("ca.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(
            !first.control_config(&[b"x"]).unwrap().session_storage.can_cache(),
            "tickets keep themselves"
        );
        assert!(first.control_config(&[b"x"]).is_ok() && first.public_config().is_ok());
    }

    #[test]
    fn missing_and_wrong_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nothing.pem");
        let tls = |cert: &Path| Tls::Files { cert: cert.to_owned(), key: path.clone() };
        let error = Identity::load(&tls(&path)).unwrap_err();
        assert!(error.to_string().contains("nothing.pem"), "{error}");
        let empty = directory.path().join("empty.pem");
        fs::write(&empty, "not pem").unwrap();
        let error = Identity::load(&tls(&empty)).unwrap_err();
        assert!(error.to_string().contains("empty.pem"), "{error}");
    }
}
