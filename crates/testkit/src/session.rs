//! An agent of a test's own making: it proves a token and then does what the test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use adit_proto::handshake::{Hello, Offer, PROOF_LEN};
use adit_proto::names::InstanceId;
use adit_tunnel::handshake::{Credential, HandshakeError, greet};
use adit_tunnel::proof::TokenKey;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Session, Side};
use adit_tunnel::transport::{Dialled, Framing, Route, dial};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::certificate::credulous;
use crate::wait::PATIENCE;
use crate::within;

/// Says a hello that is welcome. What comes next on the connection is for the caller to say.
///
/// # Errors
/// What became of the handshake.
pub async fn introduce(
    tls: &Arc<ClientConfig>,
    control: SocketAddr,
    token: &str,
    (instance, generation): (u8, u64),
    hosts: &[&str],
) -> Result<(impl AsyncRead + AsyncWrite + Send + Unpin + use<>, &'static str), HandshakeError> {
    let host = control.ip().to_string();
    let route = Route { host: &host, port: control.port(), address: None, proxy: None };
    let dialled = dial(route, tls, Framing::Bare, PATIENCE, &AtomicBool::new(false)).await.unwrap();
    let Dialled { mut io, exporter, handshake } = dialled;
    let offer = |host: &&str| Offer { service: host.parse().unwrap(), upstream: "http://puppet".to_owned() };
    let hello = Hello {
        versions: (1, 1),
        capabilities: 0,
        instance: InstanceId::from_bytes([instance; 16]),
        generation,
        release: "test".to_owned(),
        hostname: "test".to_owned(),
        offers: hosts.iter().map(offer).collect(),
        proof: [0; PROOF_LEN],
    };
    let credential = Credential::Token(TokenKey::new(token.as_bytes()));
    within("the handshake", greet(&mut io, hello, &credential, &exporter)).await?;
    Ok((io, handshake))
}

/// A session with nobody behind it. Its end is sudden when this is dropped.
#[derive(Debug)]
pub struct Puppet {
    /// The session.
    pub session: Session,
    /// How TLS began: `full` or `resumed`.
    pub handshake: &'static str,
    scope: Scope,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl Puppet {
    /// Opens a session as this instance and generation, offering these hosts.
    ///
    /// # Errors
    /// What became of the handshake.
    pub async fn greet(
        control: SocketAddr,
        token: &str,
        who: (u8, u64),
        hosts: &[&str],
    ) -> Result<Self, HandshakeError> {
        Self::greet_again(&credulous(Framing::Bare.alpn()), control, token, who, hosts).await
    }

    /// The same with a TLS configuration that may know the gateway from earlier.
    ///
    /// # Errors
    /// What became of the handshake.
    pub async fn greet_again(
        tls: &Arc<ClientConfig>,
        control: SocketAddr,
        token: &str,
        (instance, generation): (u8, u64),
        hosts: &[&str],
    ) -> Result<Self, HandshakeError> {
        let (io, handshake) = introduce(tls, control, token, (instance, generation), hosts).await?;
        let scope = Scope::new();
        Ok(Self { session: Session::start(io, Side::Agent, &scope), handshake, scope })
    }

    /// Runs something beside the test for as long as this lives.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.scope.spawn("puppet", task);
    }
}
