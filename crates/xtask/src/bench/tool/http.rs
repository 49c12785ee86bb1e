//! As much HTTP/1.1 as the tools need: where a head ends, and how long the body is.

/// The end of a head and what it says about the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// With the empty line.
    pub(super) len: usize,
    /// Content-Length, or 0.
    pub(super) body: u64,
    /// Whether it says `Connection: close`.
    pub(super) closes: bool,
}

impl Head {
    /// None as long as the empty line is not there.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let len = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let mut head = Self { len, body: 0, closes: false };
        for line in bytes[..len].split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                head.body = decimal(value);
            } else if name.eq_ignore_ascii_case(b"connection") {
                head.closes |= value.eq_ignore_ascii_case(b"close");
            }
        }
        Some(head)
    }
}

/// The number the text starts with.
pub(super) fn decimal(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// A GET for this path.
pub(super) fn get(host: &str, path: &str, closes: bool) -> Vec<u8> {
    let close = if closes { "Connection: close\r\n" } else { "" };
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{close}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nConnection:close\r\n\r\nbody";
        assert_eq!(Head::parse(text), Some(Head { len: text.len() - 4, body: 12, closes: true }));
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n"), None);
        assert_eq!(Head::parse(&get("h", "/", false)).unwrap().body, 0);
        assert!(Head::parse(&get("h", "/", true)).unwrap().closes);
    }

    #[test]
    fn a_number_ends_where_digits_end() {
        assert_eq!(decimal(b"65536 HTTP/1.1"), 65536);
        assert_eq!(decimal(b"x"), 0);
        assert_eq!(decimal(&[b'9'; 40]), u64::MAX);
    }
}
