//! What of a configuration can change while the gateway runs: the rules, and certificates from files.

use std::net::SocketAddr;
use std::sync::Arc;

use adit_control::{Changes, Local, Rules};

use crate::Config;
use crate::config::Tls;
use crate::server::StartError;
use crate::tls::{Identity, Served};

/// What a reload replaces.
#[derive(Debug)]
pub(crate) struct Reloadable {
    pub(crate) changes: Arc<Changes>,
    /// What each listener with TLS serves, by the address that was configured.
    pub(crate) served: Vec<(SocketAddr, Arc<Served>)>,
}

impl Reloadable {
    /// Puts in force what can be. Everything that can fail comes first.
    ///
    /// # Errors
    /// A certificate cannot be used; nothing has changed.
    pub(crate) fn replace(&self, config: &Config) -> Result<(), StartError> {
        let mut certificates = Vec::new();
        for (addr, served) in &self.served {
            if let Some(Tls::Files { cert, key }) = tls_at(config, *addr) {
                certificates.push((served, Identity::from_files(cert, key)?.served));
            }
        }
        for (served, new) in certificates {
            served.replace(&new);
        }
        self.changes.replace_local(local(config));
        Ok(())
    }
}

/// What a configuration adds to resources.
pub(crate) fn local(config: &Config) -> Local {
    let rules = Rules {
        allow: config.allow.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        client_forwarding: config.client_forwarding,
    };
    Local { rules, tokens: config.tokens.clone() }
}

fn tls_at(config: &Config, addr: SocketAddr) -> Option<&Tls> {
    let public = config.http.iter().find(|listener| listener.listen == addr);
    let control = (config.control.listen == addr).then_some(&config.control.tls);
    control.or_else(|| public?.tls.as_ref())
}
