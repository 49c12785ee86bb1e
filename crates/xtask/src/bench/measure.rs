//! One measurement: what a command saw, what the peer's processes used meanwhile, and what everybody else did.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::owned::{Launch, Owned, pause};
use super::usage::{self, Meter};
use crate::process::{line, program};

/// Figures by name; the unit is in the name.
pub(super) type Figures = BTreeMap<String, f64>;

/// One step put to one peer once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) round: u32,
    pub(super) step: String,
    pub(super) peer: String,
    pub(super) figures: Figures,
    /// What share of the machine's processors went to programs that are not part of the comparison.
    pub(super) foreign: Option<f64>,
    /// Why there are no figures.
    pub(super) error: Option<String>,
}

/// Runs commands and reads clocks.
#[derive(Debug)]
pub(super) struct Bracket {
    meter: Meter,
    cores: usize,
    /// The upstream's process.
    upstream: u32,
    /// This program in its release build, for its tools.
    tool: PathBuf,
}

/// Processor seconds used so far.
struct Clock {
    peer: f64,
    /// The upstream, the load, and whatever runs beside.
    frame: f64,
    machine: f64,
}

impl Bracket {
    pub(super) fn new(upstream: u32, tool: PathBuf) -> Result<Self> {
        Ok(Self { meter: Meter::new()?, cores: usage::cores()?, upstream, tool })
    }

    /// One of our own tools.
    pub(super) fn tool<A: ToString>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = program(&self.tool);
        command.args(["bench", "tool"]).args(args.into_iter().map(|arg| arg.to_string()));
        command
    }

    /// The same, to be started and ended.
    pub(super) fn launch<A: ToString>(&self, args: impl IntoIterator<Item = A>) -> Launch {
        Launch::new(&self.tool).with(["bench", "tool"]).with(args)
    }

    /// Runs a command to its end, and returns its output and what `pids` used meanwhile.
    ///
    /// # Errors
    /// When it fails or takes longer than `patience`.
    pub(super) fn run(
        &self,
        pids: &[u32],
        beside: Option<&Owned>,
        command: &mut Command,
        patience: Duration,
    ) -> Result<Used> {
        let line = line(command);
        let (before, start) = (self.clock(pids, beside)?, Instant::now());
        let output = run_for(command, patience).with_context(|| format!("`{line}`"))?;
        let (after, elapsed) = (self.clock(pids, beside)?, start.elapsed().as_secs_f64());
        let cpu = after.peer - before.peer;
        let others = (after.machine - before.machine) - cpu - (after.frame - before.frame);
        let foreign = (others / (elapsed * self.cores as f64)).max(0.0);
        Ok(Used { output, cpu_seconds: cpu, foreign })
    }

    /// What these processes have used so far, in seconds.
    pub(super) fn cpu(&self, pids: &[u32]) -> Result<f64> {
        self.meter.cpu(pids)
    }

    fn clock(&self, pids: &[u32], beside: Option<&Owned>) -> Result<Clock> {
        let mut frame = vec![self.upstream];
        frame.extend(beside.map(Owned::pid));
        Ok(Clock {
            peer: self.meter.cpu(pids)?,
            frame: self.meter.cpu(&frame)? + self.meter.waited_for()?,
            machine: self.meter.machine()?,
        })
    }
}

/// What came out of a command, and what the peer used while it ran.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) output: String,
    pub(super) cpu_seconds: f64,
    pub(super) foreign: f64,
}

impl Used {
    /// The figures one of our tools prints.
    pub(super) fn figures(&self) -> Result<Figures> {
        serde_json::from_str(self.output.trim()).with_context(|| format!("no figures: {}", self.output))
    }
}

fn run_for(command: &mut Command, patience: Duration) -> Result<String> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("did not start")?;
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for it")? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().context("cannot end it")?;
            child.wait().context("cannot wait for it")?;
            bail!("takes longer than {patience:?}");
        }
        pause(Duration::from_millis(5));
    };
    // Both are short and have stayed in their pipes.
    let (mut output, mut problem) = (String::new(), String::new());
    child.stdout.take().context("no output")?.read_to_string(&mut output)?;
    child.stderr.take().context("no output")?.read_to_string(&mut problem)?;
    ensure!(status.success(), "{status}: {}", problem.trim());
    Ok(output)
}

/// A command that says one line and then goes on until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    child: Child,
    pub(super) figures: Figures,
}

impl Held {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("did not start")?;
        let mut text = String::new();
        let output = child.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut text).context("cannot read its output")?;
        let figures = serde_json::from_str(&text).with_context(|| format!("no figures: {text}"))?;
        Ok(Self { child, figures })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bracket() -> Bracket {
        Bracket::new(std::process::id(), "true".into()).unwrap()
    }

    #[test]
    fn what_the_command_does_is_not_taken_for_the_peers_work() {
        let mut work = program("sh");
        work.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo '{\"a\": 2.5}'"]);
        let idle =
            Launch::new("tail").with(["-f", "/dev/null"]).start(&std::env::temp_dir().join("xtask-idle"));
        let idle = idle.unwrap();
        let used = bracket().run(&[idle.pid()], None, &mut work, Duration::from_secs(60)).unwrap();
        // A tick or two may be what it took to start it; the command takes a tenth of a second and more.
        assert!(used.cpu_seconds < 0.05, "{used:?}");
        assert_eq!(used.figures().unwrap(), Figures::from([("a".to_owned(), 2.5)]));
    }

    #[test]
    fn a_command_that_fails_or_hangs_is_an_error() {
        let run = |script: &str, patience: Duration| {
            bracket().run(&[], None, program("sh").args(["-c", script]), patience).unwrap_err()
        };
        let fails = run("echo oh no >&2; exit 3", Duration::from_secs(60));
        assert!(format!("{fails:#}").contains("oh no"), "{fails:#}");
        let hangs = run("exec tail -f /dev/null", Duration::from_millis(300));
        assert!(format!("{hangs:#}").contains("longer than"), "{hangs:#}");
    }

    #[test]
    fn a_held_command_ends_with_its_input() {
        let held = Held::start(program("sh").args(["-c", "echo '{\"open\": 3}'; cat"])).unwrap();
        assert_eq!(held.figures, Figures::from([("open".to_owned(), 3.0)]));
        let proc = PathBuf::from(format!("/proc/{}", held.child.id()));
        assert!(proc.exists());
        drop(held);
        assert!(!proc.exists());
    }
}
