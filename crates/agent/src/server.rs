//! Composition: keeps a session to the gateway, serves its streams, and drains.

use std::net::SocketAddr;

use crate::Config;

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its own metrics listener could not be bound.
    #[error("cannot listen on {addr} (the agent's own metrics)")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Something it was told to use cannot be used.
    #[error("{what}")]
    Setup {
        /// What was tried, on which file.
        what: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A running agent. Dropping it aborts everything it carries; [`Agent::drain`] is the polite way.
#[derive(Debug)]
pub struct Agent {
    listen_addr: Option<SocketAddr>,
}

impl Agent {
    /// Starts the agent. It connects in the background and for ever; use [`Agent::connected`] to wait for it.
    ///
    /// # Errors
    /// [`StartError`] when something it was told to use cannot be used.
    #[expect(clippy::unused_async, reason = "placeholder body")]
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Ok(Self { listen_addr: config.listen })
    }

    /// Where its own `/metrics` listens, when asked to.
    #[must_use]
    pub const fn listen_addr(&self) -> Option<SocketAddr> {
        self.listen_addr
    }

    /// Waits until a session stands. Cancel safe.
    pub async fn connected(&self) {
        std::future::ready(()).await;
    }

    /// Waits until the gateway has refused this agent for a reason that trying again will not mend soon, and
    /// returns the refusal's text. The agent keeps trying all the same. Cancel safe.
    pub async fn refused(&self) -> String {
        std::future::pending().await
    }

    /// Tells the gateway, takes no new streams, lets open ones finish within the configured time, then ends the
    /// rest. Returns how many streams had to be cut.
    pub async fn drain(self) -> usize {
        std::future::ready(0).await
    }
}
