//! A connection whose every byte the test writes and reads itself, on either side of HTTP/1.1.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::within;

/// Anything that carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection.
pub struct Wire {
    io: Box<dyn Io>,
    read: BytesMut,
    /// Which connection of its upstream this is, counted from 1; 0 for a client's.
    pub number: usize,
    /// What ALPN agreed on.
    pub alpn: Option<Vec<u8>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("number", &self.number).field("read", &self.read).finish_non_exhaustive()
    }
}

/// The head of a message.
#[derive(Clone, Default)]
pub struct Head {
    /// Exactly what came, with the empty line.
    pub raw: Vec<u8>,
    /// The first line.
    pub first: String,
    /// The fields, in order, as written.
    pub fields: Vec<(String, String)>,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.raw.escape_ascii())
    }
}

impl Head {
    fn parse(raw: &[u8]) -> Self {
        let text: String = raw.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        Self { raw: raw.to_vec(), first, fields: lines.filter_map(field).collect() }
    }

    /// The first field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All fields of this name.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let is_it = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.fields.iter().filter(is_it).map(|(_, value)| value.as_str()).collect()
    }

    /// The status of a response.
    #[must_use]
    pub fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("not a response: {:?}", self.first))
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    #[must_use]
    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.field("content-length").map(|value| value.parse().unwrap())
    }
}

fn field(line: &str) -> Option<(String, String)> {
    line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
}

/// What followed a head.
#[derive(Clone, Default)]
pub struct Content {
    /// The bytes, without chunk framing.
    pub bytes: Vec<u8>,
    /// The trailer section.
    pub trailers: Vec<(String, String)>,
    /// The end came as announced; `false`: the connection ended first.
    pub complete: bool,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(300)];
        let Self { bytes, trailers, complete } = self;
        write!(
            f,
            "{} bytes \"{}\", trailers {trailers:?}, complete {complete}",
            bytes.len(),
            shown.escape_ascii()
        )
    }
}

/// A whole response.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub content: Content,
}

impl Reply {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The first field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// Why the gateway said no.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.field("adit-reason")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content.bytes).into_owned()
    }
}

impl Wire {
    /// A connection that stands already.
    pub fn new(io: impl Io + 'static, number: usize) -> Self {
        Self { io: Box::new(io), read: BytesMut::new(), number, alpn: None }
    }

