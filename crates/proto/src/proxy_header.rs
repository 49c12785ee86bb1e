//! The PROXY protocol, versions 1 and 2: who connected, said in front of a connection's first byte by a balancer
//! that stands between. As published by HAProxy, "The PROXY protocol, versions 1 & 2".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::wire::DecodeError;

/// Bytes a header of either version has at least: `PROXY UNKNOWN\r\n`, of which version 2 has one more.
pub const MIN_LEN: usize = 15;
/// Bytes a header of version 1 has at most, with its line end.
pub const MAX_V1_LEN: usize = 107;
/// Bytes a header of version 2 may have here, with whatever else a balancer says in it.
pub const MAX_V2_LEN: usize = 4096;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD: usize = 16;
const V1_SIGNATURE: &[u8] = b"PROXY ";

/// Which form a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl FromStr for Version {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        match text {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => Err(DecodeError::Invalid("version")),
        }
    }
}

/// Both ends of the connection that was taken in: the client's, and the one it connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Whom the connection is for. `None`: the balancer speaks for itself, or of something that is not TCP.
    pub ends: Option<Ends>,
}

impl Ends {
    /// Both in one family: a header has only one.
    fn alike(self) -> Self {
        let (source, destination) = (canonical(self.source), canonical(self.destination));
        if source.is_ipv4() == destination.is_ipv4() {
            return Self { source, destination };
        }
        Self { source: mapped(source), destination: mapped(destination) }
    }

    /// Appends a header that says so.
    pub fn encode(self, version: Version, out: &mut Vec<u8>) {
        let Self { source, destination } = self.alike();
        if version == Version::V1 {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!(
                "PROXY {family} {} {} {} {}\r\n",
                source.ip(),
                destination.ip(),
                source.port(),
                destination.port()
            );
            out.extend_from_slice(line.as_bytes());
            return;
        }
        out.extend_from_slice(V2_SIGNATURE);
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
            }
            (source, destination) => {
                out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                out.extend_from_slice(&v6(source).octets());
                out.extend_from_slice(&v6(destination).octets());
            }
        }
        out.extend_from_slice(&source.port().to_be_bytes());
        out.extend_from_slice(&destination.port().to_be_bytes());
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn mapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(v6(addr.ip()).into(), addr.port())
}

const fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// How much of what begins like this is header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many bytes, and not one more.
    Exactly(usize),
    /// Up to and with the first line end.
    Line,
}

impl ProxyHeader {
    /// How long the header is that begins with `start`, its first [`MIN_LEN`] bytes or more. For version 2 that is
    /// known once 16 bytes are there; until then it is 16.
    ///
    /// # Errors
    /// [`DecodeError`] when this is the beginning of no header, or of one that is too long.
    pub fn length(start: &[u8]) -> Result<Length, DecodeError> {
        if start.starts_with(V1_SIGNATURE) {
            return Ok(Length::Line);
        }
        if !start.starts_with(V2_SIGNATURE) {
            return Err(DecodeError::Invalid("signature"));
        }
        let Some(head) = start.first_chunk::<V2_HEAD>() else { return Ok(Length::Exactly(V2_HEAD)) };
        let len = V2_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
        if len > MAX_V2_LEN {
            return Err(DecodeError::TooLong { what: "header", got: len, limit: MAX_V2_LEN });
        }
        Ok(Length::Exactly(len))
    }

    /// Reads one whole header and nothing behind it.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match Self::length(bytes)? {
            Length::Line => decode_v1(bytes),
            Length::Exactly(len) if bytes.len() < len => Err(DecodeError::Truncated("header")),
            Length::Exactly(len) if bytes.len() > len => Err(DecodeError::Trailing(bytes.len() - len)),
            Length::Exactly(_) => decode_v2(bytes),
        }
    }
}

fn decode_v1(bytes: &[u8]) -> Result<ProxyHeader, DecodeError> {
    if bytes.len() > MAX_V1_LEN {
        return Err(DecodeError::TooLong { what: "header", got: bytes.len(), limit: MAX_V1_LEN });
    }
    let line = bytes.strip_suffix(b"\r\n").ok_or(DecodeError::Truncated("header"))?;
    let line = std::str::from_utf8(line).map_err(|_not_text| DecodeError::Invalid("header"))?;
    if line.contains(['\r', '\n']) {
        return Err(DecodeError::Invalid("header"));
    }
    let mut words = line.split(' ').skip(1);
    let mut word = |what| words.next().ok_or(DecodeError::Truncated(what));
    let is_v4 = match word("family")? {
        "UNKNOWN" => return Ok(ProxyHeader { ends: None }),
        "TCP4" => true,
        "TCP6" => false,
        _ => return Err(DecodeError::Invalid("family")),
    };
    let ip = |what, text: &str| -> Result<IpAddr, DecodeError> {
        let ip = if is_v4 { text.parse().map(IpAddr::V4) } else { text.parse().map(IpAddr::V6) };
        ip.map_err(|_not_an_address| DecodeError::Invalid(what))
    };
    let source = ip("source", word("source")?)?;
    let destination = ip("destination", word("destination")?)?;
    let source = SocketAddr::new(source, port("source port", word("source port")?)?);
    let destination = SocketAddr::new(destination, port("destination port", word("destination port")?)?);
    if words.next().is_some() {
        return Err(DecodeError::Invalid("header"));
    }
    Ok(ProxyHeader { ends: Some(Ends { source, destination }) })
}

