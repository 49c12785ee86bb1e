//! Small requests: one after the other on kept connections, a new connection for each, or at a fixed rate.
//!
//! At a fixed rate a request's time counts from when it should have been sent. A peer that stands still makes
//! the requests behind it late too, and they say so.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::http::{Head, get};
use super::{CHUNK, Figures};

/// With this many failures a peer is not slow but broken.
const TOO_MANY_FAILURES: u64 = 100_000;

/// What is asked.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) addr: SocketAddr,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) pace: Pace,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// Each connection asks again as soon as it has its answer.
    Kept,
    /// As before, with a new connection each time.
    Close,
    /// This many in a second over all connections, however long the answers take.
    Rate(f64),
}

impl FromStr for Pace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "kept" => Self::Kept,
            "close" => Self::Close,
            rate => match rate.parse::<f64>() {
                Ok(rate) if rate > 0.0 && rate.is_finite() => Self::Rate(rate),
                _ => bail!("`{rate}` is no pace; say kept, close or a rate above 0"),
            },
        })
    }
}

/// Asks for this long over this many connections.
///
/// # Errors
/// When no poll can be made, or nothing but failures happens.
pub(super) fn run(ask: &Ask<'_>, connections: usize, time: Duration) -> Result<Figures> {
    ensure!(connections > 0, "no connection, no request");
    let mut load = Load::new(ask, connections)?;
    load.go_on_for(time)?;
    let elapsed = load.started.elapsed().as_secs_f64();
    let mut times = load.micros;
    times.sort_unstable();
    let mut figures = vec![
        ("requests".to_owned(), times.len() as f64),
        ("errors".to_owned(), load.failures as f64),
        ("per_second".to_owned(), times.len() as f64 / elapsed),
        // What was due and had not even been sent.
        ("backlog".to_owned(), load.due.len() as f64),
    ];
    for (name, share) in
        [("p25_ms", 0.25), ("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999), ("max_ms", 1.0)]
    {
        figures.push((name.to_owned(), quantile(&times, share)));
    }
    Ok(figures)
}

/// One connection, one size after the other: the time a quarter of the requests do not reach, of each size, and
/// the worst of those. A stall that comes from the peer itself hits nearly every request; one that comes from a
/// busy machine does not.
///
/// # Errors
/// As [`run`].
pub(super) fn sweep(addr: SocketAddr, host: &str, time: Duration, sizes: &[u64]) -> Result<Figures> {
    let mut figures = Figures::new();
    let (mut worst, mut worst_size, mut errors) = (0.0, 0, 0.0);
    for size in sizes {
        let path = format!("/bytes/{size}");
        let seen = run(&Ask { addr, host, path: &path, pace: Pace::Kept }, 1, time)?;
        let figure = |wanted: &str| seen.iter().find(|(name, _)| name == wanted).map_or(0.0, |(_, it)| *it);
        let quarter = figure("p25_ms");
        errors += figure("errors") + f64::from(u8::from(figure("requests") < 1.0));
        figures.push((format!("p25_ms_{size}"), quarter));
        if quarter > worst {
            (worst, worst_size) = (quarter, *size);
        }
    }
    figures.extend([
        ("worst_ms".to_owned(), worst),
        ("worst_size".to_owned(), worst_size as f64),
        ("errors".to_owned(), errors),
    ]);
    Ok(figures)
}

/// In milliseconds; 0 of nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of an index")]
fn quantile(sorted_micros: &[u32], share: f64) -> f64 {
    let last = sorted_micros.len().saturating_sub(1) as f64;
    sorted_micros.get((last * share) as usize).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

struct Load {
    addr: SocketAddr,
    pace: Pace,
    request: Vec<u8>,
    poll: Poll,
    connections: Vec<Connection>,
    /// Connections without a request, at a fixed rate.
    idle: Vec<usize>,
    /// When the requests that have not been sent should have been.
    due: VecDeque<Instant>,
    micros: Vec<u32>,
    failures: u64,
    started: Instant,
    buffer: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    is_connected: bool,
    /// When its request was sent, or should have been.
    since: Option<Instant>,
    head: Vec<u8>,
    /// What is to come of a body whose head is there.
    left: Option<u64>,
}

/// What an event did to a connection.
enum Outcome {
    Waits,
    Connected,
    Answered,
    Failed,
}

impl Load {
    fn new(ask: &Ask<'_>, connections: usize) -> Result<Self> {
        let poll = Poll::new().context("cannot make a poll")?;
        let mut load = Self {
            addr: ask.addr,
            pace: ask.pace,
            request: get(ask.host, ask.path, ask.pace == Pace::Close),
            poll,
            connections: Vec::with_capacity(connections),
            idle: Vec::new(),
            due: VecDeque::new(),
            micros: Vec::with_capacity(1 << 20),
            failures: 0,
            started: Instant::now(),
            buffer: vec![0; CHUNK],
        };
        for at in 0..connections {
            let connection = load.connect(at)?;
            load.connections.push(connection);
        }
        Ok(load)
    }

    fn connect(&self, at: usize) -> Result<Connection> {
        let mut socket = TcpStream::connect(self.addr).context("no connection can be made")?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(at), both)?;
        // Of a request at once the connection is part of what is measured.
        let since = (self.pace == Pace::Close).then(Instant::now);
        Ok(Connection { socket, is_connected: false, since, head: Vec::new(), left: None })
    }

    fn go_on_for(&mut self, time: Duration) -> Result<()> {
        self.started = Instant::now();
        let end = self.started + time;
        let mut next = self.started;
        let mut events = Events::with_capacity(512);
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let mut wait = end - now;
            if let Pace::Rate(rate) = self.pace {
                while next <= now {
                    self.due.push_back(next);
                    next += Duration::from_secs_f64(1.0 / rate);
                }
                self.send_due();
                // A poll waits whole milliseconds, rounded up. The last one is spent asking, or every request
                // would be late.
                let whole = (next - now).as_micros() / 1000;
                wait = wait.min(Duration::from_millis(u64::try_from(whole).unwrap_or(0)));
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                self.take(event.token().0)?;
            }
            ensure!(self.failures < TOO_MANY_FAILURES, "more than {TOO_MANY_FAILURES} requests failed");
        }
    }

    fn send_due(&mut self) {
        while let Some(at) = self.idle.pop() {
            let Some(due) = self.due.pop_front() else {
                self.idle.push(at);
                return;
            };
            self.connections[at].send(&self.request, due);
        }
    }

    /// Lets a connection read, and gives it its next request.
    fn take(&mut self, at: usize) -> Result<()> {
        let connection = &mut self.connections[at];
        let outcome = if connection.is_connected {
            connection.read(&mut self.buffer)
        } else {
            connection.finish_connecting()
        };
        match outcome {
            Outcome::Waits => {}
            Outcome::Connected => match self.pace {
                Pace::Rate(_) => self.idle.push(at),
                Pace::Kept | Pace::Close => {
                    let since = connection.since.unwrap_or_else(Instant::now);
                    connection.send(&self.request, since);
                }
            },
            Outcome::Answered => {
                let micros = connection.since.take().map_or(0, |since| since.elapsed().as_micros());
                self.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
                match self.pace {
                    Pace::Kept => connection.send(&self.request, Instant::now()),
                    Pace::Rate(_) => self.idle.push(at),
                    Pace::Close => self.connections[at] = self.connect(at)?,
                }
            }
            Outcome::Failed => {
                self.failures += 1;
                self.idle.retain(|idle| *idle != at);
                self.connections[at] = self.connect(at)?;
            }
        }
        Ok(())
    }
}

impl Connection {
    fn finish_connecting(&mut self) -> Outcome {
        if !matches!(self.socket.take_error(), Ok(None)) {
            return Outcome::Failed;
        }
        self.is_connected = self.socket.peer_addr().is_ok() && self.socket.set_nodelay(true).is_ok();
        if self.is_connected { Outcome::Connected } else { Outcome::Waits }
    }

    /// A request fits into an empty socket buffer; if it does not leave, the next read says why.
    fn send(&mut self, request: &[u8], since: Instant) {
        self.since = Some(since);
        drop(self.socket.write(request));
    }

    fn read(&mut self, buffer: &mut [u8]) -> Outcome {
        loop {
            let count = match self.socket.read(buffer) {
                Ok(0) => return Outcome::Failed,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Outcome::Failed,
            };
            let bytes = &buffer[..count];
            let got = match self.left {
                Some(left) => left.checked_sub(count as u64),
                None => self.take_head(bytes),
            };
            let Some(left) = got else { return Outcome::Failed };
            if self.left.is_some() || self.head.is_empty() {
                self.left = Some(left);
                if left == 0 {
                    self.left = None;
                    return Outcome::Answered;
                }
            }
            if count < buffer.len() {
                return Outcome::Waits;
            }
        }
    }

    /// What is left of the body; none when it is no good answer. `head` stays filled while it is not whole.
    fn take_head(&mut self, bytes: &[u8]) -> Option<u64> {
        self.head.extend_from_slice(bytes);
        let Some(head) = Head::parse(&self.head) else { return Some(0) };
        let is_good = self.head.starts_with(b"HTTP/1.1 200");
        let left = head.body.checked_sub((self.head.len() - head.len) as u64);
        self.head.clear();
        left.filter(|_| is_good)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers each request of each connection, after this pause.
    fn server(answer: &'static str, pause: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count) = socket.read(&mut buffer) {
                        if count == 0 {
                            return;
                        }
                        std::thread::park_timeout(pause);
                        if socket.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                        if buffer[..count].windows(5).any(|window| window == b"close") {
                            return;
                        }
                    }
                });
            }
        });
        addr
    }

    fn figure(figures: &Figures, wanted: &str) -> f64 {
        figures.iter().find(|(name, _)| name == wanted).unwrap().1
    }

    fn asked(answer: &'static str, pause: Duration, pace: Pace) -> Figures {
        let ask = Ask { addr: server(answer, pause), host: "h", path: "/", pace };
        run(&ask, 2, Duration::from_millis(400)).unwrap()
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    #[test]
    fn each_pace_gets_its_answers() {
        for pace in [Pace::Kept, Pace::Close, Pace::Rate(100.0)] {
            let figures = asked(OK, Duration::ZERO, pace);
            assert!(figure(&figures, "requests") > 5.0, "{pace:?}: {figures:?}");
            assert!(figure(&figures, "errors") < 1.0, "{pace:?}: {figures:?}");
        }
    }

    #[test]
    fn at_a_fixed_rate_waiting_for_the_turn_counts() {
        // Two connections at 20 ms an answer give 100 in a second; 1000 are due.
        let figures = asked(OK, Duration::from_millis(20), Pace::Rate(1000.0));
        assert!(figure(&figures, "p99_ms") > 100.0, "{figures:?}");
        assert!(figure(&figures, "backlog") > 100.0, "{figures:?}");
    }

    #[test]
    fn an_answer_that_is_not_200_is_a_failure() {
        let figures = asked("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", Duration::ZERO, Pace::Kept);
        assert!(figure(&figures, "requests") < 1.0 && figure(&figures, "errors") > 0.0, "{figures:?}");
    }

    #[test]
    fn a_stall_is_seen_with_its_size() {
        let addr = server(OK, Duration::from_millis(40));
        let figures = sweep(addr, "h", Duration::from_millis(200), &[1, 2]).unwrap();
        assert!(figure(&figures, "worst_ms") >= 40.0, "{figures:?}");
        assert!(figure(&figures, "p25_ms_1") >= 40.0, "{figures:?}");
    }

    #[test]
    fn paces_are_told_apart() {
        assert_eq!("kept".parse::<Pace>().unwrap(), Pace::Kept);
        assert_eq!("667".parse::<Pace>().unwrap(), Pace::Rate(667.0));
        assert!("0".parse::<Pace>().is_err() && "fast".parse::<Pace>().is_err());
    }
}
