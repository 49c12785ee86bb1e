//! SOCKS5 (RFC 1928), with or without user and password (RFC 1929). Every answer has a length that is known before
//! it is read, so nothing of what follows is taken.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Login, ProxyError, literal};

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const NOTHING_FITS: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// The version of the login by user and password.
const LOGIN_VERSION: u8 = 1;

const NOT_SOCKS5: ProxyError = ProxyError::Garbage("SOCKS5");

/// What a refusal means, in words.
pub(super) const fn meaning(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "the connection took too long",
        7 => "it does not know the command",
        8 => "it does not know the kind of address",
        _ => "for a reason that has no name",
    }
}

/// Asks the proxy to connect to `host:port`.
pub(super) async fn open(
    tcp: &mut TcpStream,
    host: &str,
    port: u16,
    login: Option<&Login>,
) -> Result<(), ProxyError> {
    let request = request(host, port)?;
    let methods: &[u8] =
        if login.is_some() { &[VERSION, 2, NO_LOGIN, PASSWORD] } else { &[VERSION, 1, NO_LOGIN] };
    tcp.write_all(methods).await?;
    match (read(tcp).await?, login) {
        ([VERSION, NO_LOGIN], _) => {}
        ([VERSION, PASSWORD], Some(login)) => {
            tcp.write_all(&login_message(login)).await?;
            // Any other number than 0 is a no, and some proxies get the version wrong.
            let [_version, verdict] = read(tcp).await?;
            if verdict != 0 {
                return Err(ProxyError::Login { given: true });
            }
        }
        ([VERSION, NOTHING_FITS], login) => return Err(ProxyError::Login { given: login.is_some() }),
        _ => return Err(NOT_SOCKS5),
    }
    tcp.write_all(&request).await?;
    let [version, reply, _reserved, kind] = read(tcp).await?;
    if version != VERSION {
        return Err(NOT_SOCKS5);
    }
    if reply != 0 {
        return Err(ProxyError::Socks { code: reply });
    }
    // The address it connects from, which is of no use here.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(read::<1>(tcp).await?[0]),
        _ => return Err(NOT_SOCKS5),
    };
    let mut bound = [0; 255 + 2];
    tcp.read_exact(&mut bound[..length + 2]).await?;
    Ok(())
}

async fn read<const N: usize>(tcp: &mut TcpStream) -> Result<[u8; N], ProxyError> {
    let mut bytes = [0; N];
    tcp.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn prefixed(text: &str, out: &mut Vec<u8>) -> Result<(), ProxyError> {
    out.push(u8::try_from(text.len()).map_err(|_too_long| ProxyError::Name)?);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn request(host: &str, port: u16) -> Result<Vec<u8>, ProxyError> {
    let mut request = vec![VERSION, CONNECT, 0];
    match literal(host) {
        Some(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
        None => {
            request.push(NAME);
            prefixed(host, &mut request)?;
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

fn login_message(login: &Login) -> Vec<u8> {
    let mut message = vec![LOGIN_VERSION];
    for text in [&login.user, &login.password] {
        // Their length was checked when they were read.
        message.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        message.extend_from_slice(text.as_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_as_names_and_addresses_as_addresses() {
        assert_eq!(request("gw", 258).unwrap(), [5, 1, 0, 3, 2, b'g', b'w', 1, 2]);
        assert_eq!(request("1.2.3.4", 80).unwrap(), [5, 1, 0, 1, 1, 2, 3, 4, 0, 80]);
        assert_eq!(request("::1", 80).unwrap()[..4], [5, 1, 0, 4]);
        assert!(matches!(request(&"x".repeat(256), 80), Err(ProxyError::Name)));
        let login = Login::new("me".into(), "pw".into()).unwrap();
        assert_eq!(login_message(&login), *b"\x01\x02me\x02pw");
    }
}
