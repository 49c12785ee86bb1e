//! A long path on the loopback: every byte arrives later, and no faster than the line carries.
//!
//! TCP ends on both sides of it, so its own windows see a short path; only what the peers do above TCP meets
//! the long one. Nothing is lost on it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

const CHUNK: usize = 64 << 10;
/// What may be under way in one direction of one connection.
const UNDER_WAY: usize = (64 << 20) / CHUNK;
/// How long what is sent may wait for the line to be free.
const QUEUE: Duration = Duration::from_millis(20);

/// What the path is like; the line is shared by all connections, each direction for itself.
#[derive(Debug, Clone)]
pub(super) struct Path {
    delay: Duration,
    /// None for a line without a limit.
    bytes_per_second: Option<u64>,
    there: Arc<Line>,
    back: Arc<Line>,
}

/// When one direction will have sent all that was given to it.
#[derive(Debug)]
struct Line {
    start: Instant,
    free_at_nanos: AtomicU64,
}

impl Line {
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), free_at_nanos: AtomicU64::new(0) })
    }

    /// Takes the line for this long, and returns when that will be over.
    fn take(&self, time: Duration) -> Instant {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(self.start.elapsed());
        let after = |free_at: u64| free_at.max(now).saturating_add(nanos(time));
        let taken =
            self.free_at_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(after(at)));
        self.start + Duration::from_nanos(after(taken.unwrap_or(now)))
    }
}

impl Path {
    /// `megabits` in a second; 0 for no limit.
    pub(super) fn new(delay: Duration, megabits: u64) -> Self {
        let bytes_per_second = (megabits > 0).then(|| megabits.saturating_mul(125_000));
        Self { delay, bytes_per_second, there: Line::new(), back: Line::new() }
    }

    fn time_on_line(&self, bytes: usize) -> Duration {
        self.bytes_per_second
            .map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate as f64))
    }
}

/// Relays every connection to `to`, until the process is ended.
///
/// # Errors
/// When the address cannot be listened on.
pub(super) fn run(addr: SocketAddr, to: SocketAddr, path: Path) -> Result<()> {
    let listener = TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))?;
    for near in listener.incoming() {
        // Whoever connects sees the end of the connection, as on any path.
        let (Ok(near), Ok(far)) = (near, TcpStream::connect(to)) else { continue };
        drop(join(near, far, &path));
    }
    Ok(())
}

fn join(near: TcpStream, far: TcpStream, path: &Path) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let there = (near.try_clone()?, far.try_clone()?, Arc::clone(&path.there));
    for (from, to, line) in [there, (far, near, Arc::clone(&path.back))] {
        let (sender, receiver) = sync_channel(UNDER_WAY);
        let path = path.clone();
        thread::spawn(move || send(from, &line, &sender, &path));
        thread::spawn(move || arrive(to, &receiver));
    }
    Ok(())
}

type UnderWay = (Instant, Vec<u8>);

fn send(mut from: TcpStream, line: &Line, under_way: &SyncSender<UnderWay>, path: &Path) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let free_at = line.take(path.time_on_line(count));
        if under_way.send((free_at + path.delay, buffer[..count].to_vec())).is_err() {
            return;
        }
        if let Some(early) = free_at.checked_duration_since(Instant::now() + QUEUE) {
            wait(early);
        }
    }
}

fn arrive(mut to: TcpStream, under_way: &Receiver<UnderWay>) {
    for (due, bytes) in under_way {
        wait(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            drop(to.shutdown(Shutdown::Both));
            return;
        }
    }
    drop(to.shutdown(Shutdown::Write));
}

#[expect(clippy::disallowed_methods, reason = "passing time is what a delay is; no runtime runs here")]
fn wait(time: Duration) {
    if !time.is_zero() {
        thread::sleep(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The near end of a path whose far end sends everything back.
    fn echoed(path: &Path) -> TcpStream {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let entry = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(entry.local_addr().unwrap()).unwrap();
        let far = TcpStream::connect(echo.local_addr().unwrap()).unwrap();
        join(entry.accept().unwrap().0, far, path).unwrap();
        let mut there = echo.accept().unwrap().0;
        thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).unwrap();
            there.write_all(&all).unwrap();
        });
        near
    }

    fn round_trip(path: &Path, bytes: usize) -> Duration {
        let mut near = echoed(path);
        let start = Instant::now();
        near.write_all(&vec![7; bytes]).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        near.read_to_end(&mut back).unwrap();
        assert_eq!(back.len(), bytes);
        start.elapsed()
    }

    #[test]
    fn every_byte_arrives_and_none_before_its_time() {
        assert!(round_trip(&Path::new(Duration::from_millis(30), 0), 300_000) >= Duration::from_millis(60));
    }

    #[test]
    fn a_line_carries_no_more_than_it_can() {
        // 1 MB at 80 Mbit/s is 100 ms, there and back.
        assert!(round_trip(&Path::new(Duration::ZERO, 80), 1_000_000) >= Duration::from_millis(190));
    }
}
