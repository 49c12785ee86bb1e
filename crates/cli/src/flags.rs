//! What several commands' flags have in common: Go-style booleans, addresses, allow lists, logging.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use adit_telemetry::secret::Secret;
use clap::Args;
use ipnet::IpNet;

use crate::config::values::{LogFormat, LogLevel, LogSettings};

/// Reads a boolean as Go's flag package does, so that every script written for the neighbours keeps working.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Takes a secret from the command line; an empty one is most often a variable that is not set.
pub(crate) fn secret(text: &str) -> Result<Secret, String> {
    Secret::new(text.to_owned())
        .map_err(|cause| format!("{cause}; check that the variable in your command line is set"))
}

/// Reads an address to bind: an IP address, in brackets or not, or `localhost`.
pub(crate) fn bind_ip(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_not_an_address| "write an IP address such as 0.0.0.0, 127.0.0.1 or ::".to_owned())
}

/// Reads an IP address or a CIDR; an address is the network of itself alone.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_not_a_network| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_neither| "write an IP address or a CIDR such as 203.0.113.7 or 10.0.0.0/8".to_owned())
}

/// Reads `https://HOST:PORT`, the control port as those who enroll reach it.
pub(crate) fn control_url(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is no control port; write https://HOST:PORT");
    let rest = text.strip_prefix("https://").ok_or_else(wrong)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let authority: http::uri::Authority = rest.parse().map_err(|_bad| wrong())?;
    if authority.host().is_empty() || rest.contains('@') || authority.port_u16().is_none_or(|port| port == 0)
    {
        return Err(wrong());
    }
    Ok(format!("https://{rest}"))
}

/// A port, or several in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRange(RangeInclusive<u16>);

impl PortRange {
    /// The ports.
    pub(crate) const fn as_inner(&self) -> &RangeInclusive<u16> {
        &self.0
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (self.0.start(), self.0.end());
        if low == high { write!(f, "{low}") } else { write!(f, "{low}-{high}") }
    }
}

/// Reads a port or a range of ports.
pub(crate) fn port_range(text: &str) -> Result<PortRange, String> {
    let port = |text: &str| {
        let digits = text.trim();
        digits
            .parse()
            .ok()
            .filter(|&port: &u16| port != 0)
            .ok_or_else(|| format!("`{digits}` is not a port (1 to 65535)"))
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err(format!("the range ends before it begins; write {high}-{low}"));
    }
    Ok(PortRange(low..=high))
}

/// How a role started from flags logs.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LogArgs {
    /// How much is logged on standard error.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
    /// How log lines are written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl LogArgs {
    /// As the logger takes it.
    pub(crate) const fn settings(self) -> LogSettings {
        LogSettings { level: self.log_level, format: self.log_format }
    }

    /// The flags that differ from the defaults, for generated units.
    pub(crate) fn arguments(self) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.log_level != LogLevel::Info {
            arguments.push(format!("--log-level={}", self.log_level.label()));
        }
        if self.log_format != LogFormat::Text {
            arguments.push(format!("--log-format={}", self.log_format.label()));
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_read_in_every_spelling() {
        assert_eq!(bind_ip("[::1]"), Ok("::1".parse().unwrap()));
        assert_eq!(bind_ip("localhost"), Ok("127.0.0.1".parse().unwrap()));
        assert!(bind_ip("example.com").is_err());
        assert_eq!(network("203.0.113.7").unwrap().to_string(), "203.0.113.7/32");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn ports_are_single_or_ranges() {
        assert_eq!(port_range("22").unwrap().as_inner(), &(22..=22));
        assert_eq!(port_range("8000-8010").unwrap().to_string(), "8000-8010");
        for text in ["", "0", "65536", "8010-8000", "1-", "-1", "a-b", "1-2-3"] {
            assert!(port_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn booleans_are_gos() {
        assert_eq!(go_bool("t"), Ok(true));
        assert_eq!(go_bool("FALSE"), Ok(false));
        assert!(go_bool("yes").is_err());
    }
}
