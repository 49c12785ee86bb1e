//! Frames: an 8-byte header (`length: u24, kind: u8, stream: u32`, big-endian) and a payload.
//!
//! ```text
//!  0        1        2        3        4        5        6        7
//! +--------+--------+--------+--------+--------+--------+--------+--------+
//! |      payload length      |  kind  |             stream id             |
//! +--------+--------+--------+--------+--------+--------+--------+--------+
//! ```

use bytes::{BufMut, BytesMut};

use crate::{DecodeError, limits};

/// Length of a frame's header, in bytes.
pub const HEADER_LEN: usize = 8;

/// What a frame is. The number is the `kind` byte on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Agent to gateway, first frame of a session: [`crate::handshake::Hello`].
    Hello = 1,
    /// Gateway to agent, second frame: [`crate::handshake::Welcome`].
    Welcome = 2,
    /// Gateway to agent instead of a welcome: [`crate::handshake::Refused`].
    Refused = 3,
    /// Opens a stream: [`crate::header::StreamHeader`]. `DATA` may follow at once.
    Open = 4,
    /// The stream's upstream is connected; whatever was sent before is being delivered.
    Opened = 5,
    /// Bytes of a stream.
    Data = 6,
    /// Last bytes of a stream in this direction (the payload may be empty): a half-close.
    Fin = 7,
    /// Ends a stream in both directions; the payload is a `u16` [`crate::reason::Reason`] code.
    Reset = 8,
    /// Grants the peer more bytes on a stream; the payload is a `u32`.
    Window = 9,
    /// Asks for a [`Kind::Pong`] with the same 8 bytes.
    Ping = 10,
    /// Answers a [`Kind::Ping`].
    Pong = 11,
    /// No new streams from here on; open ones finish. The payload is a `u16` reason code.
    Goaway = 12,
}

impl Kind {
    const fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Refused,
            4 => Self::Open,
            5 => Self::Opened,
            6 => Self::Data,
            7 => Self::Fin,
            8 => Self::Reset,
            9 => Self::Window,
            10 => Self::Ping,
            11 => Self::Pong,
            12 => Self::Goaway,
            _ => return None,
        })
    }

    /// Whether the frame belongs to a stream, that is: has a stream id other than 0.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Open | Self::Opened | Self::Data | Self::Fin | Self::Reset | Self::Window)
    }

    /// Shortest and longest payload that makes sense for this kind.
    const fn payload_bounds(self) -> (usize, usize) {
        match self {
            Self::Hello | Self::Welcome | Self::Refused | Self::Open => (1, limits::MAX_CONTROL_PAYLOAD),
            Self::Opened => (0, 0),
            Self::Data => (1, limits::MAX_DATA_PAYLOAD),
            Self::Fin => (0, limits::MAX_DATA_PAYLOAD),
            Self::Reset | Self::Goaway => (2, 2),
            Self::Window => (4, 4),
            Self::Ping | Self::Pong => (8, 8),
        }
    }
}

/// A decoded frame header whose fields agree with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub kind: Kind,
    /// The stream it belongs to; 0 for the session itself.
    pub stream: u32,
    /// Length of the payload in bytes.
    pub len: usize,
}

impl FrameHeader {
    /// Reads a header. A kind, length or stream id that this version does not define is an error: the peer
    /// agreed to a version in the handshake.
    ///
    /// # Errors
    /// [`DecodeError`] when the header is none of ours.
    pub fn decode(raw: [u8; HEADER_LEN]) -> Result<Self, DecodeError> {
        let [l0, l1, l2, kind, s0, s1, s2, s3] = raw;
        let kind = Kind::from_wire(kind).ok_or(DecodeError::Invalid("kind"))?;
        let len = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let (min, max) = kind.payload_bounds();
        if len > max {
            return Err(DecodeError::TooLong { what: "frame", got: len, limit: max });
        }
        if len < min {
            return Err(DecodeError::Truncated("frame"));
        }
        if kind.is_stream() == (stream == 0) {
            return Err(DecodeError::Invalid("stream"));
        }
        Ok(Self { kind, stream, len })
    }

    /// Appends the header.
    ///
    /// # Panics
    /// Never for a length within [`limits`]; a longer one is a bug of the caller and is refused in debug builds.
    pub fn encode(self, out: &mut impl BufMut) {
        debug_assert!(self.len <= self.kind.payload_bounds().1, "payload over the limit of its kind");
        let len = u64::try_from(self.len).unwrap_or(0);
        out.put_u64(len << 40 | (u64::from(self.kind as u8)) << 32 | u64::from(self.stream));
    }
}

/// Appends a whole frame: header and payload.
pub fn put(out: &mut BytesMut, kind: Kind, stream: u32, payload: &[u8]) {
    out.reserve(HEADER_LEN + payload.len());
    FrameHeader { kind, stream, len: payload.len() }.encode(out);
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_written() {
        for kind in 1..=12 {
            let kind = Kind::from_wire(kind).unwrap();
            let len = kind.payload_bounds().1;
            let header = FrameHeader { kind, stream: u32::from(kind.is_stream()) * 0x0102_0304, len };
            let mut out = BytesMut::new();
            header.encode(&mut out);
            let raw: [u8; HEADER_LEN] = out.as_ref().try_into().unwrap();
            assert_eq!(FrameHeader::decode(raw), Ok(header));
        }
    }

    #[test]
    fn a_header_that_announces_too_much_is_refused_before_any_payload() {
        let raw = [0xff, 0xff, 0xff, Kind::Data as u8, 0, 0, 0, 1];
        assert!(matches!(FrameHeader::decode(raw), Err(DecodeError::TooLong { .. })));
    }

    #[test]
    fn stream_frames_need_a_stream_and_session_frames_must_not_have_one() {
        assert_eq!(
            FrameHeader::decode([0, 0, 1, Kind::Data as u8, 0, 0, 0, 0]),
            Err(DecodeError::Invalid("stream"))
        );
        assert_eq!(
            FrameHeader::decode([0, 0, 8, Kind::Ping as u8, 0, 0, 0, 9]),
            Err(DecodeError::Invalid("stream"))
        );
    }

    proptest::proptest! {
        #[test]
        fn decoding_is_total(raw: [u8; HEADER_LEN]) {
            if let Ok(header) = FrameHeader::decode(raw) {
                let mut out = BytesMut::new();
                header.encode(&mut out);
                assert_eq!(out.as_ref(), raw);
            }
        }
    }
}
