//! The gateway's side of QUIC.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Incoming};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;

use super::{QuicIo, Role, WINDOW, bind, endpoint_on, exporter, settings};
use crate::proof::Exporter;

/// Connections that wait to be looked at; more are refused by the library.
const MAX_INCOMING: usize = 4096;
/// Bytes of early packets held for one of them, and for all.
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFERS: u64 = 8 * 1024 * 1024;

/// The least time between two packets that say "this connection is gone". After a restart each agent needs one; they
/// are smaller than what they answer.
const RESET_INTERVAL: Duration = Duration::from_millis(1);
/// Bytes of a connection's id.
const ID: usize = 8;

/// Ids that say nothing, and that a later life of the gateway answers to. (The library's own would be unknown to it,
/// and what is sent to them dropped without a word.)
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID];
        if aws_lc_rs::rand::fill(&mut id).is_err() {
            // Nothing here works then, TLS first of all.
            tracing::error!("the system has no random numbers");
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A UDP port that agents connect to.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
}

impl Listener {
    /// Binds an address.
    ///
    /// `secret` is the same in every life of this gateway: with it, after it was started again, it can tell the other
    /// ends of connections of its former life that these are gone, in a way that nobody else can.
    ///
    /// # Errors
    /// What the system said.
    pub fn bind(addr: SocketAddr, tls: &Arc<ServerConfig>, secret: &[u8; 32]) -> io::Result<Self> {
        let crypto = QuicServerConfig::try_from(Arc::clone(tls)).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server
            .transport_config(settings(Role::Gateway))
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFERS);
        let reset = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"quic stateless reset");
        let reset = hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref());
        let mut config = EndpointConfig::new(Arc::new(reset));
        config.min_reset_interval(RESET_INTERVAL);
        config.cid_generator(|| Box::new(RandomIds));
        Ok(Self { endpoint: endpoint_on(bind(addr)?, config, Some(server))? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next connection that is asked for; `None` when the port is closed. Cancel safe.
    pub async fn accept(&self) -> Option<Arriving> {
        self.endpoint.accept().await.map(Arriving)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Connections that stand go on; nobody else is let in.
        self.endpoint.set_server_config(None);
    }
}

/// A connection that is asked for. Dropping it refuses it.
#[derive(Debug)]
pub struct Arriving(Incoming);

impl Arriving {
    /// Where it says it comes from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Has it show that it really is where it says, which costs it a round trip and this side nothing. Comes back if
    /// it has shown that already.
    #[must_use]
    pub fn challenge(self) -> Option<Self> {
        self.0.retry().err().map(|error| Self(error.into_incoming()))
    }

    /// Refuses it.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Finishes the handshake and waits for the stream of its session. Comes with the certificates that the other end
    /// has shown, its own first. Cancel safe: then the connection is closed.
    ///
    /// # Errors
    /// What became of it.
    pub async fn accept(self) -> io::Result<(QuicIo, Exporter, Vec<CertificateDer<'static>>)> {
        let connection = self.0.accept()?.await?;
        let exporter = exporter(&connection)?;
        let (send, recv) = connection.accept_bi().await?;
        let shown = connection.peer_identity().and_then(|shown| shown.downcast().ok());
        let shown = shown.map_or_else(Vec::new, |shown| *shown);
        Ok((QuicIo::new(connection, send, recv), exporter, shown))
    }
}

impl QuicIo {
    /// The other end has proved who it is: from now on it may send as much as an agent needs to.
    #[must_use]
    pub fn trust(&self) -> Trusting {
        Trusting(Arc::downgrade(&self.connection))
    }
}

/// Gives a connection the windows of an agent, when the time has come.
#[derive(Debug)]
pub struct Trusting(Weak<Connection>);

impl Trusting {
    /// Now. Does nothing when the connection is gone.
    pub fn now(&self) {
        if let Some(connection) = self.0.upgrade() {
            connection.set_receive_window(WINDOW.into());
        }
    }
}
