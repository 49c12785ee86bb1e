//! Names as parsed types: what has one of these types is well formed and lower case.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::MAX_NAME;
use crate::name::{BadName, Name};

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name must not be empty")]
    Empty,
    /// Over 253 bytes.
    #[error("a name must not be longer than {MAX_NAME} bytes")]
    TooLong,
    /// A byte that no host name has.
    #[error("`{0}` is not allowed in a host name")]
    Character(char),
    /// An empty label (two dots in a row, or a dot in front), or one over 63 bytes.
    #[error("each part between dots must have 1 to 63 characters")]
    Label,
    /// A star anywhere but as the whole first label.
    #[error("`*` may only stand alone or in front, as in `*.example.com`")]
    Wildcard,
    /// Not a port after `tcp:`.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// No name of a service after `@`.
    #[error(transparent)]
    Service(#[from] BadName),
    /// Not 32 lower-case hexadecimal digits.
    #[error("an instance id is 32 lower-case hexadecimal digits")]
    InstanceId,
}

/// A host name: lower case, no trailing dot, no port. May be an address literal (IPv6 in brackets).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hostname {
    type Err = NameError;

    /// Folds case and drops one trailing dot. Letters, digits, `-`, `_` and `.` are allowed, as is a
    /// bracketed IPv6 address.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: std::net::Ipv6Addr = inner.parse().map_err(|_not_ipv6| NameError::Character('['))?;
            return Ok(Self(format!("[{address}]").into()));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        for label in text.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(NameError::Label);
            }
        }
        if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
            return Err(if c == '*' { NameError::Wildcard } else { NameError::Character(c) });
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

/// Which hosts a service answers for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// One host: `example.com`.
    Exact(Hostname),
    /// Every host below a domain, at any depth, but not the domain itself: `*.example.com`.
    Suffix(Hostname),
    /// Every host no other pattern answers for: `*`.
    Any,
}

impl HostPattern {
    /// Whether this pattern answers for a host.
    #[must_use]
    pub fn matches(&self, host: &Hostname) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Suffix(domain) => host
                .as_str()
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Self::Any => true,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Suffix(domain) => write!(f, "*.{domain}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        text.strip_prefix("*.")
            .map_or_else(|| text.parse().map(Self::Exact), |domain| domain.parse().map(Self::Suffix))
    }
}

/// What a service is reached by: hosts of the HTTP listeners, or a public port of its own.
///
/// As text a port has its protocol in front, `tcp:5432`, and a name has `@`; no host pattern has either in it, so they
/// never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceName {
    /// HTTP requests for these hosts.
    Host(HostPattern),
    /// Every connection to this TCP port.
    Tcp(u16),
    /// Dials of a service by its name.
    Named(Name),
    /// Not offered by anybody: where an agent asks the gateway to connect to.
    Dial(Destination),
}

/// A host and a port, as in `127.0.0.1:3000` or `[::1]:3000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The host.
    pub host: Hostname,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Destination {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (host, port) = text.rsplit_once(':').ok_or(NameError::Port)?;
        Ok(Self { host: host.parse()?, port: parse_port(port)? })
    }
}

/// What canaries are for: streams that the agent itself answers with what they brought. No name of a host that could
/// be served (RFC 2606 §2).
///
/// # Panics
/// Never: the name is one.
#[must_use]
pub fn canary() -> ServiceName {
    ServiceName::Host(HostPattern::Exact(Hostname("adit-canary.invalid".into())))
}

/// Where an agent asks the gateway why it does not reach a service: it sends the name and reads a text.
///
/// # Panics
/// Never: the name is one.
#[must_use]
pub fn explain() -> ServiceName {
    ServiceName::Host(HostPattern::Exact(Hostname("adit-explain.invalid".into())))
}

impl ServiceName {
    /// The TCP port, if it is reached by one.
    #[must_use]
    pub const fn tcp_port(&self) -> Option<u16> {
        match self {
            Self::Host(_) | Self::Named(_) | Self::Dial(_) => None,
            Self::Tcp(port) => Some(*port),
        }
    }
}

