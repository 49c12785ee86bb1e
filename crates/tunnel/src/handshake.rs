//! The first two frames of a session over a connected transport: who the agent is, and whether the gateway agrees.

use std::io;

use adit_proto::frame::{FrameHeader, HEADER_LEN, Kind};
use adit_proto::handshake::{Hello, PROOF_LEN, Refused, Welcome, capabilities};
use adit_proto::{DecodeError, frame};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::proof::{Exporter, Prover, TokenKey};

/// Longest hello or welcome that is read, in bytes. Before authentication, so no larger than it has to be.
const MAX_MESSAGE: usize = 64 * 1024;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The transport failed or ended.
    #[error("the connection ended during the handshake")]
    Io(#[from] io::Error),
    /// What arrived is not a handshake.
    #[error("the other side does not speak this protocol")]
    Malformed(#[from] DecodeError),
    /// Something else arrived where a hello or welcome must stand.
    #[error("unexpected {0:?} frame instead of a handshake")]
    Unexpected(Kind),
    /// The gateway says no.
    #[error("the gateway refused: {}", .0.message)]
    Refused(Refused),
    /// The gateway does not know the token: it is another gateway, or somebody stands between.
    #[error(
        "the gateway could not prove that it knows the token; either it is not the gateway this token belongs to, \
         or something between terminates TLS"
    )]
    GatewayUnproved,
}

async fn read_frame<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<(Kind, Bytes), HandshakeError> {
    let mut raw = [0; HEADER_LEN];
    io.read_exact(&mut raw).await?;
    let header = FrameHeader::decode(raw)?;
    if !matches!(header.kind, Kind::Hello | Kind::Welcome | Kind::Refused) {
        return Err(HandshakeError::Unexpected(header.kind));
    }
    if header.len > MAX_MESSAGE {
        return Err(DecodeError::TooLong { what: "handshake", got: header.len, limit: MAX_MESSAGE }.into());
    }
    let mut payload = BytesMut::new();
    // Grows as bytes arrive: an announced length alone makes nobody allocate.
    let mut rest = (&mut *io).take(header.len as u64);
    while payload.len() < header.len {
        if rest.read_buf(&mut payload).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok((header.kind, payload.freeze()))
}

async fn write_frame<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    kind: Kind,
    encode: impl FnOnce(&mut BytesMut),
) -> io::Result<()> {
    io.write_all(&framed(kind, encode)).await?;
    io.flush().await
}

fn framed(kind: Kind, encode: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut payload = BytesMut::new();
    encode(&mut payload);
    let mut out = BytesMut::new();
    frame::put(&mut out, kind, 0, &payload);
    out
}

/// The agent's side: says hello (its proof is filled in here) and waits for the answer. Not cancel safe: the
/// transport is of no use afterwards.
///
/// # Errors
/// [`HandshakeError`]; only [`HandshakeError::Refused`] is the gateway's own word.
pub async fn greet<IO>(
    io: &mut IO,
    mut hello: Hello,
    key: &TokenKey,
    exporter: &Exporter,
) -> Result<Welcome, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    hello.proof = key.prove(Prover::Agent, exporter, &hello.signed_part());
    write_frame(io, Kind::Hello, |out| hello.encode(out)).await?;
    match read_frame(io).await? {
        (Kind::Welcome, payload) => {
            let welcome = Welcome::decode(payload)?;
            if !key.check(Prover::Gateway, exporter, &welcome.signed_part(), &welcome.proof) {
                return Err(HandshakeError::GatewayUnproved);
            }
            if !(hello.versions.0..=hello.versions.1).contains(&welcome.version) {
                return Err(DecodeError::Invalid("version").into());
            }
            Ok(welcome)
        }
        (Kind::Refused, payload) => Err(HandshakeError::Refused(Refused::decode(payload)?)),
        (kind, _) => Err(HandshakeError::Unexpected(kind)),
    }
}

/// The gateway's side, first half: reads a hello. Its proof is not checked yet. Not cancel safe.
///
/// # Errors
/// [`HandshakeError`] when it does not arrive or is none.
pub async fn read_hello<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<Hello, HandshakeError> {
    match read_frame(io).await? {
        (Kind::Hello, payload) => Ok(Hello::decode(payload)?),
        (kind, _) => Err(HandshakeError::Unexpected(kind)),
    }
}

/// Whether a hello's proof was made with this token on this channel.
#[must_use]
pub fn is_proved(hello: &Hello, key: &TokenKey, exporter: &Exporter) -> bool {
    key.check(Prover::Agent, exporter, &hello.signed_part(), &hello.proof)
}

