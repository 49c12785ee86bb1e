//! A service behind an agent, in this process: small, on raw sockets, one thread a connection.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::data::{self, Data};
use super::http::{Body, Head};

/// Opened by the test, one step at a time.
#[derive(Debug, Default)]
struct Gate {
    steps: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn open(&self, steps: usize) {
        *self.steps.lock() += steps;
        self.changed.notify_all();
    }

    /// Waits for a step; an error when the test never takes it.
    fn pass(&self, step: usize) -> io::Result<()> {
        let mut steps = self.steps.lock();
        let late = self.changed.wait_while_for(&mut steps, |steps| *steps < step, Duration::from_secs(60));
        if late.timed_out() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Upstream {
    addr: SocketAddr,
    gate: Arc<Gate>,
    is_over: Arc<AtomicBool>,
    /// How often each path under `/once/` was posted to.
    posts: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Upstream {
    /// Starts it. It serves
    /// `GET /hello`; `POST /echo`; `POST /digest` (length and SHA-256 of the body); `GET /bytes/N` (a stream of N
    /// bytes); `POST /once/…` (as `/digest`, and counted by path); `GET /raw` (an upgrade to a connection that echoes);
    /// `GET /slow` (a body whose second half waits for a step); `GET /events` (server-sent events, each
    /// waits for a step); everything else is 404.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (gate, is_over) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
        let posts = Arc::default();
        let upstream =
            Self { addr, gate: Arc::clone(&gate), is_over: Arc::clone(&is_over), posts: Arc::clone(&posts) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (gate, posts) = (Arc::clone(&gate), Arc::clone(&posts));
                // A client that leaves ends its connection and nothing else.
                std::thread::spawn(move || drop(connection(stream, &gate, &posts)));
            }
        });
        upstream
    }

    /// As `--upstream` and agent.yaml write it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How often each path under `/once/` was posted to.
    pub(crate) fn posts(&self) -> BTreeMap<String, usize> {
        self.posts.lock().clone()
    }

    /// Lets waiting responses take this many steps more.
    pub(crate) fn release(&self, steps: usize) {
        self.gate.open(steps);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.addr));
        self.gate.open(usize::MAX / 2);
    }
}

fn connection(stream: TcpStream, gate: &Gate, posts: &Mutex<BTreeMap<String, usize>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    while let Some(head) = Head::read(&mut reader)? {
        if head.field("expect").is_some() {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut words = head.first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut body = Body::of(&head, &mut reader);
        match (method, path) {
            ("GET", "/hello") => answer(&mut writer, "200 OK", b"hello\n")?,
            ("POST", "/echo") => {
                let mut bytes = Vec::new();
                body.read_to_end(&mut bytes)?;
                answer(&mut writer, "200 OK", &bytes)?;
            }
            ("POST", "/digest") => {
                let digest = data::digest(&mut body)?;
                answer(&mut writer, "200 OK", digest.as_bytes())?;
            }
            ("POST", path) if path.starts_with("/once/") => {
                *posts.lock().entry(path.to_owned()).or_default() += 1;
                let digest = data::digest(&mut body)?;
                answer(&mut writer, "200 OK", digest.as_bytes())?;
            }
            ("GET", "/raw") => {
                writer.write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n",
                )?;
                return echo(&mut reader, &mut writer);
            }
            ("GET", "/slow") => {
                writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nfirst ")?;
                gate.pass(1)?;
                writer.write_all(b"last\n")?;
            }
            ("GET", "/events") => events(&mut writer, gate)?,
            ("GET", path) if path.starts_with("/bytes/") => {
                let len = path["/bytes/".len()..].parse().map_err(io::Error::other)?;
                write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n")?;
                send(&mut writer, Data::new(len))?;
            }
            _ => {
                drop(data::digest(&mut body)?);
                answer(&mut writer, "404 Not Found", b"not here\n")?;
            }
        }
        if head.closes() {
            return Ok(());
        }
    }
    Ok(())
}

fn echo(reader: &mut impl Read, writer: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..count])?;
    }
}

/// Passes on everything a reader has.
pub(crate) fn send(writer: &mut impl Write, mut data: impl Read) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = data.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..count])?;
    }
}

fn answer(writer: &mut impl Write, status: &str, body: &[u8]) -> io::Result<()> {
    let mut message = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    message.extend_from_slice(body);
    writer.write_all(&message)
}

fn events(writer: &mut impl Write, gate: &Gate) -> io::Result<()> {
    writer.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    for number in 1..=5 {
        gate.pass(number)?;
        let event = format!("data: event {number}\n\n");
        write!(writer, "{:x}\r\n{event}\r\n", event.len())?;
    }
    writer.write_all(b"0\r\n\r\n")
}