impl From<HostPattern> for ServiceName {
    fn from(hosts: HostPattern) -> Self {
        Self::Host(hosts)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(hosts) => hosts.fmt(f),
            Self::Tcp(port) => write!(f, "tcp:{port}"),
            Self::Named(name) => write!(f, "@{name}"),
            Self::Dial(to) => write!(f, "dial:{to}"),
        }
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(to) = text.strip_prefix("dial:") {
            return to.parse().map(Self::Dial);
        }
        if let Some(name) = text.strip_prefix('@') {
            return name.parse().map(Self::Named).map_err(NameError::Service);
        }
        text.strip_prefix("tcp:")
            .map_or_else(|| text.parse().map(Self::Host), |port| parse_port(port).map(Self::Tcp))
    }
}

/// A port in the one way it is written: digits, no sign, no zero in front.
fn parse_port(text: &str) -> Result<u16, NameError> {
    let well_formed = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| well_formed).ok_or(NameError::Port)
}

/// Names one running agent process: 32 lower-case hexadecimal digits, made at start. It is the `clientID` of
/// `/status`, and what lets a returning agent replace its own old session and nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId([u8; 16]);

impl InstanceId {
    /// An id from 16 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for InstanceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let well_formed = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value =
            u128::from_str_radix(text, 16).ok().filter(|_| well_formed).ok_or(NameError::InstanceId)?;
        Ok(Self(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        text.parse().unwrap()
    }

    #[test]
    fn host_names_compare_without_case_or_trailing_dot() {
        assert_eq!(host("KubeA.Reflect.svc."), host("kubea.reflect.svc"));
        assert_eq!(host("[0:0::1]").as_str(), "[::1]");
    }

    #[test]
    fn malformed_names_are_refused_with_the_reason() {
        let long = "a".repeat(64);
        for (text, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("a..b", NameError::Label),
            (".a", NameError::Label),
            (long.as_str(), NameError::Label),
            ("a b", NameError::Character(' ')),
            ("a:80", NameError::Character(':')),
            ("a.*.b", NameError::Wildcard),
            ("a/b", NameError::Character('/')),
            ("[zz]", NameError::Character('[')),
        ] {
            assert_eq!(text.parse::<Hostname>(), Err(error), "{text:?}");
        }
        assert_eq!(format!("{}a", "a.".repeat(150)).parse::<Hostname>(), Err(NameError::TooLong));
    }

    #[test]
    fn a_suffix_covers_every_depth_below_its_domain_and_nothing_else() {
        let pattern: HostPattern = "*.Example.com".parse().unwrap();
        assert!(pattern.matches(&host("a.example.com")));
        assert!(pattern.matches(&host("b.a.example.com")));
        assert!(!pattern.matches(&host("example.com")));
        assert!(!pattern.matches(&host("badexample.com")));
        assert_eq!(pattern.to_string(), "*.example.com");
    }

    #[test]
    fn a_service_is_named_by_hosts_or_by_a_port() {
        for (text, port) in [
            ("tcp:1", Some(1)),
            ("tcp:65535", Some(65535)),
            ("*.a.example", None),
            ("*", None),
            ("@kubeA.prometheus.svc", None),
            ("dial:[::1]:80", None),
        ] {
            let name: ServiceName = text.parse().unwrap();
            assert_eq!((name.to_string().as_str(), name.tcp_port()), (text, port));
        }
        for text in ["tcp:", "tcp:0", "tcp:080", "tcp:+80", "tcp:65536", "tcp:80 ", "tcp:a"] {
            assert_eq!(text.parse::<ServiceName>(), Err(NameError::Port), "{text}");
        }
        for text in ["dial:", "dial:h", "dial:h:0", "dial::80", "dial:h:80:1", "dial:::1:80"] {
            assert!(text.parse::<ServiceName>().is_err(), "{text}");
        }
        assert_eq!("@a".parse::<ServiceName>(), "@A.".parse());
        assert_eq!("@".parse::<ServiceName>(), Err(NameError::Service(BadName::Empty)));
        assert_eq!("udp:53".parse::<ServiceName>(), Err(NameError::Character(':')));
    }

    #[test]
    fn instance_ids_read_back_and_refuse_upper_case() {
        let id = InstanceId::from_bytes([0x0c; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0C5F2A1CA0174EE3A177C3BE7CD6D950".parse::<InstanceId>().is_err());
        assert!("+c5f2a1ca0174ee3a177c3be7cd6d950".parse::<InstanceId>().is_err());
    }
}
