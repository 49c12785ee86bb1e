//! Processes that belong to a run: started with their output in a file, ended with all their children when
//! dropped, however the run ends.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::usage;
use crate::process::{line, program};

const POLL: Duration = Duration::from_millis(2);
/// How long a start may take before it is taken to hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How a process is started; it can be started more than once.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Launch {
    pub(super) fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub(super) fn with<A: ToString>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.to_string()));
        self
    }

    /// Adds a variable of its environment.
    #[must_use]
    pub(super) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    fn command(&self) -> Command {
        let mut command = program(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// As typed.
    pub(super) fn line(&self) -> String {
        line(&self.command())
    }

    /// Starts it; its output is added to `log`.
    pub(super) fn start(&self, log: &Path) -> Result<Owned> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let child = self
            .command()
            .stdin(Stdio::null())
            .stderr(file.try_clone().context("cannot share the log")?)
            .stdout(file)
            .spawn()
            .with_context(|| format!("`{}` did not start", self.line()))?;
        Ok(Owned { child, log: log.to_owned(), line: self.line() })
    }
}

/// A process and its log; dropping it ends the process and what it has started.
#[derive(Debug)]
pub(super) struct Owned {
    child: Child,
    log: PathBuf,
    line: String,
}

impl Owned {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("`{}` says:\n{}", self.line, lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}

impl Drop for Owned {
    /// The first process before its children: it might start new ones. No process is asked first, a crash is
    /// what the recovery scenarios want to see.
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let below = usage::tree(&[self.pid()]).unwrap_or_default();
        drop(self.child.kill());
        for pid in below.into_iter().filter(|pid| *pid != self.pid()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It fails only for a process that is gone.
                kill_process(pid, Signal::KILL).unwrap_or_default();
            }
        }
        drop(self.child.wait());
    }
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) port: u16,
    pub(super) host: String,
}

impl Target {
    pub(super) fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Whether a small request is answered with 200.
    pub(super) fn answers(&self) -> bool {
        self.ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200") && answer.ends_with("xx"))
    }

    fn ask(&self) -> Result<String> {
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&self.addr(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET /bytes/2 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Waits until it answers and returns how long that took since `start`.
    ///
    /// # Errors
    /// When the time is up, or one of the processes ends; the error has the last lines of each log.
    pub(super) fn wait(
        &self,
        start: Instant,
        patience: Duration,
        processes: &mut [&mut Owned],
    ) -> Result<Duration> {
        loop {
            if self.answers() {
                return Ok(start.elapsed());
            }
            let has_ended = processes.iter_mut().any(|process| process.has_ended());
            if has_ended || start.elapsed() > patience {
                let words: Vec<String> = processes.iter().map(|process| process.last_words()).collect();
                let problem = if has_ended {
                    "a process ended".into()
                } else {
                    format!("not ready within {patience:?}")
                };
                bail!("{problem}\n{}", words.join("\n"));
            }
            pause(POLL);
        }
    }
}

/// Waits until somebody listens on the port.
///
/// # Errors
/// When nobody does for a minute.
pub(super) fn wait_for_listener(port: u16) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if start.elapsed() > PATIENCE {
            bail!("nobody listens on port {port}");
        }
        pause(POLL);
    }
    Ok(())
}

/// Ports nobody listens on, each given once. They lie below those that the system gives to the thousands of connections
/// of a benchmark. Somebody else may still take one before its user does; then the start fails and says so.
///
/// # Errors
/// When no port can be bound.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 10_000;
    let start = u16::try_from(std::process::id() % 97)? * 100;
    let mut ports = [0; N];
    for port in &mut ports {
        let mut candidates =
            (0..COUNT).map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
        *port = candidates
            .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
            .context("cannot bind a port")?;
    }
    Ok(ports)
}

/// Lets time pass, where time is what is measured, or between two looks at a state.
#[expect(clippy::disallowed_methods, reason = "no runtime here; each caller looks at a state or measures")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_process_that_ends_early_is_an_error_with_its_last_words() {
        let log = log("early");
        let mut owned = Launch::new("sh").with(["-c", "echo out of luck; exit 1"]).start(&log).unwrap();
        let [port] = free_ports().unwrap();
        let target = Target { port, host: "h".into() };
        let error = target.wait(Instant::now(), PATIENCE, &mut [&mut owned]).unwrap_err();
        fs::remove_file(&log).unwrap();
        assert!(error.to_string().contains("a process ended"), "{error}");
        assert!(error.to_string().contains("out of luck"), "{error}");
    }

    #[test]
    fn dropping_ends_the_process_and_its_children() {
        let log = log("drop");
        let owned = Launch::new("sh").with(["-c", "tail -f /dev/null & wait"]).start(&log).unwrap();
        let start = Instant::now();
        let tree = loop {
            let tree = usage::tree(&[owned.pid()]).unwrap();
            if tree.len() > 1 {
                break tree;
            }
            assert!(start.elapsed() < PATIENCE, "no child");
        };
        drop(owned);
        fs::remove_file(&log).unwrap();
        for pid in tree {
            loop {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                // Whoever adopted the child may not have waited for it yet.
                if stat.is_empty() || stat.contains(") Z ") {
                    break;
                }
                assert!(start.elapsed() < 2 * PATIENCE, "{stat}");
                pause(POLL);
            }
        }
    }

    #[test]
    fn ports_differ() {
        let [one, other] = free_ports().unwrap();
        assert_ne!(one, other);
    }
}
