//! `CONNECT` through an HTTP/1.1 proxy (RFC 9110 §9.3.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Login, ProxyError};

/// Bytes of an answer's head that are read at most.
const MAX_HEAD: usize = 16 * 1024;
/// What every answer begins with.
const START: &[u8] = b"HTTP/1.";
/// What a head ends with.
const END: &[u8] = b"\r\n\r\n";

/// Asks the proxy to connect to `authority`. Bytes behind its answer stay unread: they are the gateway's.
pub(super) async fn open(
    tcp: &mut TcpStream,
    authority: &str,
    login: Option<&Login>,
) -> Result<(), ProxyError> {
    tcp.write_all(request(authority, login).as_bytes()).await?;
    judge(&read_head(tcp).await?, login.is_some())
}

fn request(authority: &str, login: Option<&Login>) -> String {
    let authorization = login.map_or_else(String::new, |Login { user, password }| {
        format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
    });
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: adit\r\n{authorization}\r\n")
}

/// Reads exactly the head: it is looked at before it is taken out of the socket.
async fn read_head(tcp: &mut TcpStream) -> Result<Vec<u8>, ProxyError> {
    let mut head = Vec::new();
    let mut seen = [0; 2048];
    loop {
        let peeked = tcp.peek(&mut seen).await?;
        if peeked == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let before = head.len();
        head.extend_from_slice(&seen[..peeked]);
        let end = find_end(&head);
        head.truncate(end.unwrap_or(head.len()));
        let taken = head.len() - before;
        tcp.read_exact(&mut seen[..taken]).await?;
        if !is_beginning(&head) {
            return Err(ProxyError::Garbage("HTTP"));
        }
        if end.is_some() {
            return Ok(head);
        }
        if head.len() > MAX_HEAD {
            return Err(ProxyError::Garbage("an HTTP head of sensible size"));
        }
    }
}

fn find_end(head: &[u8]) -> Option<usize> {
    head.windows(END.len()).position(|bytes| bytes == END).map(|at| at + END.len())
}

/// Whether this may be the beginning of an answer, so that nobody waits for the end of something else.
fn is_beginning(head: &[u8]) -> bool {
    head.iter().zip(START).all(|(a, b)| a == b)
}

fn judge(head: &[u8], login_given: bool) -> Result<(), ProxyError> {
    match status(head) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(ProxyError::Login { given: login_given }),
        Some(code) => Err(ProxyError::Status(code)),
        None => Err(ProxyError::Garbage("HTTP")),
    }
}

/// `HTTP/1.x NNN`, whatever follows.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(START)?;
    let &[b'0'..=b'9', b' ', a, b, c, ref rest @ ..] = rest else { return None };
    let digits = [a, b, c];
    if !digits.iter().all(u8::is_ascii_digit) || rest.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(&digits).ok()?.parse().ok().filter(|code| *code >= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_only_where_there_are_any() {
        let login = Login::new("me".into(), "p@ss".into()).unwrap();
        let plain = request("gw.example:8123", None);
        assert!(plain.starts_with("CONNECT gw.example:8123 HTTP/1.1\r\nHost: gw.example:8123\r\n"));
        assert!(plain.ends_with("\r\n\r\n") && !plain.contains("Authorization"));
        assert!(request("h:1", Some(&login)).contains("Proxy-Authorization: Basic bWU6cEBzcw==\r\n"));
    }

    #[test]
    fn answers_are_read_for_their_status_and_nothing_else() {
        assert!(judge(b"HTTP/1.1 200 Connection established\r\n\r\n", false).is_ok());
        assert!(judge(b"HTTP/1.0 204\r\n\r\n", false).is_ok());
        assert!(matches!(judge(b"HTTP/1.1 407 x\r\n\r\n", false), Err(ProxyError::Login { given: false })));
        assert!(matches!(judge(b"HTTP/1.1 403 no\r\n\r\n", true), Err(ProxyError::Status(403))));
        for garbage in
            [&b"HTTP/1.1 20"[..], b"HTTP/1.1 2000 x", b"HTTP/2 200", b"SSH-2.0", b"", b"HTTP/1.1 099 x"]
        {
            assert!(matches!(judge(garbage, false), Err(ProxyError::Garbage(_))), "{garbage:?}");
        }
        assert!(is_beginning(b"HTT") && is_beginning(b"HTTP/1.1 200") && !is_beginning(b"SSH"));
    }
}
