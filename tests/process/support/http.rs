//! A plain HTTP/1.1 client over a socket: nothing between the test and the bytes, and a deadline on everything.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::secrets;

/// A stream of which every read and write ends by a deadline.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The head of a message: its first line and its fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; `None` at the end of the stream.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = Self::default();
        if reader.read_line(&mut head.first)? == 0 {
            return Ok(None);
        }
        head.first.truncate(head.first.trim_end().len());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            let Some((name, value)) = line.split_once(':') else { return Ok(Some(head)) };
            head.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The value of a field, by its lower-case name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.field(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.field("content-length").and_then(|text| text.parse().ok())
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.is("transfer-encoding", "chunked")
    }

    pub(crate) fn closes(&self) -> bool {
        self.is("connection", "close")
    }
}

/// A body of a message, as a reader that fails when the body is cut short.
pub(crate) struct Body<'r, R> {
    reader: &'r mut R,
    left: u64,
    is_chunked: bool,
}

impl<'r, R: BufRead> Body<'r, R> {
    pub(crate) fn of(head: &Head, reader: &'r mut R) -> Self {
        Self { reader, left: head.length().unwrap_or(0), is_chunked: head.is_chunked() }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16)
            .map_err(|_not_a_number| io::Error::other(format!("`{line}` is not the size of a chunk")))?;
        self.left = size;
        self.is_chunked = size > 0;
        if size == 0 {
            self.reader.read_line(&mut line)?;
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.is_chunked {
            self.next_chunk()?;
        }
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let max = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..max])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        if self.left == 0 && self.is_chunked {
            self.reader.read_line(&mut String::new())?;
        }
        Ok(count)
    }
}

/// A response, complete.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(crate) const fn get(host: &'a str, path: &'a str) -> Self {
        Self { method: "GET", host, path, body: None }
    }

    pub(crate) const fn post(host: &'a str, path: &'a str, body: &'a [u8]) -> Self {
        Self { method: "POST", host, path, body: Some(body) }
    }
}

/// A connection that is kept from request to request.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: BufReader<Timed>,
}

impl Connection {
    pub(crate) fn open(addr: SocketAddr, deadline: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, deadline)?;
        stream.set_nodelay(true)?;
        let timed = Timed { stream, until: Instant::now() + deadline };
        Ok(Self { reader: BufReader::with_capacity(256 * 1024, timed) })
    }

    /// What is beneath, to write what no request would.
    pub(crate) fn writer(&mut self) -> &mut Timed {
        self.reader.get_mut()
    }

    /// What comes behind a head that ends HTTP on this connection.
    pub(crate) fn raw(&mut self) -> &mut impl Read {
        &mut self.reader
    }

    /// Gives what follows this much time.
    pub(crate) fn within(&mut self, deadline: Duration) -> &mut Self {
        self.reader.get_mut().until = Instant::now() + deadline;
        self
    }

    pub(crate) fn send(&mut self, request: &Request<'_>) -> io::Result<()> {
        let Request { method, host, path, body } = request;
        let mut message = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
        if let Some(body) = body {
            message.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(body.unwrap_or_default());
        self.reader.get_mut().write_all(&message)
    }

    pub(crate) fn head(&mut self) -> io::Result<Head> {
        let head = Head::read(&mut self.reader)?;
        head.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a response"))
    }

    /// The body that belongs to a head.
    pub(crate) fn body(&mut self, head: &Head) -> Body<'_, BufReader<Timed>> {
        Body::of(head, &mut self.reader)
    }

    pub(crate) fn response(&mut self) -> io::Result<Response> {
        let head = self.head()?;
        let mut body = Vec::new();
        self.body(&head)
            .read_to_end(&mut body)
            .map_err(|error| io::Error::new(error.kind(), format!("a response was cut: {error}")))?;
        if let Some(line) = secrets::leak(&body) {
            panic!("a response says a token: {line}");
        }
        let status = head.first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {}", head.first)))?;
        Ok(Response { status, head, body })
    }

    pub(crate) fn exchange(&mut self, request: &Request<'_>) -> io::Result<Response> {
        self.send(request)?;
        self.response()
    }
}

/// One request on a connection of its own.
pub(crate) fn once(addr: SocketAddr, request: &Request<'_>) -> io::Result<Response> {
    Connection::open(addr, super::wait::SOON)?.exchange(request)
}

/// The text of a 200 answer; anything else as an error, for waiting.
pub(crate) fn text(addr: SocketAddr, host: &str, path: &str) -> Result<String, String> {
    let response = once(addr, &Request::get(host, path)).map_err(|error| error.to_string())?;
    if response.status == 200 {
        Ok(response.text())
    } else {
        Err(format!("{} {}", response.head.first, response.text()))
    }
}
