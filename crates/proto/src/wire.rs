//! Big-endian integers and length-prefixed text, read with bounds and written without.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::limits;

/// Why bytes from a peer are not what they claim to be. The peer is at fault and the session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("the message ends inside `{0}`")]
    Truncated(&'static str),
    /// A length or count is over its bound.
    #[error("`{what}` is {got}, over the limit of {limit}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// What the peer sent.
        got: usize,
        /// The bound in [`limits`].
        limit: usize,
    },
    /// A value that has no meaning in this version.
    #[error("`{0}` has a value that does not exist")]
    Invalid(&'static str),
    /// Bytes follow where the message should end.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
}

/// Takes values off the front of a payload.
pub(crate) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    fn need(&self, n: usize, what: &'static str) -> Result<(), DecodeError> {
        if self.bytes.len() < n { Err(DecodeError::Truncated(what)) } else { Ok(()) }
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.need(1, what)?;
        Ok(self.bytes.get_u8())
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.need(2, what)?;
        Ok(self.bytes.get_u16())
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.need(4, what)?;
        Ok(self.bytes.get_u32())
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.need(8, what)?;
        Ok(self.bytes.get_u64())
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        self.need(N, what)?;
        let mut out = [0; N];
        self.bytes.copy_to_slice(&mut out);
        Ok(out)
    }

    /// Text with a 16-bit length in front, at most [`limits::MAX_TEXT`] bytes of UTF-8 without control characters.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let len = usize::from(self.u16(what)?);
        if len > limits::MAX_TEXT {
            return Err(DecodeError::TooLong { what, got: len, limit: limits::MAX_TEXT });
        }
        self.need(len, what)?;
        let raw = self.bytes.split_to(len);
        let text = std::str::from_utf8(&raw).map_err(|_not_utf8| DecodeError::Invalid(what))?;
        if text.chars().any(char::is_control) {
            return Err(DecodeError::Invalid(what));
        }
        Ok(text.to_owned())
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.bytes.len())) }
    }
}

/// Appends text with a 16-bit length in front. Text over the limit is cut at a character boundary, and control
/// characters become spaces, so that what is written can always be read.
pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    let mut end = text.len().min(limits::MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let clean: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // A control character can be two bytes long (U+0080..U+009F) but never shorter than the space that
    // replaces it, so the cleaned text still fits.
    let len = u16::try_from(clean.len()).unwrap_or(0);
    out.put_u16(len);
    out.put_slice(&clean.as_bytes()[..usize::from(len)]);
}
