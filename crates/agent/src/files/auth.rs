//! Basic credentials, compared without telling how much of them was right.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The one pair that is admitted, in the form in which a client sends it.
#[derive(Clone)]
pub(super) struct Credentials(Arc<[u8]>);

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(redacted)")
    }
}

impl Credentials {
    pub(super) fn new(username: &str, password: &str) -> Self {
        Self(base64(format!("{username}:{password}").as_bytes()).into())
    }

    /// Whether the request carries them (RFC 7617 section 2). Two Authorization fields are none, because the
    /// neighbours on the way may each have read a different one.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return false };
        let field = field.as_bytes();
        let Some((scheme, token)) = field.split_at_checked("Basic".len()) else { return false };
        // RFC 9110 section 11.1: the scheme's name is not sensitive to case.
        let basic = scheme.eq_ignore_ascii_case(b"Basic") && token.starts_with(b" ");
        basic && same(token.trim_ascii(), &self.0)
    }
}

/// Compares in a time that depends on the length of what was presented alone.
fn same(presented: &[u8], known: &[u8]) -> bool {
    let mut difference = u8::from(presented.len() != known.len());
    for (theirs, ours) in presented.iter().zip(known.iter().cycle()) {
        difference |= black_box(theirs ^ ours);
    }
    black_box(difference) == 0
}

/// RFC 4648 section 4. What a client sends is compared in this form, so nothing it sends is ever decoded.
fn base64(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len().div_ceil(3) * 4);
    for chunk in input.chunks(3) {
        let byte = |index: usize| chunk.get(index).copied().map_or(0, usize::from);
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = word >> (18 - 6 * digit) & 63;
            output.push(if digit <= chunk.len() { ALPHABET[value] } else { b'=' });
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::{base64, same};

    #[test]
    fn base64_agrees_with_the_vectors_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded.as_bytes(), "{plain}");
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), b"+//+");
    }

    #[test]
    fn only_the_same_bytes_in_the_same_number_are_the_same() {
        assert!(same(b"abc", b"abc"));
        for other in [&b""[..], b"ab", b"abcabc", b"abd", b"xbc", b"abca"] {
            assert!(!same(other, b"abc"), "{other:?}");
        }
    }
}
