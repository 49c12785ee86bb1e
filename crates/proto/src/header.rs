//! What opens a stream: which service, for whom, and how long the opener will wait.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::names::ServiceName;
use crate::wire::{DecodeError, Reader, put_text};

/// The payload of an `OPEN` frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHeader {
    /// The offer this stream is for, exactly as the agent made it. An agent reaches nothing it did not offer.
    pub service: ServiceName,
    /// Who connected to the gateway, for the agent's log.
    pub client_addr: Option<SocketAddr>,
    /// How long the agent may take to connect to the upstream.
    pub connect_timeout: Duration,
}

impl StreamHeader {
    /// Appends the payload.
    pub fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.service.to_string());
        let millis = u32::try_from(self.connect_timeout.as_millis()).unwrap_or(u32::MAX);
        out.put_u32(millis);
        match self.client_addr {
            None => out.put_u8(0),
            Some(addr) => {
                match addr.ip() {
                    IpAddr::V4(ip) => {
                        out.put_u8(4);
                        out.put_slice(&ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        out.put_u8(6);
                        out.put_slice(&ip.octets());
                    }
                }
                out.put_u16(addr.port());
            }
        }
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a stream header.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let service = r.text("service")?.parse().map_err(|_name| DecodeError::Invalid("service"))?;
        let connect_timeout = Duration::from_millis(r.u32("connect_timeout")?.into());
        let ip: Option<IpAddr> = match r.u8("client_addr")? {
            0 => None,
            4 => Some(r.array::<4>("client_addr")?.into()),
            6 => Some(r.array::<16>("client_addr")?.into()),
            _ => return Err(DecodeError::Invalid("client_addr")),
        };
        let client_addr = match ip {
            None => None,
            Some(ip) => Some(SocketAddr::new(ip, r.u16("client_addr")?)),
        };
        r.finish()?;
        Ok(Self { service, client_addr, connect_timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_written() {
        for (client_addr, service) in [
            (None, "*.example.com"),
            ("192.0.2.1:7".parse().ok(), "tcp:5432"),
            ("[2001:db8::1]:65535".parse().ok(), "*"),
        ] {
            let header = StreamHeader {
                service: service.parse().unwrap(),
                client_addr,
                connect_timeout: Duration::from_millis(1234),
            };
            let mut out = BytesMut::new();
            header.encode(&mut out);
            assert_eq!(StreamHeader::decode(out.freeze()), Ok(header));
        }
    }

    proptest::proptest! {
        #[test]
        fn decoding_is_total(raw: Vec<u8>) {
            drop(StreamHeader::decode(raw.into()));
        }
    }
}
