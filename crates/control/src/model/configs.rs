//! Typed configs of services, as OpenZiti writes them: `host.v1` and `intercept.v1`. Unknown properties are refused.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use host::{
    Action, AddressTranslation, CheckAction, HostV1, HttpCheck, ListenOptions, PortCheck, Precedence, Proxy,
    ProxyType, Trigger,
};
pub use intercept::{DialOptions, InterceptV1};
pub use values::{Address, HostPort, PortRange, Protocol, Span};

mod host;
mod intercept;
mod values;

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

/// Reads settings; an error begins with the type and says where it is.
fn read<T: DeserializeOwned>(kind: ConfigType, data: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(data).map_err(|error| {
        let path = error.path().to_string();
        problem(kind, &path, &reworded(&error.into_inner().to_string()))
    })
}

fn problem(kind: ConfigType, path: &str, what: &str) -> String {
    match path {
        "" | "." => format!("{kind}: {what}"),
        _ => format!("{kind}: {path}: {what}"),
    }
}

/// What the library says about a property that does not exist, with the one that may have been meant.
fn reworded(text: &str) -> String {
    if !text.starts_with("unknown field") {
        return text.to_owned();
    }
    let mut quoted = text.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next() else { return text.to_owned() };
    let known: Vec<&str> = quoted.collect();
    let hint = crate::near::nearest(unknown, known.iter().copied())
        .map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    format!("there is no property `{unknown}`; {hint}there are {}", known.join(", "))
}

#[cfg(test)]
mod tests;
