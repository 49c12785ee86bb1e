//! An owned process: it ends with its owner, and tells what it said when a test fails.

use std::fmt;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

use super::{secrets, wait};

/// What a process has written so far.
#[derive(Default)]
struct Said {
    out: Vec<u8>,
    err: Vec<u8>,
    /// Pipes that are not at their end yet.
    open: usize,
}

#[derive(Default)]
struct Log {
    said: Mutex<Said>,
    changed: Condvar,
}

impl Log {
    fn read(self: &Arc<Self>, mut pipe: impl Read + Send + 'static, part: fn(&mut Said) -> &mut Vec<u8>) {
        self.said.lock().open += 1;
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = pipe.read(&mut buffer).unwrap_or(0);
                let mut said = log.said.lock();
                part(&mut said).extend_from_slice(&buffer[..read]);
                if read == 0 {
                    said.open -= 1;
                }
                log.changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
    }
}

/// A running process.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it; its output is read from now on.
    pub(crate) fn start(name: impl Into<String>, command: &mut Command) -> Self {
        let name = name.into();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} did not start: {error}"));
        let log = Arc::new(Log::default());
        log.read(child.stdout.take().unwrap(), |said| &mut said.out);
        log.read(child.stderr.take().unwrap(), |said| &mut said.err);
        Self { name, child, log, ended: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that has ended already gets none.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
        }
    }

    /// `kill -9`, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        self.ended = self.child.wait().ok();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Everything it wrote on standard output.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.log.said.lock().out).into_owned()
    }

    /// Everything it wrote on standard error.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.log.said.lock().err).into_owned()
    }

    /// Waits for a line with all these parts, on either stream, and returns it.
    #[track_caller]
    pub(crate) fn line(&mut self, parts: &[&str]) -> String {
        self.line_or(parts, &[]).unwrap()
    }

    /// Waits for a line with all these parts; `None` as soon as there is one with all the others.
    #[track_caller]
    pub(crate) fn line_or(&mut self, parts: &[&str], others: &[&str]) -> Option<String> {
        let end = Instant::now() + wait::SOON;
        loop {
            let is_over = self.ended().is_some();
            let mut said = self.log.said.lock();
            let find = |parts: &[&str]| {
                [&said.out, &said.err].into_iter().find_map(|text| {
                    let text = String::from_utf8_lossy(text);
                    // A line that is not ended yet may still grow.
                    let ended = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
                    ended.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
                })
            };
            if let Some(line) = find(parts) {
                return Some(line);
            }
            if !others.is_empty() && find(others).is_some() {
                return None;
            }
            let gone = is_over && said.open == 0;
            assert!(!gone, "{} ended without a line with {parts:?}", self.name);
            assert!(Instant::now() < end, "{} has not written a line with {parts:?}", self.name);
            self.log.changed.wait_for(&mut said, Duration::from_millis(50));
        }
    }

    /// Waits for its end, and for the end of what it wrote.
    #[track_caller]
    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let name = self.name.clone();
        let status = wait::until(&format!("{name} ends"), deadline, || {
            self.ended().ok_or_else(|| "it runs".to_owned())
        });
        wait::until(&format!("the output of {name} ends"), wait::SOON, || match self.log.said.lock().open {
            0 => Ok(()),
            open => Err(format!("{open} pipes are open")),
        });
        status
    }

    /// The exit code it ends with.
    #[track_caller]
    pub(crate) fn exit_code(&mut self, deadline: Duration) -> i32 {
        let status = self.wait(deadline);
        status.code().unwrap_or_else(|| panic!("{} was ended by a signal: {status}", self.name))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.ended.map_or_else(|| "running".to_owned(), |status| status.to_string());
        writeln!(f, "==== {} ({}, {state})", self.name, self.child.id())?;
        for (stream, text) in [("out", self.stdout()), ("err", self.stderr())] {
            let lines: Vec<&str> = text.lines().collect();
            let skipped = lines.len().saturating_sub(60);
            if skipped > 0 {
                writeln!(f, "{stream}| ({skipped} lines before)")?;
            }
            for line in &lines[skipped..] {
                let line: String = line.chars().take(400).collect();
                writeln!(f, "{stream}| {line}")?;
            }
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{self}");
            return;
        }
        let said = self.log.said.lock();
        for text in [&said.out, &said.err] {
            if let Some(line) = secrets::leak(text) {
                panic!("{} said a token: {line}", self.name);
            }
        }
    }
}

/// What a process that has ended said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Finished {
    /// Its standard output, if it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut process = Process::start(name, command);
    let code = process.exit_code(Duration::from_secs(90));
    Finished { code, out: process.stdout(), err: process.stderr() }
}

#[test]
fn a_process_that_says_a_token_fails_its_test() {
    let token = secrets::token();
    let mut command = super::tools::shell(&format!("echo the token is {token} >&2"));
    let said = std::thread::spawn(move || run(&mut command)).join().unwrap_err();
    let message = said.downcast_ref::<String>().unwrap();
    assert!(message.contains("said a token"), "{message}");
}
