//! The values that properties of configs have.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use adit_proto::names::{HostPattern, Hostname};
use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A range of ports, first and last included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// First.
    #[serde(deserialize_with = "port")]
    pub low: u16,
    /// Last.
    #[serde(deserialize_with = "port")]
    pub high: u16,
}

impl PortRange {
    /// Whether a port is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }

    /// Whether all ranges have a low end that is not above the high one.
    pub(super) fn check(ranges: &[Self]) -> Result<(), (usize, String)> {
        let wrong = ranges.iter().enumerate().find(|(_, range)| range.low > range.high);
        let Some((at, range)) = wrong else { return Ok(()) };
        Err((at, format!("low is {} and high {}; low must not be above high", range.low, range.high)))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high } = self;
        if low == high { write!(f, "{low}") } else { write!(f, "{low}-{high}") }
    }
}

/// A port, with an error that says what ports are.
pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| D::Error::custom(format_args!("{number} is no port; ports are 1 to 65535")))
}

/// The same where there may be none.
pub(super) fn optional_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    port(deserializer).map(Some)
}

/// What is written as text and read back from it.
macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )+};
}
pub(super) use as_text;

as_text!(Address, Span, HostPort);

/// Where something is, or may come from: a host name, everything below a domain, an address or a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `kubea.reflect.svc`.
    Host(Hostname),
    /// `*.wild`.
    Wild(Hostname),
    /// `10.0.0.1`.
    Ip(IpAddr),
    /// `10.0.0.0/8`.
    Net(IpNet),
}

impl Address {
    /// Whether a host is this one, or one of these. A host name is never compared with an address.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let ip: Option<IpAddr> = bare.parse().ok();
        match (self, ip) {
            (Self::Ip(own), Some(ip)) => *own == ip,
            (Self::Net(net), Some(ip)) => net.contains(&ip),
            (Self::Host(own), None) => host.parse().is_ok_and(|host: Hostname| *own == host),
            (Self::Wild(domain), None) => {
                let below = HostPattern::Suffix(domain.clone());
                host.parse().is_ok_and(|host| below.matches(&host))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::Wild(domain) => write!(f, "*.{domain}"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Net(net) => net.fmt(f),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if text.contains('/') {
            let bad = |_| format!("`{text}` is no network; write 10.0.0.0/8 or 2001:db8::/32");
            return text.parse().map(Self::Net).map_err(bad);
        }
        match text.parse() {
            Ok(HostPattern::Exact(host)) => Ok(Self::Host(host)),
            Ok(HostPattern::Suffix(domain)) => Ok(Self::Wild(domain)),
            Ok(HostPattern::Any) => {
                Err("`*` alone is not possible; write the domain too, as in *.example.com".to_owned())
            }
            Err(error) => Err(format!("`{text}` is no host name, *.domain, address or network: {error}")),
        }
    }
}

/// A time, written with its units: `5s`, `1m30s`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// The units, the largest first, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("s", 1_000_000_000),
];

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for unit in ["h", "m", "s", "ms", "us", "ns"] {
            let size = UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, size)| *size);
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no time; write a number with its unit, as in 5s, 1m30s or 250ms");
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let (unit, size) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(bad)?;
            let nanos = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*size));
            total = nanos.and_then(|nanos| total.checked_add(nanos)).ok_or_else(bad)?;
            rest = tail.get(unit.len()..).unwrap_or_default();
        }
        if text.is_empty() { Err(bad()) } else { Ok(Self(Duration::from_nanos(total))) }
    }
}

/// A host with a port: `localhost:5432`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The host.
    pub host: Hostname,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let to: adit_proto::names::Destination = text
            .parse()
            .map_err(|error| format!("`{text}` is no host with a port, as in localhost:5432: {error}"))?;
        Ok(Self { host: to.host, port: to.port })
    }
}

/// Whether the variables (`$name`) in a text are known ones.
pub(super) fn check_variables(text: &str, known: &[&str]) -> Result<(), String> {
    for after in text.split('$').skip(1) {
        let is_known = |name: &&&str| {
            let rest = after.strip_prefix(**name);
            // `tag[` is closed by a bracket; other names end where the word does.
            rest.is_some_and(|rest| match name.ends_with('[') {
                true => rest.contains(']'),
                false => !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'),
            })
        };
        if !known.iter().any(|name| is_known(&name)) {
            let word: String =
                after.chars().take_while(|c| c.is_ascii_alphanumeric() || "_.".contains(*c)).collect();
            let shown = known
                .iter()
                .map(|name| if name.ends_with('[') { format!("${name}x]") } else { format!("${name}") });
            let shown: Vec<String> = shown.collect();
            return Err(format!("there is no variable `${word}`; there are {}", shown.join(", ")));
        }
    }
    Ok(())
}
