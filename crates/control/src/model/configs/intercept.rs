//! `intercept.v1`: what a dialing side takes for itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::values::check_variables;
use super::{Address, ConfigType, PortRange, Protocol, problem, read};

/// What a dialing side takes for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InterceptV1 {
    /// What is carried.
    pub protocols: Vec<Protocol>,
    /// Host names, `*.wild`, addresses, networks.
    pub addresses: Vec<Address>,
    /// Ports.
    pub port_ranges: Vec<PortRange>,
    /// How the dial is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_options: Option<DialOptions>,
    /// Which address the hosting side connects from; may hold `$tunneler_id.name`, `$tunneler_id.tag[x]`, `$src_ip`,
    /// `$src_port`, `$dst_port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<String>,
    /// From which addresses connections are taken; `None`: from all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_source_addresses: Option<Vec<Address>>,
}

/// How a dial is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DialOptions {
    /// The hosting identity that is wanted; may hold `$dst_protocol`, `$dst_ip`, `$dst_port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout_seconds: Option<u32>,
}

const IN_SOURCE_IP: [&str; 5] = ["tunneler_id.name", "tunneler_id.tag[", "src_ip", "src_port", "dst_port"];
const IN_IDENTITY: [&str; 3] = ["dst_protocol", "dst_ip", "dst_port"];

impl InterceptV1 {
    /// Reads and checks.
    ///
    /// # Errors
    /// A sentence that names the property.
    pub fn read(data: &Value) -> Result<Self, String> {
        let config: Self = read(ConfigType::InterceptV1, data)?;
        match config.wrong() {
            None => Ok(config),
            Some((path, what)) => Err(problem(ConfigType::InterceptV1, &path, &what)),
        }
    }

    fn wrong(&self) -> Option<(String, String)> {
        let empty = [
            ("protocols", self.protocols.is_empty()),
            ("addresses", self.addresses.is_empty()),
            ("portRanges", self.port_ranges.is_empty()),
        ];
        if let Some((name, _)) = empty.into_iter().find(|(_, is_empty)| *is_empty) {
            return Some((name.to_owned(), "the list is empty; nothing would be intercepted".to_owned()));
        }
        if let Err((at, what)) = PortRange::check(&self.port_ranges) {
            return Some((format!("portRanges[{at}]"), what));
        }
        let identity = self.dial_options.as_ref().and_then(|options| options.identity.as_deref());
        let texts = [
            ("dialOptions.identity", identity, &IN_IDENTITY[..]),
            ("sourceIp", self.source_ip.as_deref(), &IN_SOURCE_IP[..]),
        ];
        texts.into_iter().find_map(|(path, text, known)| {
            let what = check_variables(text?, known).err()?;
            Some((path.to_owned(), what))
        })
    }

    /// Whether it takes connections to a host's port.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.port_ranges.iter().any(|range| range.contains(port))
            && self.addresses.iter().any(|address| address.matches(host))
    }
}
