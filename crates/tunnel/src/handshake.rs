//! The first two frames of a session over a connected transport: who the agent is, and whether the gateway agrees.

use std::io;

use adit_proto::frame::{FrameHeader, HEADER_LEN, Kind};
use adit_proto::handshake::{Hello, Notice, PROOF_LEN, Refused, Welcome, capabilities};
use adit_proto::{DecodeError, frame};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::proof::{Exporter, Prover, TokenKey};

/// Longest hello or welcome that is read, in bytes. Before authentication, so no larger than it has to be.
const MAX_MESSAGE: usize = 64 * 1024;

/// What an agent shows.
#[derive(Debug, Clone)]
pub enum Credential {
    /// It proves a token, and the gateway proves it back.
    Token(TokenKey),
    /// The certificate of its TLS connection; the gateway is known by its own, so TLS has to check that one.
    Certificate,
}

impl Credential {
    /// The token, if it is one.
    #[must_use]
    pub const fn token(&self) -> Option<&TokenKey> {
        match self {
            Self::Token(key) => Some(key),
            Self::Certificate => None,
        }
    }
}

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

/// The agent's side: says hello (what shows the credential is filled in here) and waits for the answer. Not cancel safe: the
/// transport is of no use afterwards.
///
/// # Errors
/// [`HandshakeError`]; only [`HandshakeError::Refused`] is the gateway's own word.
pub async fn greet<IO>(
    io: &mut IO,
    mut hello: Hello,
    credential: &Credential,
    exporter: &Exporter,
) -> Result<Welcome, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    hello.proof = [0; PROOF_LEN];
    match credential {
        Credential::Token(key) => {
            hello.capabilities &= !capabilities::CERTIFICATE;
            hello.proof = key.prove(Prover::Agent, exporter, &hello.signed_part());
        }
        Credential::Certificate => hello.capabilities |= capabilities::CERTIFICATE,
    }
    write_frame(io, Kind::Hello, |out| hello.encode(out)).await?;
    match read_frame(io).await? {
        (Kind::Welcome, payload) => {
            let welcome = Welcome::decode(payload)?;
            let checks =
                |key: &TokenKey| key.check(Prover::Gateway, exporter, &welcome.signed_part(), &welcome.proof);
            if !credential.token().is_none_or(checks) {
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

/// What a gateway agrees to.
#[derive(Debug, Clone, Default)]
pub struct Agreement<'a> {
    /// The version both use from here on.
    pub version: u16,
    /// The capabilities it grants.
    pub granted: u64,
    /// The gateway's release.
    pub release: &'a str,
    /// Offers that it does not take. Only for an agent that reads them.
    pub notices: Vec<Notice>,
}

/// The gateway's side, second half: the bytes that agree. They are the first of the session that it has let in.
/// `credential` is the one that the agent has shown.
#[must_use]
pub fn welcome(agreement: Agreement<'_>, credential: &Credential, exporter: &Exporter) -> BytesMut {
    let Agreement { version, granted, release, notices } = agreement;
    let mut capabilities = granted | capabilities::LANES;
    if !notices.is_empty() {
        capabilities |= capabilities::NOTICES;
    }
    let proof = [0; PROOF_LEN];
    let mut welcome = Welcome { version, capabilities, release: release.to_owned(), notices, proof };
    if let Credential::Token(key) = credential {
        welcome.proof = key.prove(Prover::Gateway, exporter, &welcome.signed_part());
    }
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

    fn token(key: &TokenKey) -> Credential {
        Credential::Token(key.clone())
    }

    fn agree(key: TokenKey, exporter: &Exporter) -> BytesMut {
        let agreement = Agreement { version: 1, release: "test", ..Agreement::default() };
        welcome(agreement, &Credential::Token(key), exporter)
    }

    /// Plays a gateway that knows `key` on a channel with `exporter`.
    async fn gateway(mut io: tokio::io::DuplexStream, key: TokenKey, exporter: Exporter) -> bool {
        let hello = read_hello(&mut io).await.unwrap();
        let proved = is_proved(&hello, &key, &exporter);
        if proved {
            io.write_all(&agree(key, &exporter)).await.unwrap();
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
        let shown = token(&key);
        let (greeted, proved) =
            tokio::join!(greet(&mut agent, hello(), &shown, &[1; 32]), gateway(server, key.clone(), [1; 32]));
        assert_eq!(greeted.unwrap().version, 1);
        assert!(proved);
    }

    #[tokio::test]
    async fn who_comes_with_a_certificate_proves_nothing_and_reads_which_offers_are_not_taken() {
        let (mut agent, mut server) = tokio::io::duplex(1024);
        let gateway = async {
            let hello = read_hello(&mut server).await.unwrap();
            assert_eq!((hello.capabilities, hello.proof), (capabilities::CERTIFICATE, [0; PROOF_LEN]));
            let service = HostPattern::Any.into();
            let notice = Notice { service, reason: Reason::AddressDenied, message: "no".into() };
            let agreement = Agreement { version: 1, notices: vec![notice], ..Agreement::default() };
            let welcome = welcome(agreement, &Credential::Certificate, &[1; 32]);
            server.write_all(&welcome).await.unwrap();
        };
        let hello = hello();
        let (greeted, ()) =
            tokio::join!(greet(&mut agent, hello, &Credential::Certificate, &[1; 32]), gateway);
        assert_eq!(greeted.unwrap().notices[0].reason, Reason::AddressDenied);
    }

    #[tokio::test]
    async fn a_wrong_token_is_refused_with_the_gateways_word() {
        let (mut agent, server) = tokio::io::duplex(1024);
        let shown = Credential::Token(TokenKey::new(b"wrong"));
        let (greeted, proved) = tokio::join!(
            greet(&mut agent, hello(), &shown, &[1; 32]),
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
            middle_to_agent.write_all(&agree(forged, &[1; 32])).await.unwrap();
        };
        let shown = token(&key);
        let (greeted, proved, ()) = tokio::join!(
            greet(&mut agent, hello(), &shown, &[1; 32]),
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