fn port(what: &'static str, text: &str) -> Result<u16, DecodeError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(DecodeError::Invalid(what))
}

fn decode_v2(bytes: &[u8]) -> Result<ProxyHeader, DecodeError> {
    let (Some(head), Some(rest)) = (bytes.first_chunk::<V2_HEAD>(), bytes.get(V2_HEAD..)) else {
        return Err(DecodeError::Truncated("header"));
    };
    match head[12] {
        // The balancer's own connection, most often a check whether we are there.
        0x20 => return Ok(ProxyHeader { ends: None }),
        0x21 => {}
        _ => return Err(DecodeError::Invalid("version and command")),
    }
    let ends = match head[13] {
        0x11 => {
            let raw = rest.first_chunk::<12>().ok_or(DecodeError::Truncated("addresses"))?;
            let ip = |at: usize| Ipv4Addr::new(raw[at], raw[at + 1], raw[at + 2], raw[at + 3]).into();
            Some(ends(ip(0), ip(4), [raw[8], raw[9], raw[10], raw[11]]))
        }
        0x21 => {
            let raw = rest.first_chunk::<36>().ok_or(DecodeError::Truncated("addresses"))?;
            let mut parts = [[0; 16]; 2];
            parts[0].copy_from_slice(&raw[..16]);
            parts[1].copy_from_slice(&raw[16..32]);
            let [source, destination] = parts.map(|octets| Ipv6Addr::from(octets).into());
            Some(ends(source, destination, [raw[32], raw[33], raw[34], raw[35]]))
        }
        // Not TCP over IP: nothing that could be said here.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(DecodeError::Invalid("family and transport")),
    };
    Ok(ProxyHeader { ends })
}

const fn ends(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> Ends {
    Ends {
        source: SocketAddr::new(source, u16::from_be_bytes([ports[0], ports[1]])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn written(ends: Ends, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        ends.encode(version, &mut out);
        out
    }

    #[test]
    fn both_versions_read_back_as_written() {
        for ends in [pair("192.0.2.1:5", "198.51.100.1:443"), pair("[2001:db8::1]:65535", "[2001:db8::2]:1")]
        {
            for version in [Version::V1, Version::V2] {
                let bytes = written(ends, version);
                assert_eq!(ProxyHeader::decode(&bytes), Ok(ProxyHeader { ends: Some(ends) }), "{version:?}");
                assert!(ProxyHeader::decode(&bytes[..bytes.len() - 1]).is_err());
            }
        }
    }

    #[test]
    fn the_line_is_the_published_one_and_families_never_mix() {
        let v1 = |ends| String::from_utf8(written(ends, Version::V1)).unwrap();
        assert_eq!(
            v1(pair("192.0.2.1:5", "198.51.100.1:443")),
            "PROXY TCP4 192.0.2.1 198.51.100.1 5 443\r\n"
        );
        assert_eq!(
            v1(pair("[::ffff:192.0.2.1]:5", "198.51.100.1:443")),
            "PROXY TCP4 192.0.2.1 198.51.100.1 5 443\r\n"
        );
        let mixed = "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 5 443\r\n";
        assert_eq!(v1(pair("[2001:db8::1]:5", "198.51.100.1:443")), mixed);
    }

    #[test]
    fn a_balancer_may_speak_for_itself_and_add_what_it_likes() {
        let mut local = [&V2_SIGNATURE[..], &[0x20, 0x00, 0, 3], b"abc"].concat();
        assert_eq!(ProxyHeader::decode(&local), Ok(ProxyHeader { ends: None }));
        local.push(b'x');
        assert_eq!(ProxyHeader::decode(&local), Err(DecodeError::Trailing(1)));
        assert_eq!(ProxyHeader::decode(b"PROXY UNKNOWN\r\n"), Ok(ProxyHeader { ends: None }));
        assert_eq!(ProxyHeader::decode(b"PROXY UNKNOWN a b c d\r\n"), Ok(ProxyHeader { ends: None }));
        let mut extended = written(pair("192.0.2.1:5", "198.51.100.1:443"), Version::V2);
        extended[15] += 3;
        extended.extend_from_slice(&[4, 0, 0]);
        assert!(ProxyHeader::decode(&extended).unwrap().ends.is_some());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5 443 6\r\n",
            "PROXY TCP4 2001:db8::1 198.51.100.1 5 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 5 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +5 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5 65536\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 5 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 5 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5 443\n",
            "PROXY UNKNOWN\r\nPROXY UNKNOWN\r\n",
        ] {
            assert!(ProxyHeader::decode(line.as_bytes()).is_err(), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_LEN));
        assert!(matches!(ProxyHeader::decode(long.as_bytes()), Err(DecodeError::TooLong { .. })));
        let huge = [&V2_SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        assert!(matches!(ProxyHeader::length(&huge), Err(DecodeError::TooLong { .. })));
        for (command, family) in [(0x11, 0x11), (0x22, 0x11), (0x21, 0x13), (0x21, 0x11)] {
            let short = [&V2_SIGNATURE[..], &[command, family, 0, 0]].concat();
            assert!(ProxyHeader::decode(&short).is_err(), "{command:x} {family:x}");
        }
    }

    proptest::proptest! {
        #[test]
        fn decoding_is_total(raw: Vec<u8>) {
            drop(ProxyHeader::decode(&raw));
            drop(ProxyHeader::decode(&[&V2_SIGNATURE[..], &raw].concat()));
            drop(ProxyHeader::decode(&[V1_SIGNATURE, &raw].concat()));
        }
    }
}
