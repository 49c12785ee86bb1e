//! Turns a one-time token into an identity file.
//!
//! The key is made here and never sent. Before anything is sent, the gateway shows a certificate chain that ends with
//! the certificate that the token names by its hash; so a forged token can at most make this machine open a TLS
//! connection to an address of the forger's choice, over which nothing is said.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_tunnel::identity::{IdentityError, IdentityFile, LiveIdentity, certificate_pem};
use adit_tunnel::proxy::Egress;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};

pub use call::CallError;
use call::{Address, Answer};

pub(crate) mod call;
mod pinned;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Addresses of a token that are tried at most.
const MAX_ADDRESSES: usize = 8;
/// How far the clocks may be apart.
const SKEW: u64 = 60;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The token is none, or says something that cannot be.
    #[error("this is no enrollment token: {0}")]
    Token(&'static str),
    /// Its time has run out, by this machine's clock.
    #[error("the enrollment token expired {0} minutes ago; ask for a new one, or set this machine's clock")]
    Expired(u64),
    /// None of its gateways could be asked.
    #[error("{address} cannot be asked")]
    Call {
        /// The last that was tried.
        address: String,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// It is another one, or somebody stands between.
    #[error(
        "{address} is not the gateway that the token is for, or its certificate has changed since; nothing was sent. \
         Compare the address with whoever gave you the token, and ask for a new one"
    )]
    Another {
        /// Which.
        address: String,
    },
    /// A gateway said no.
    #[error("{address} refuses: {message}")]
    Refused {
        /// Which.
        address: String,
        /// What it said.
        message: String,
    },
    /// What it answered is not what was asked for.
    #[error("{address} answered with a certificate that cannot be used: {why}")]
    Answer {
        /// Which.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The system has no random numbers.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
}

/// What a token says, as far as it is of interest here. The gateway, not this side, checks the signature.
#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    /// Where to enroll.
    pub iss: String,
    /// The identity.
    pub sub: String,
    /// When it ends, in seconds since 1970 (UTC).
    pub exp: u64,
    em: String,
    #[serde(default)]
    ctrls: Vec<String>,
    #[serde(default)]
    ca: Option<String>,
}

/// What a gateway answers to an enrollment or renewal.
#[derive(Deserialize)]
struct Certified {
    cert: String,
    ca: String,
}

/// A new key and the request for its certificate.
pub(crate) struct Request {
    key: KeyPair,
    pub(crate) csr: String,
}

impl Request {
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok(Self { key, csr })
    }

    pub(crate) fn key(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(self.key.serialize_pem())
    }
}

#[derive(Serialize)]
struct EnrollBody<'a> {
    token: &'a str,
    csr: &'a str,
}

/// Reads a token without believing it.
///
/// # Errors
/// [`EnrollError::Token`].
pub fn read(jwt: &str) -> Result<Claims, EnrollError> {
    #[derive(Deserialize)]
    struct Head {
        alg: String,
    }
    if jwt.len() > MAX_TOKEN {
        return Err(EnrollError::Token("it is too long"));
    }
    let parts: Vec<&str> = jwt.split('.').collect();
    let [head, claims, _signature] = parts[..] else {
        return Err(EnrollError::Token("it must have three parts with dots between them"));
    };
    let decode = |part: &str| {
        BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_bad| EnrollError::Token("it is not base64url"))
    };
    let head: Head = serde_json::from_slice(&decode(head)?)
        .map_err(|_bad| EnrollError::Token("its header cannot be read"))?;
    if head.alg != "ES256" {
        return Err(EnrollError::Token("it is not signed with ES256"));
    }
    let claims: Claims = serde_json::from_slice(&decode(claims)?)
        .map_err(|_bad| EnrollError::Token("it lacks one of iss, sub, exp and em"))?;
    if claims.em != "ott" {
        return Err(EnrollError::Token("it asks for another method than `ott`"));
    }
    Ok(claims)
}

/// Enrolls: asks the gateway that the token names, or one of its other addresses if that cannot be reached. Not cancel
/// safe: a token that was sent may have been used up.
///
/// # Errors
/// [`EnrollError`].
pub async fn enroll(jwt: &str, egress: &Egress) -> Result<IdentityFile, EnrollError> {
    let jwt = jwt.trim();
    let claims = read(jwt)?;
    let now = seconds(SystemTime::now());
    if claims.exp.saturating_add(SKEW) <= now {
        return Err(EnrollError::Expired((now - claims.exp) / 60));
    }
    let pin = claims.ca.as_deref().and_then(pinned::parse).ok_or(EnrollError::Token(
        "its claim `ca`, by which the gateway is known, is missing or no SHA-256; another system made it",
    ))?;
    let addresses = addresses(&claims)?;
    let request = Request::new()?;
    let body = EnrollBody { token: jwt, csr: &request.csr };
    let mut failed = EnrollError::Token("it names no gateway");
    for address in addresses {
        // One for each: it keeps what was shown.
        match call::post(&address, egress, pinned::client(pin), "/v1/enroll", &body).await {
            Ok(answer) => return accept(&claims, &address, answer, &request),
            Err(CallError::Tls(error)) if pinned::is_another(&error) => {
                failed = EnrollError::Another { address: address.to_string() };
            }
            Err(source) => {
                let sent = source.was_sent();
                failed = EnrollError::Call { address: address.to_string(), source };
                if sent {
                    break;
                }
            }
        }
    }
    Err(failed)
}