/// The gateway's side, second half: the bytes that agree. They are the first of the session that it has let in.
#[must_use]
pub fn welcome(version: u16, granted: u64, release: &str, key: &TokenKey, exporter: &Exporter) -> BytesMut {
    let capabilities = granted | capabilities::LANES;
    let mut welcome = Welcome { version, capabilities, release: release.to_owned(), proof: [0; PROOF_LEN] };
    welcome.proof = key.prove(Prover::Gateway, exporter, &welcome.signed_part());
    framed(Kind::Welcome, |out| welcome.encode(out))
}

/// The gateway's side, second half: says no and why. Not cancel safe.
///
/// # Errors
/// What the transport said.
pub async fn refuse<IO: AsyncWrite + Unpin>(io: &mut IO, refused: &Refused) -> io::Result<()> {
    write_frame(io, Kind::Refused, |out| refused.encode(out)).await?;
    io.shutdown().await
}

#[cfg(test)]
mod tests {
    use adit_proto::handshake::Offer;
    use adit_proto::names::{HostPattern, InstanceId};
    use adit_proto::reason::Reason;

    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: (1, 1),
            capabilities: 0,
            instance: InstanceId::from_bytes([1; 16]),
            generation: 1,
            release: "test".into(),
            hostname: "test".into(),
            offers: vec![Offer { service: HostPattern::Any.into(), upstream: "http_status:204".into() }],
            proof: [0; PROOF_LEN],
        }
    }

    /// Plays a gateway that knows `key` on a channel with `exporter`.
    async fn gateway(mut io: tokio::io::DuplexStream, key: TokenKey, exporter: Exporter) -> bool {
        let hello = read_hello(&mut io).await.unwrap();
        let proved = is_proved(&hello, &key, &exporter);
        if proved {
            io.write_all(&welcome(1, 0, "test", &key, &exporter)).await.unwrap();
        } else {
            let refused = Refused { reason: Reason::Unauthorized, message: "no".into() };
            refuse(&mut io, &refused).await.unwrap();
        }
        proved
    }

    #[tokio::test]
    async fn both_sides_with_the_token_on_one_channel_agree() {
        let (mut agent, server) = tokio::io::duplex(1024);
        let key = TokenKey::new(b"t");
        let (greeted, proved) =
            tokio::join!(greet(&mut agent, hello(), &key, &[1; 32]), gateway(server, key.clone(), [1; 32]));
        assert_eq!(greeted.unwrap().version, 1);
        assert!(proved);
    }

    #[tokio::test]
    async fn a_wrong_token_is_refused_with_the_gateways_word() {
        let (mut agent, server) = tokio::io::duplex(1024);
        let wrong = TokenKey::new(b"wrong");
        let (greeted, proved) = tokio::join!(
            greet(&mut agent, hello(), &wrong, &[1; 32]),
            gateway(server, TokenKey::new(b"t"), [1; 32])
        );
        assert!(matches!(greeted, Err(HandshakeError::Refused(r)) if r.reason == Reason::Unauthorized));
        assert!(!proved);
    }

    #[tokio::test]
    async fn a_man_in_the_middle_with_two_channels_convinces_neither_side() {
        let key = TokenKey::new(b"t");
        let (mut agent, mut middle_to_agent) = tokio::io::duplex(1024);
        let (mut middle_to_gateway, server) = tokio::io::duplex(1024);
        let relay = async {
            let hello = read_hello(&mut middle_to_agent).await.unwrap();
            write_frame(&mut middle_to_gateway, Kind::Hello, |out| hello.encode(out)).await.unwrap();
            let (_, refused) = read_frame(&mut middle_to_gateway).await.unwrap();
            assert!(Refused::decode(refused).is_ok());
            // He can only make up an answer of his own.
            let forged = TokenKey::new(b"guess");
            middle_to_agent.write_all(&welcome(1, 0, "x", &forged, &[1; 32])).await.unwrap();
        };
        let (greeted, proved, ()) = tokio::join!(
            greet(&mut agent, hello(), &key, &[1; 32]),
            gateway(server, key.clone(), [2; 32]),
            relay
        );
        assert!(matches!(greeted, Err(HandshakeError::GatewayUnproved)));
        assert!(!proved);
    }

    #[tokio::test]
    async fn an_announced_length_alone_makes_nobody_allocate_or_wait_for_more_than_the_bound() {
        let (mut peer, mut server) = tokio::io::duplex(1024);
        peer.write_all(&[0xff, 0xff, 0xff, Kind::Hello as u8, 0, 0, 0, 0]).await.unwrap();
        assert!(matches!(read_hello(&mut server).await, Err(HandshakeError::Malformed(_))));
    }
}