    /// Connects in cleartext.
    pub async fn tcp(addr: SocketAddr) -> Self {
        let tcp = within("connecting", TcpStream::connect(addr)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::new(tcp, 0)
    }

    /// Connects by TLS, and takes any certificate.
    pub async fn tls(addr: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let tcp = within("connecting", TcpStream::connect(addr)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = within("TLS", TlsConnector::from(Arc::clone(config)).connect(name, tcp)).await.unwrap();
        let alpn = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        Self { alpn, ..Self::new(tls, 0) }
    }

    /// The connection itself, with nothing read that the new owner would miss.
    #[must_use]
    pub fn into_io(self) -> Box<dyn Io> {
        assert!(self.read.is_empty(), "bytes were read already: {:?}", self.read);
        self.io
    }

    /// Writes, if the other side still takes it.
    ///
    /// # Errors
    /// What the system said.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("the other side to take bytes", async {
            self.io.write_all(bytes.as_ref()).await?;
            self.io.flush().await
        })
        .await
    }

    /// Writes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        if let Err(error) = self.try_send(bytes).await {
            panic!("cannot send {:?}: {error}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
        }
    }

    /// Writes once, as much as is taken now.
    ///
    /// # Errors
    /// What the system said.
    pub async fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.io.write(bytes).await
    }

    /// Ends this side's half.
    pub async fn finish_sending(&mut self) {
        drop(within("half-close", self.io.shutdown()).await);
    }

    /// Reads once more; 0 at the end, however it came.
    pub async fn fill(&mut self) -> usize {
        within("bytes", self.fill_for_ever()).await
    }

    /// As [`Wire::fill`], without a deadline.
    pub async fn fill_for_ever(&mut self) -> usize {
        self.io.read_buf(&mut self.read).await.unwrap_or(0)
    }

    /// What has been read and not been taken.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.read
    }

    /// The next so many bytes; fewer only at the end.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count && self.fill().await > 0 {}
        let count = count.min(self.read.len());
        self.read.split_to(count).to_vec()
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        std::mem::take(&mut self.read).to_vec()
    }

    /// Reads and forgets until the connection ends.
    pub async fn ended(&mut self) {
        while self.fill().await > 0 {
            self.read.clear();
        }
    }

    /// The next line without its end; `None` when the connection ends first.
    pub async fn line(&mut self) -> Option<String> {
        let mut from = 0;
        loop {
            if let Some(at) = self.read[from..].windows(2).position(|pair| pair == b"\r\n") {
                let line = self.read.split_to(from + at);
                self.read.advance(2);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            from = self.read.len().saturating_sub(1);
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    /// The next head; `None` when the connection ends first. Cancel safe.
    pub async fn head(&mut self) -> Option<Head> {
        let mut from = 0;
        loop {
            if let Some(at) = self.read[from..].windows(4).position(|end| end == b"\r\n\r\n") {
                return Some(Head::parse(&self.read.split_to(from + at + 4)));
            }
            from = self.read.len().saturating_sub(3);
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    /// One chunk; `None` is the last one or the end of the connection.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line().await?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or(""), 16)
            .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
        if size == 0 {
            return None;
        }
        let bytes = self.take(size + 2).await;
        (bytes.len() == size + 2).then(|| bytes[..size].to_vec())
    }

    async fn chunked(&mut self) -> Content {
        let mut content = Content::default();
        loop {
            let Some(line) = self.line().await else { return content };
            let size = usize::from_str_radix(line.split(';').next().unwrap_or(""), 16)
                .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            let bytes = self.take(size + 2).await;
            content.bytes.extend_from_slice(&bytes[..bytes.len().min(size)]);
            if bytes.len() < size + 2 {
                return content;
            }
        }
        loop {
            match self.line().await {
                None => return content,
                Some(line) if line.is_empty() => break,
                Some(line) => content.trailers.extend(field(&line)),
            }
        }
        content.complete = true;
        content
    }

    async fn fixed(&mut self, length: usize) -> Content {
        let bytes = self.take(length).await;
        Content { complete: bytes.len() == length, bytes, trailers: Vec::new() }
    }

    /// The body of a request with this head.
    pub async fn request_body(&mut self, head: &Head) -> Content {
        if head.is_chunked() { self.chunked().await } else { self.fixed(head.length().unwrap_or(0)).await }
    }

    /// The final response to a request with this method, behind any interim ones.
    pub async fn try_reply_to(&mut self, method: &str) -> Option<Reply> {
        let mut head = self.head().await?;
        while head.status() / 100 == 1 && head.status() != 101 {
            head = self.head().await?;
        }
        let content = if method == "HEAD" || matches!(head.status(), 101 | 204 | 304) {
            Content { complete: true, ..Content::default() }
        } else if head.is_chunked() {
            self.chunked().await
        } else if let Some(length) = head.length() {
            self.fixed(length).await
        } else {
            Content { bytes: self.rest().await, complete: true, trailers: Vec::new() }
        };
        Some(Reply { head, content })
    }

    /// The response to a request with this method.
    pub async fn reply_to(&mut self, method: &str) -> Reply {
        match self.try_reply_to(method).await {
            Some(reply) => reply,
            None => panic!("the connection ended without a response; before the end came {:?}", self.read),
        }
    }

    /// The response to a `GET` or `POST`.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// Asks for a path and waits for the answer.
    pub async fn get(&mut self, host: &str, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        self.reply().await
    }

    /// Sends a body with its length and waits for the answer.
    pub async fn post(&mut self, host: &str, target: &str, body: &[u8]) -> Reply {
        let head =
            format!("POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat()).await;
        self.reply().await
    }
}
