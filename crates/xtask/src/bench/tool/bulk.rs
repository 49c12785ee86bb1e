//! A lot of bytes at once: one large GET or POST for each stream.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::http::{Head, get};
use super::{CHUNK, Figures};

/// Moves this many bytes, spread over the streams.
///
/// # Errors
/// When a stream does not get or leave all of its bytes.
pub(super) fn run(addr: SocketAddr, host: &str, is_up: bool, bytes: u64, streams: u64) -> Result<Figures> {
    ensure!(streams > 0, "no stream, no bytes");
    let each = bytes / streams;
    let start = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = (0..streams)
            .map(|_| scope.spawn(move || if is_up { up(addr, host, each) } else { down(addr, host, each) }))
            .collect();
        running.into_iter().try_for_each(|stream| stream.join().ok().context("a stream's thread ended")?)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let moved = (each * streams) as f64;
    Ok(vec![
        ("bytes".to_owned(), moved),
        ("seconds".to_owned(), seconds),
        ("mib_per_second".to_owned(), moved / seconds / f64::from(1 << 20)),
    ])
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
    socket.set_nodelay(true).context("cannot turn Nagle's algorithm off")?;
    Ok(socket)
}

fn down(addr: SocketAddr, host: &str, bytes: u64) -> Result<()> {
    let mut socket = connect(addr)?;
    socket.write_all(&get(host, &format!("/bytes/{bytes}"), true)).context("cannot ask")?;
    let mut buffer = vec![0; CHUNK];
    let mut got = answer(&mut socket, &mut buffer)?;
    while got < bytes {
        let count = socket.read(&mut buffer).context("cannot read")?;
        ensure!(count > 0, "the answer ended after {got} of {bytes} bytes");
        got += count as u64;
    }
    Ok(())
}

fn up(addr: SocketAddr, host: &str, bytes: u64) -> Result<()> {
    let mut socket = connect(addr)?;
    let head = format!("POST /up HTTP/1.1\r\nHost: {host}\r\nContent-Length: {bytes}\r\n\r\n");
    socket.write_all(head.as_bytes()).context("cannot ask")?;
    let mut buffer = vec![b'y'; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        socket.write_all(&buffer[..part]).context("cannot write")?;
        left -= part as u64;
    }
    answer(&mut socket, &mut buffer).map(drop)
}

/// Reads a head that says 200, and returns how much of the body came with it.
fn answer(socket: &mut TcpStream, buffer: &mut [u8]) -> Result<u64> {
    let mut read = Vec::new();
    loop {
        let count = socket.read(buffer).context("cannot read the answer")?;
        ensure!(count > 0, "the connection ended without an answer");
        read.extend_from_slice(&buffer[..count]);
        if let Some(head) = Head::parse(&read) {
            ensure!(read.starts_with(b"HTTP/1.1 200"), "the answer is not 200");
            return Ok((read.len() - head.len) as u64);
        }
    }
}
