//! Connections that have asked once and are then held open, until standard input ends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::http::get;
use super::print;

/// How many connect and ask at the same time.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens the connections, says how many stand, and holds them.
///
/// # Errors
/// When standard input cannot be read.
pub(super) fn run(addr: SocketAddr, host: &str, count: usize) -> Result<()> {
    let start = Instant::now();
    let request = get(host, "/bytes/2", false);
    let mut open = Vec::with_capacity(count);
    let mut failed = 0;
    // A peer that lets so many fail will not get better.
    while open.len() + failed < count && failed < 64 {
        let asked: Vec<Option<TcpStream>> =
            (0..AT_ONCE.min(count - open.len() - failed)).map(|_| ask(addr, &request)).collect();
        for socket in asked {
            match socket.and_then(answered) {
                Some(socket) => open.push(socket),
                None => failed += 1,
            }
        }
    }
    print(&vec![
        ("open".to_owned(), open.len() as f64),
        ("failed".to_owned(), failed as f64),
        ("seconds".to_owned(), start.elapsed().as_secs_f64()),
    ])?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("cannot wait for the end of standard input")?;
    drop(open);
    Ok(())
}

fn ask(addr: SocketAddr, request: &[u8]) -> Option<TcpStream> {
    let mut socket = TcpStream::connect_timeout(&addr, PATIENCE).ok()?;
    socket.set_nodelay(true).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.write_all(request).ok()?;
    Some(socket)
}

fn answered(mut socket: TcpStream) -> Option<TcpStream> {
    let mut answer = [0; 1024];
    let count = socket.read(&mut answer).ok()?;
    answer[..count].starts_with(b"HTTP/1.1 200").then_some(socket)
}
