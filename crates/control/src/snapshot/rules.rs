//! What the configuration file says: rules about addresses, and tokens of its own.

use std::net::IpAddr;

use adit_proto::name::Name;
use ipnet::IpNet;

use crate::model::{Limits, SecretText, Token};

/// What an operator has decided about addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Addresses that may use public listeners. Empty: everyone.
    pub allow: Vec<IpNet>,
    /// Proxies whose word about the client's address is believed. Empty: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether agents may have the gateway connect to addresses of its own network.
    pub client_forwarding: bool,
}

impl Rules {
    /// Whether clients at this address may use public listeners.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.is_empty() || holds(&self.allow, address)
    }

    /// Whether a proxy at this address is believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        holds(&self.trusted_proxies, address)
    }
}

/// On a dual-stack listener an IPv4 client looks like `::ffff:a.b.c.d`; rules mean the address itself.
fn holds(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

/// What the configuration file adds to the resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// Rules about addresses.
    pub rules: Rules,
    /// Tokens. One of a name takes the place of a stored one of the same name.
    pub tokens: Vec<LocalToken>,
}

/// A token of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalToken {
    /// What it may do.
    pub token: Token,
    /// Its secret.
    pub secret: SecretText,
}

impl LocalToken {
    /// One whose agents may offer everything.
    #[must_use]
    pub fn new(name: Name, secret: SecretText) -> Self {
        let limits = Limits::default();
        let token =
            Token { name, attributes: Vec::new(), limits, admin: false, metrics: false, disabled: false };
        Self { token, secret }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_trusted_unless_named() {
        assert!(!Rules::default().trusts("127.0.0.1".parse().unwrap()));
    }
}
