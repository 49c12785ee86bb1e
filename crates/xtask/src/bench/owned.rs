//! Processes that belong to a run: started with their output in a file, ended when dropped, however the run ends.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::{line, program};

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// A process and its log; dropping it ends the process.
#[derive(Debug)]
pub(super) struct Owned {
    child: Child,
    log: PathBuf,
    /// As typed.
    pub(super) line: String,
}

impl Owned {
    /// Starts a process whose output goes to `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let line = line(command);
        let child = command
            .stdin(Stdio::null())
            .stderr(file.try_clone().context("cannot share the log")?)
            .stdout(file)
            .spawn()
            .with_context(|| format!("`{line}` did not start"))?;
        Ok(Self { child, log: log.to_owned(), line })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("`{}` says:\n{}", self.line, lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}

impl Drop for Owned {
    /// Asks before it kills: a process that is killed cannot end its own children.
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let asked = program("kill").arg("-TERM").arg(self.pid().to_string()).status();
        let deadline = Instant::now() + STOP;
        while asked.is_ok() && !self.has_ended() && Instant::now() < deadline {
            pause();
        }
        // Both fail only for a process that is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port nobody listens on. Somebody else may take it before its user does; then the start fails and says so.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a port")?;
    Ok(listener.local_addr().context("a listener has no address")?.port())
}

/// Waits until the port answers with the whole file of 1 KiB.
///
/// # Errors
/// When a process ends or the time is up; the error has the last lines of each log.
pub(super) fn wait_until_ready(port: u16, processes: &mut [Owned]) -> Result<()> {
    let deadline = Instant::now() + START;
    loop {
        let answer = ask(port);
        if answer.as_ref().is_ok_and(|answer| is_whole(answer)) {
            return Ok(());
        }
        let has_ended = processes.iter_mut().any(Owned::has_ended);
        if has_ended || Instant::now() > deadline {
            let words: Vec<String> = processes.iter().map(Owned::last_words).collect();
            let problem =
                if has_ended { "a process ended".into() } else { format!("not ready within {START:?}") };
            let answer =
                answer.map_or_else(|error| error.to_string(), |answer| answer.lines().take(1).collect());
            bail!("{problem}; port {port} last said: {answer}\n{}", words.join("\n"));
        }
        pause();
    }
}

fn ask(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), POLL * 10)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /1k HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn is_whole(answer: &str) -> bool {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    answer.starts_with("HTTP/1.1 200") && body.contains(&"x".repeat(1024))
}

#[expect(clippy::disallowed_methods, reason = "no runtime here; each caller polls a state with a deadline")]
fn pause() {
    std::thread::sleep(POLL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_200_with_the_whole_file_is_ready() {
        let body = "x".repeat(1024);
        assert!(is_whole(&format!("HTTP/1.1 200 OK\r\na: b\r\n\r\n{body}")));
        assert!(!is_whole(&format!("HTTP/1.1 503 No\r\na: b\r\n\r\n{body}")));
        assert!(!is_whole("HTTP/1.1 200 OK\r\na: b\r\n\r\nxxx"));
    }

    #[test]
    fn a_process_that_ends_early_is_an_error_with_its_last_words() {
        let log = std::env::temp_dir().join(format!("xtask-owned-{}", std::process::id()));
        let owned = Owned::start(program("sh").args(["-c", "echo out of luck; exit 1"]), &log).unwrap();
        let error = wait_until_ready(free_port().unwrap(), &mut [owned]).unwrap_err().to_string();
        fs::remove_file(&log).unwrap();
        assert!(error.contains("a process ended") && error.contains("out of luck"), "{error}");
    }

    #[test]
    fn dropping_ends_the_process() {
        let log = std::env::temp_dir().join(format!("xtask-drop-{}", std::process::id()));
        let owned = Owned::start(program("tail").args(["-f", "/dev/null"]), &log).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", owned.pid()));
        assert!(proc.exists());
        drop(owned);
        fs::remove_file(&log).unwrap();
        assert!(!proc.exists());
    }
}