fn addresses(claims: &Claims) -> Result<Vec<Address>, EnrollError> {
    let not_https = EnrollError::Token("it names a gateway by something else than https://host:port");
    let all = std::iter::once(&claims.iss).chain(&claims.ctrls).take(MAX_ADDRESSES);
    let all: Option<Vec<Address>> = all.map(|text| Address::parse(text)).collect();
    let mut all = all.ok_or(not_https)?;
    let mut seen = Vec::new();
    all.retain(|address| {
        let is_new = !seen.contains(address);
        seen.push(address.clone());
        is_new
    });
    Ok(all)
}

fn accept(
    claims: &Claims,
    address: &Address,
    answer: Answer,
    request: &Request,
) -> Result<IdentityFile, EnrollError> {
    let certified = certified(address, &answer)?;
    let why = |why: &str| EnrollError::Answer { address: address.to_string(), why: why.to_owned() };
    let file = IdentityFile::new(claims.iss.clone(), certified.cert, request.key(), certified.ca)
        .map_err(|error| why(&error.to_string()))?;
    let meant = claims.sub.strip_suffix('.').unwrap_or(&claims.sub);
    if !file.leaf().name.eq_ignore_ascii_case(meant) {
        return Err(why("it is of another identity than the token"));
    }
    verified(file, address, &answer.chain).map_err(|error| why(&error))
}

fn certified(address: &Address, answer: &Answer) -> Result<Certified, EnrollError> {
    if answer.status != StatusCode::OK {
        let message = call::said(answer);
        return Err(EnrollError::Refused { address: address.to_string(), message });
    }
    serde_json::from_slice(&answer.body).map_err(|error| EnrollError::Answer {
        address: address.to_string(),
        why: format!("it cannot be read ({error})"),
    })
}

/// Checks an answer to a renewal.
pub(crate) fn renewed(
    old: &IdentityFile,
    address: &Address,
    answer: &Answer,
    request: &Request,
) -> Result<IdentityFile, EnrollError> {
    let certified = certified(address, answer)?;
    let why = |why: String| EnrollError::Answer { address: address.to_string(), why };
    let file = old
        .renewed(certified.cert, request.key(), certified.ca)
        .map_err(|error: IdentityError| why(error.to_string()))?;
    if file.leaf().name != old.leaf().name {
        return Err(why("it is of another identity".to_owned()));
    }
    verified(file, address, &answer.chain).map_err(why)
}

/// Checks that the certificate follows from its authorities, and that the gateway that gave it will be believed next
/// time: where its own certificate is of somebody else, the last of the chain it showed joins the authorities.
fn verified(
    file: IdentityFile,
    address: &Address,
    shown: &[CertificateDer<'static>],
) -> Result<IdentityFile, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(file.roots().iter().cloned());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), adit_tunnel::tls::provider())
        .build()
        .map_err(|error| error.to_string())?;
    let (leaf, between) = file.chain().split_first().ok_or("it is empty")?;
    verifier
        .verify_client_cert(leaf, between, UnixTime::now())
        .map_err(|error| format!("it does not follow from the authorities beside it ({error})"))?;
    let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
    let (Some((leaf, between)), Some(last)) = (shown.split_first(), shown.last()) else {
        return Ok(file);
    };
    let believes = |file: &IdentityFile| -> Result<bool, String> {
        let copy = IdentityFile::new(
            file.api().to_owned(),
            file.chain().iter().map(certificate_pem).collect(),
            file.key(),
            file.ca().to_owned(),
        )
        .map_err(|error| error.to_string())?;
        let live = LiveIdentity::new(copy).map_err(|error| error.to_string())?;
        Ok(live.verify_server_cert(leaf, between, &name, &[], UnixTime::now()).is_ok())
    };
    if believes(&file)? {
        return Ok(file);
    }
    let ca = format!("{}{}", file.ca(), certificate_pem(last));
    let wider = file
        .renewed(file.chain().iter().map(certificate_pem).collect(), file.key(), ca)
        .map_err(|error| error.to_string())?;
    if believes(&wider)? { Ok(wider) } else { Ok(file) }
}

/// Seconds since 1970 (UTC).
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests;
