//! Who connected, as a balancer in front says it: the PROXY protocol on public listeners.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use adit_control::Rules;
use adit_proto::proxy_header::{Ends, Length, MAX_V1_LEN, MIN_LEN, ProxyHeader};
use adit_proto::reason::Reason;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Reads the header that stands in front of everything a balancer passes on, and not a byte of what follows it.
/// `None`: the balancer speaks for itself.
///
/// # Errors
/// [`Reason::AddressDenied`] when the peer is not trusted to say such things, [`Reason::RequestTimeout`] when the
/// header is not complete in time, [`Reason::BadRequest`] when it is none, [`Reason::ClientGone`].
pub(crate) async fn ends(
    tcp: &mut TcpStream,
    peer: SocketAddr,
    rules: &Rules,
    timeout: Duration,
) -> Result<Option<Ends>, Reason> {
    if !rules.trusts(peer.ip()) {
        return Err(Reason::AddressDenied);
    }
    let header = tokio::time::timeout(timeout, read(tcp)).await.map_err(|_elapsed| Reason::RequestTimeout)?;
    let header = header.map_err(|error| {
        tracing::debug!(%peer, %error, "no PROXY header");
        if error.kind() == io::ErrorKind::InvalidData { Reason::BadRequest } else { Reason::ClientGone }
    })?;
    Ok(header.ends)
}

async fn read(tcp: &mut TcpStream) -> io::Result<ProxyHeader> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut header = vec![0; MIN_LEN];
    tcp.read_exact(&mut header).await?;
    loop {
        match ProxyHeader::length(&header).map_err(invalid)? {
            Length::Line if header.ends_with(b"\n") || header.len() > MAX_V1_LEN => break,
            Length::Line => read_line(tcp, &mut header).await?,
            Length::Exactly(len) if header.len() >= len => break,
            Length::Exactly(len) => {
                let from = header.len();
                header.resize(len, 0);
                tcp.read_exact(&mut header[from..]).await?;
            }
        }
    }
    ProxyHeader::decode(&header).map_err(invalid)
}

/// Takes what there is of the line: looks first, because what follows the line end belongs to somebody else.
async fn read_line(tcp: &mut TcpStream, header: &mut Vec<u8>) -> io::Result<()> {
    let mut ahead = [0; MAX_V1_LEN + 1 - MIN_LEN];
    let seen = tcp.peek(&mut ahead).await?;
    if seen == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let take = ahead[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |end| end + 1);
    let from = header.len();
    header.resize(from + take, 0);
    tcp.read_exact(&mut header[from..]).await.map(drop)
}
