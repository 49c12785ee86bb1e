//! Certificates: from files, or from an authority of the gateway's own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_control::authority::{Authority, fingerprint};
use adit_control::model::Timestamp;
use adit_tunnel::tls::provider;
use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;
use crate::server::StartError;

/// The certificate that a listener serves. Another one can take its place; connections that stand go on.
#[derive(Debug)]
pub(crate) struct Served(ArcSwap<CertifiedKey>);

impl Served {
    /// SHA-256 of the last certificate of the chain: what those who enroll pin.
    pub(crate) fn pin(&self) -> String {
        self.0.load().cert.last().map(|last| fingerprint(last)).unwrap_or_default()
    }

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
    /// What it was made from, so that it can be made again.
    made: Option<Made>,
}

/// A certificate that is made here, and has to be made again before it ends.
#[derive(Debug)]
struct Made {
    authority: Arc<Authority>,
    names: Vec<String>,
    /// By when there should be another.
    due: Timestamp,
}

/// The authorities of a gateway: one for each directory, and one in memory.
#[derive(Debug, Default)]
pub(crate) struct Authorities {
    trust_domain: Option<String>,
    opened: BTreeMap<Option<PathBuf>, Arc<Authority>>,
}

impl Authorities {
    pub(crate) fn new(trust_domain: Option<String>) -> Self {
        Self { trust_domain, opened: BTreeMap::new() }
    }

    /// The authority that is kept in a directory.
    ///
    /// # Errors
    /// [`StartError::Tls`] says which file, and what to do.
    pub(crate) fn open(&mut self, directory: Option<&Path>) -> Result<Arc<Authority>, StartError> {
        if let Some(opened) = self.opened.get(&directory.map(Path::to_owned)) {
            return Ok(Arc::clone(opened));
        }
        let domain = self.trust_domain.as_deref();
        let opened = match directory {
            Some(directory) => Authority::open(directory, domain, now()),
            None => Authority::in_memory(domain, now()),
        };
        let opened = Arc::new(opened.map_err(failed("the gateway's authority cannot be used".to_owned()))?);
        self.opened.insert(directory.map(Path::to_owned), Arc::clone(&opened));
        Ok(opened)
    }
}

impl Authorities {
    /// All that were opened.
    pub(crate) fn all(&self) -> Vec<Arc<Authority>> {
        self.opened.values().cloned().collect()
    }
}

/// Seconds since 1970 (UTC).
pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
    pub(crate) fn load(tls: &Tls, authorities: &mut Authorities) -> Result<Self, StartError> {
        match tls {
            Tls::Files { cert, key } => Self::from_files(cert, key),
            Tls::Auto { names, directory } => auto(names, authorities.open(directory.as_deref())?),
        }
    }

    /// Loads one from PEM files.
    ///
    /// # Errors
    /// [`StartError::Tls`] names the file.
    pub(crate) fn from_files(cert: &Path, key: &Path) -> Result<Self, StartError> {
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
        let certified = certified(chain, key)?;
        let served = Arc::new(Served(ArcSwap::from_pointee(certified)));
        Ok(Self { served, secret, authority: None, made: None })
    }

    /// What a reload puts another certificate into: only one from files, for who makes one makes it anew as well.
    pub(crate) fn replaceable(&self) -> Option<Arc<Served>> {
        self.made.is_none().then(|| Arc::clone(&self.served))
    }

    /// The names it was made for; none for one from files.
    pub(crate) fn names(&self) -> &[String] {
        self.made.as_ref().map_or(&[], |made| &made.names)
    }

    /// Makes it again when it is time, or when something else signs now. One from files stays.
    ///
    /// # Errors
    /// [`StartError::Tls`]; then it stays as it is.
    pub(crate) fn refresh(&mut self, signer_changed: bool, now: Timestamp) -> Result<bool, StartError> {
        let Some(made) = self.made.as_mut().filter(|made| signer_changed || made.due <= now) else {
            return Ok(false);
        };
        let (certified, due) = leaf(&made.authority, &made.names, now)?;
        made.due = due;
        self.served.0.store(Arc::new(certified));
        Ok(true)
    }

    /// A configuration for the control port: TLS 1.3 only.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn control_config(
        &self,
        alpn: &[&[u8]],
        authority: &Authority,
    ) -> Result<Arc<ServerConfig>, StartError> {
        let callers = by_authority(authority)?;
        let mut config = self.config(&[&rustls::version::TLS13], alpn, callers)?;
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
        let anybody = WebPkiClientVerifier::no_client_auth();
        self.config(rustls::ALL_VERSIONS, &[b"h2", b"http/1.1"], anybody).map(Arc::new)
    }

    fn config(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
        callers: Arc<dyn ClientCertVerifier>,
    ) -> Result<ServerConfig, StartError> {
        let broken = failed("TLS cannot be set up".to_owned());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(broken)?
            .with_client_cert_verifier(callers)
            .with_cert_resolver(Arc::<Served>::clone(&self.served));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

/// Callers need no certificate, but one that is shown has to be the authority's. Whether it still opens anything is
/// decided for each session and request.
fn by_authority(authority: &Authority) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
    let broken = || failed("the authority's certificate cannot be used".to_owned());
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone()).map_err(broken())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(failed("certificates of callers cannot be checked".to_owned()))
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, StartError> {
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(failed("the certificate and its key cannot be used".to_owned()))
}

