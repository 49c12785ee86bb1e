//! What of a configuration can change while the gateway runs: rules, bounds, the request log, public listeners, and
//! certificates from files. Everything that can fail comes first; nothing that is open notices.

use std::sync::Arc;

use adit_control::changes::OwnPorts;
use adit_control::{Changes, Local, Rules};

use crate::Config;
use crate::config::Tls;
use crate::live::Live;
use crate::observe::Observe;
use crate::publics::Publics;
use crate::server::StartError;
use crate::tcp::ports::Ports;
use crate::tls::{Identity, Served};

/// What a reload replaces.
#[derive(Debug)]
pub(crate) struct Reloadable {
    pub(crate) changes: Arc<Changes>,
    pub(crate) live: Arc<Live>,
    pub(crate) observe: Observe,
    pub(crate) publics: Publics,
    pub(crate) ports: Ports,
    /// The port that agents and operators connect to.
    pub(crate) control_port: u16,
    /// What it serves, where that comes from files.
    pub(crate) control_served: Option<Arc<Served>>,
}

impl Reloadable {
    /// Puts in force what can be.
    ///
    /// # Errors
    /// A certificate cannot be used, or a listener not be bound; nothing has changed.
    pub(crate) fn replace(&self, config: &Config) -> Result<(), StartError> {
        let of_control = match (&self.control_served, &config.control.tls) {
            (Some(served), Tls::Files { cert, key }) => Some((served, Identity::from_files(cert, key)?)),
            _ => None,
        };
        let publics = self.publics.prepare(&config.http)?;
        if let Some((served, identity)) = of_control {
            served.replace(&identity.served);
        }
        self.live.replace(config);
        self.observe.request_log(config.request_log.clone());
        self.publics.replace(publics);
        self.own_ports();
        self.changes.replace_local(local(config));
        // Last: ports take connections on other threads, and what comes in by these settings is decided by those rules.
        // Whatever stands is decided about again.
        self.ports.replace(config.tcp.clone());
        Ok(())
    }

    /// Ports that are the gateway's own cannot be offered, and no route leads from them.
    pub(crate) fn own_ports(&self) {
        let publics = self.publics.addrs();
        let own: OwnPorts = publics
            .iter()
            .map(|addr| (addr.port(), "http"))
            .chain([(self.control_port, "control port")])
            .collect();
        self.ports.set_own(own.keys().copied().collect());
        self.changes.reserve(own);
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
