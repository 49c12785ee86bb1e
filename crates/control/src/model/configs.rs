//! Typed configs of services, as OpenZiti writes them: `host.v1` and `intercept.v1`. Unknown properties are refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The types of configs that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum ConfigType {
    /// [`HostV1`].
    #[serde(rename = "host.v1")]
    HostV1,
    /// [`InterceptV1`].
    #[serde(rename = "intercept.v1")]
    InterceptV1,
}

impl ConfigType {
    /// Whether these are settings of this type.
    ///
    /// # Errors
    /// A sentence that names the property.
    pub fn check(self, data: &Value) -> Result<(), String> {
        match self {
            Self::HostV1 => HostV1::read(data).map(drop),
            Self::InterceptV1 => InterceptV1::read(data).map(drop),
        }
    }
}

impl fmt::Display for ConfigType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostV1 => "host.v1",
            Self::InterceptV1 => "intercept.v1",
        })
    }
}

impl FromStr for ConfigType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "host.v1" => Ok(Self::HostV1),
            "intercept.v1" => Ok(Self::InterceptV1),
            _ => Err(format!("`{text}` is no type of config; there are host.v1 and intercept.v1")),
        }
    }
}

/// How whoever hosts a service reaches what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HostV1 {
    /// `tcp` or `udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Host name or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl HostV1 {
    /// Reads and checks.
    ///
    /// # Errors
    /// A sentence that names the property.
    pub fn read(data: &Value) -> Result<Self, String> {
        Self::deserialize(data).map_err(|error| format!("host.v1: {error}"))
    }
}

/// What a dialing side takes for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InterceptV1 {
    /// `tcp`, `udp`.
    pub protocols: Vec<String>,
    /// Host names, `*.wild`, addresses, networks.
    pub addresses: Vec<String>,
    /// Ports.
    pub port_ranges: Vec<PortRange>,
    /// How the dial is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_options: Option<DialOptions>,
}

/// A range of ports, first and last included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// First.
    pub low: u16,
    /// Last.
    pub high: u16,
}

/// How a dial is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DialOptions {
    /// The hosting identity that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout_seconds: Option<u32>,
}

impl InterceptV1 {
    /// Reads and checks.
    ///
    /// # Errors
    /// A sentence that names the property.
    pub fn read(data: &Value) -> Result<Self, String> {
        Self::deserialize(data).map_err(|error| format!("intercept.v1: {error}"))
    }
}
