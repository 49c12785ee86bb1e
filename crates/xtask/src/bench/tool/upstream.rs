//! The upstream of everybody: `GET /bytes/N` is answered with N bytes, what is posted is thrown away.
//! One thread; it must never be what limits a peer more than it limits the others.

use std::io::{ErrorKind, IoSlice, Read as _, Result as IoResult, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::CHUNK;
use super::http::{Head, decimal};

const LISTENER: Token = Token(usize::MAX);
/// Bodies up to this leave with their head.
const SMALL: u64 = 16 << 10;

/// Serves until the process is ended.
pub(super) fn run(addr: SocketAddr) -> Result<()> {
    let mut poll = Poll::new().context("cannot make a poll")?;
    let mut listener = TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer = vec![b'x'; CHUNK];
    let body = vec![b'x'; CHUNK];
    let mut events = Events::with_capacity(512);
    loop {
        poll.poll(&mut events, None).or_else(unless_interrupted)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    let at = free.pop().unwrap_or(connections.len());
                    let both = Interest::READABLE | Interest::WRITABLE;
                    socket.set_nodelay(true)?;
                    poll.registry().register(&mut socket, Token(at), both)?;
                    let connection = Some(Connection::new(socket));
                    match connections.get_mut(at) {
                        Some(slot) => *slot = connection,
                        None => connections.push(connection),
                    }
                }
                continue;
            }
            let at = event.token().0;
            let Some(slot) = connections.get_mut(at) else { continue };
            let Some(connection) = slot else { continue };
            if !connection.advance(&mut buffer, &body).unwrap_or(false) {
                *slot = None;
                free.push(at);
            }
        }
    }
}

fn unless_interrupted(error: std::io::Error) -> IoResult<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    /// What came and is not yet a whole request.
    input: Vec<u8>,
    /// What is still to come of a posted body.
    discard: u64,
    is_posting: bool,
    output: Vec<u8>,
    body: u64,
    closes: bool,
}

impl Connection {
    fn new(socket: TcpStream) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        Self { socket, input, discard: 0, is_posting: false, output, body: 0, closes: false }
    }

    /// Goes on until the socket has nothing more to give or take. False when the connection is over.
    fn advance(&mut self, buffer: &mut [u8], body: &[u8]) -> IoResult<bool> {
        let mut is_drained = false;
        loop {
            if !self.flush(body)? {
                return Ok(true);
            }
            if self.closes {
                return Ok(false);
            }
            if self.take_request(body) {
                continue;
            }
            if is_drained {
                return Ok(true);
            }
            match self.socket.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    is_drained = count < buffer.len();
                    self.take(&buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let skipped = usize::try_from(self.discard).unwrap_or(usize::MAX).min(bytes.len());
        self.discard -= skipped as u64;
        self.input.extend_from_slice(&bytes[skipped..]);
    }

    /// Whether an answer has been made ready.
    fn take_request(&mut self, body: &[u8]) -> bool {
        if self.is_posting {
            if self.discard > 0 {
                return false;
            }
            self.is_posting = false;
            self.answer(2, body);
            return true;
        }
        let Some(head) = Head::parse(&self.input) else { return false };
        let path = self.input.iter().position(|byte| *byte == b'/').unwrap_or(0);
        self.is_posting = !self.input.starts_with(b"GET ");
        self.closes |= head.closes && !self.is_posting;
        if self.is_posting {
            let rest = self.input.split_off(head.len);
            self.discard = head.body;
            self.input.clear();
            self.take(&rest);
            return self.discard == 0;
        }
        let asked = self.input[path..].strip_prefix(b"/bytes/").map_or(2, decimal);
        self.input.drain(..head.len);
        self.answer(asked, body);
        true
    }

    fn answer(&mut self, len: u64, body: &[u8]) {
        self.output.extend_from_slice(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").as_bytes());
        if len <= SMALL {
            self.output.extend(body.iter().take(usize::try_from(len).unwrap_or(0)));
        } else {
            self.body = len;
        }
    }

    /// Whether everything has left.
    fn flush(&mut self, body: &[u8]) -> IoResult<bool> {
        while !self.output.is_empty() || self.body > 0 {
            let part = usize::try_from(self.body).unwrap_or(usize::MAX).min(body.len());
            let written = match self
                .socket
                .write_vectored(&[IoSlice::new(&self.output), IoSlice::new(&body[..part])])
            {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let of_head = written.min(self.output.len());
            self.output.drain(..of_head);
            self.body -= (written - of_head) as u64;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    fn served() -> TcpStream {
        let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::thread::spawn(move || run(addr));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match TcpStream::connect(addr) {
                Ok(socket) => return socket,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
        }
    }

    fn answer(socket: &mut TcpStream) -> (String, usize) {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let head = Head::parse(&bytes);
            if let Some(head) = head
                && bytes.len() as u64 >= head.len as u64 + head.body
            {
                return (String::from_utf8(bytes[..head.len].to_vec()).unwrap(), bytes.len() - head.len);
            }
            let count = socket.read(&mut part).unwrap();
            assert!(count > 0, "the upstream closed");
            bytes.extend_from_slice(&part[..count]);
        }
    }

    #[test]
    fn it_sends_what_is_asked_and_takes_what_is_posted_on_one_connection() {
        let mut socket = served();
        for size in [0, 1, 1024, 16 << 10, (16 << 10) + 1, 3 << 20] {
            socket.write_all(format!("GET /bytes/{size} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
            let (head, body) = answer(&mut socket);
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert_eq!(body, size);
        }
        socket.write_all(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 600000\r\n\r\n").unwrap();
        socket.write_all(&vec![b'y'; 600_000]).unwrap();
        assert_eq!(answer(&mut socket).1, 2);
        socket.write_all(b"GET /bytes/5 HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("\r\n\r\nxxxxx"), "{rest}");
    }
}