/// A leaf for `names`, signed by the gateway's own authority. It is made anew at each start; whoever has the
/// authority's certificate need not notice.
fn auto(names: &[String], authority: Arc<Authority>) -> Result<Identity, StartError> {
    let (certified, due) = leaf(&authority, names, now())?;
    Ok(Identity {
        served: Arc::new(Served(ArcSwap::from_pointee(certified))),
        secret: authority.secret(SECRET),
        authority: Some(authority.roots_pem().to_owned()),
        made: Some(Made { authority, names: names.to_vec(), due }),
    })
}

fn leaf(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<(CertifiedKey, Timestamp), StartError> {
    let made = authority.server_leaf(names, now).map_err(failed("cannot make a certificate".to_owned()))?;
    // At two thirds of its life.
    let due = now + made.not_after.saturating_sub(now) / 3 * 2;
    Ok((certified(made.chain, made.key)?, due))
}

/// What the secret of a gateway is for.
const SECRET: &[u8] = b"adit gateway secret";

fn secret_from(key: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, SECRET).as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(tls: &Tls) -> Result<Identity, StartError> {
        Identity::load(tls, &mut Authorities::default())
    }

    #[test]
    fn a_kept_authority_signs_another_leaf_at_each_start() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let tls = Tls::Auto { names: vec!["gw.example".into()], directory: Some(state) };
        let (first, second) = (load(&tls).unwrap(), load(&tls).unwrap());
        assert_eq!(first.authority, second.authority);
        let leaf = |identity: &Identity| identity.served.0.load().cert[0].clone();
        assert_eq!(first.served.pin(), second.served.pin());
        assert_ne!(leaf(&first), leaf(&second));
        first.served.replace(&second.served);
        assert_eq!(leaf(&first), leaf(&second));
        assert_eq!(first.secret, second.secret);
        assert_ne!(first.secret, load(&Tls::Auto { names: Vec::new(), directory: None }).unwrap().secret);
        let authority = Authority::in_memory(None, 1_000_000_000).unwrap();
        assert!(
            !first.control_config(&[b"x"], &authority).unwrap().session_storage.can_cache(),
            "tickets keep themselves"
        );
        assert!(first.control_config(&[b"x"], &authority).is_ok() && first.public_config().is_ok());
    }

    #[test]
    fn a_leaf_is_made_again_at_two_thirds_of_its_life_or_when_something_else_signs() {
        let mut identity = load(&Tls::Auto { names: Vec::new(), directory: None }).unwrap();
        let (served, now) = (Arc::clone(&identity.served), now());
        let shown = || served.0.load().cert[0].clone();
        let first = shown();
        assert!(!identity.refresh(false, now).unwrap());
        assert_eq!(shown(), first);
        assert!(identity.refresh(true, now).unwrap());
        let second = shown();
        assert_ne!(second, first);
        assert!(!identity.refresh(false, now + 200 * 24 * 3600).unwrap());
        assert!(identity.refresh(false, now + 300 * 24 * 3600).unwrap());
        assert_ne!(shown(), second);
    }

    #[test]
    fn missing_and_wrong_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nothing.pem");
        let tls = |cert: &Path| Tls::Files { cert: cert.to_owned(), key: path.clone() };
        let error = load(&tls(&path)).unwrap_err();
        assert!(error.to_string().contains("nothing.pem"), "{error}");
        let empty = directory.path().join("empty.pem");
        fs::write(&empty, "not pem").unwrap();
        let error = load(&tls(&empty)).unwrap_err();
        assert!(error.to_string().contains("empty.pem"), "{error}");
    }
}
