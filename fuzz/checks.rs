//! What each decoder of `adit-proto` promises about any bytes: no panic, and what decodes reads back from its
//! own encoding as the same value. Shared by the fuzz targets and by the replay of the corpus on stable.

use adit_proto::frame::{FrameHeader, HEADER_LEN};
use adit_proto::handshake::{Hello, Refused, Welcome};
use adit_proto::header::StreamHeader;
use adit_proto::names::{HostPattern, Hostname};
use adit_proto::proxy_header::{Length, MIN_LEN, ProxyHeader, Version};
use bytes::{Bytes, BytesMut};

/// Whether the bytes decoded; the corpus has files of both kinds.
pub(crate) type Decoded = bool;

pub(crate) fn frame(data: &[u8]) -> Decoded {
    let Some(raw) = data.first_chunk::<HEADER_LEN>() else { return false };
    let Ok(header) = FrameHeader::decode(*raw) else { return false };
    let mut out = BytesMut::new();
    header.encode(&mut out);
    assert_eq!(out.as_ref(), raw, "{header:?} has one encoding");
    true
}

macro_rules! payload {
    ($name:ident, $message:ty) => {
        pub(crate) fn $name(data: &[u8]) -> Decoded {
            let Ok(message) = <$message>::decode(Bytes::copy_from_slice(data)) else { return false };
            let mut out = BytesMut::new();
            message.encode(&mut out);
            assert_eq!(<$message>::decode(out.freeze()).as_ref(), Ok(&message));
            true
        }
    };
}

payload!(hello, Hello);
payload!(welcome, Welcome);
payload!(refused, Refused);
payload!(stream_header, StreamHeader);

pub(crate) fn hostname(data: &[u8]) -> Decoded {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(name) = text.parse::<Hostname>() else { return false };
    assert_eq!(name.as_str(), name.as_str().to_lowercase());
    assert_eq!(name.as_str().parse().as_ref(), Ok(&name));
    true
}

pub(crate) fn host_pattern(data: &[u8]) -> Decoded {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(pattern) = text.parse::<HostPattern>() else { return false };
    assert_eq!(pattern.to_string().parse().as_ref(), Ok(&pattern));
    if let HostPattern::Exact(name) | HostPattern::Suffix(name) = &pattern {
        assert_eq!(
            pattern.matches(name),
            matches!(pattern, HostPattern::Exact(_)),
            "a suffix leaves its domain out"
        );
    }
    true
}

pub(crate) fn proxy_header(data: &[u8]) -> Decoded {
    if let Ok(Length::Exactly(len)) = ProxyHeader::length(data) {
        assert!(len > MIN_LEN, "a reader that has read the least of it has not read too far");
    }
    let Ok(header) = ProxyHeader::decode(data) else { return false };
    assert!(data.len() >= MIN_LEN);
    let Some(ends) = header.ends else { return true };
    for version in [Version::V1, Version::V2] {
        let mut out = Vec::new();
        ends.encode(version, &mut out);
        let again =
            ProxyHeader::decode(&out).unwrap_or_else(|error| panic!("{ends:?} as {version:?}: {error}"));
        let canonical = |header: ProxyHeader| {
            header
                .ends
                .map(|ends| (ends.source.ip().to_canonical(), ends.source.port(), ends.destination.port()))
        };
        assert_eq!(canonical(again), canonical(header));
    }
    true
}
