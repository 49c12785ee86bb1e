//! Composition: binds the listeners, starts what serves them, and the order of a drain.

use std::net::SocketAddr;

use crate::Config;

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {addr} ({purpose})")]
    Bind {
        /// Which listener.
        purpose: &'static str,
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A certificate could not be loaded or made.
    #[error("{what}")]
    Tls {
        /// What was tried, on which file.
        what: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A running gateway. Dropping it aborts everything it carries; [`Gateway::drain`] is the polite way.
#[derive(Debug)]
pub struct Gateway {
    control_addr: SocketAddr,
    http_addrs: Vec<SocketAddr>,
}

impl Gateway {
    /// Binds every listener and starts serving. All addresses are bound before the first is served.
    ///
    /// # Errors
    /// [`StartError`] when a listener cannot be bound or a certificate not be had.
    #[expect(clippy::unused_async, reason = "placeholder body")]
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Ok(Self {
            control_addr: config.control.listen,
            http_addrs: config.http.iter().map(|l| l.listen).collect(),
        })
    }

    /// The control port's bound address.
    #[must_use]
    pub const fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    /// The public listeners' bound addresses, in the order of the configuration.
    #[must_use]
    pub fn http_addrs(&self) -> &[SocketAddr] {
        &self.http_addrs
    }

    /// Stops accepting, tells agents, lets open flows finish within the configured time, then ends the rest.
    /// Returns how many flows had to be cut.
    pub async fn drain(self) -> usize {
        std::future::ready(0).await
    }
}
