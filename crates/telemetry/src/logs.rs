//! Log lines that never block whoever writes them.

mod events;
mod rotated;

use std::convert::Infallible;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::{Condvar, Mutex};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

pub use self::events::{FilterHandle, InitError, LogFormat, init};
use self::rotated::RotatedFile;
use crate::metrics::Metrics;

/// Bytes of lines that may wait for [`LineWriter::stdout`], [`LineWriter::stderr`] and [`LineWriter::file`]: some
/// ten thousand lines, enough for a second of a busy gateway with a disk that pauses.
pub const DEFAULT_CAPACITY: usize = 4 << 20;

/// Writes lines from many tasks to one sink without blocking any of them. Clones are handles to the same sink.
///
/// One thread owns the sink. When the sink is slower than the lines come, lines are dropped and counted: a disk
/// that hangs must not stop the traffic that is logged.
#[derive(Clone)]
pub struct LineWriter {
    shared: Arc<Shared>,
}

impl LineWriter {
    /// Starts the thread that writes to `sink`. At most `capacity` bytes of lines wait, and as many again may be
    /// in the hands of the sink.
    ///
    /// The log ends when the guard is dropped: later lines count as dropped.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn new(sink: Box<dyn Write + Send>, capacity: usize) -> io::Result<(Self, FlushGuard)> {
        let queue = Queue { pending: Vec::new(), state: State::Busy };
        let (queue, ready) = (Mutex::new(queue), Condvar::new());
        let shared = Arc::new(Shared { queue, ready, capacity, dropped: AtomicU64::new(0) });
        let (alive, ended) = mpsc::channel();
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("adit-log".to_owned()).spawn(move || {
            // Dropped when the thread ends, also by a panic of the sink: this is what the guard waits for.
            let _alive: mpsc::Sender<Infallible> = alive;
            writer.run(sink);
        })?;
        Ok((Self { shared: Arc::clone(&shared) }, FlushGuard { shared, ended }))
    }

    /// Writes to standard output.
    ///
    /// # Errors
    ///
    /// As [`LineWriter::new`].
    pub fn stdout() -> io::Result<(Self, FlushGuard)> {
        Self::new(Box::new(io::stdout()), DEFAULT_CAPACITY)
    }

    /// Writes to standard error.
    ///
    /// # Errors
    ///
    /// As [`LineWriter::new`].
    pub fn stderr() -> io::Result<(Self, FlushGuard)> {
        Self::new(Box::new(io::stderr()), DEFAULT_CAPACITY)
    }

    /// Appends to the file at `path`, creating it for its owner and group only (0640).
    ///
    /// When the file was moved away, as log rotation does, a new one is opened at `path` within about a second of
    /// the next line; no signal is needed. While that fails, lines keep going to the old file.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or as [`LineWriter::new`].
    pub fn file(path: &Path) -> io::Result<(Self, FlushGuard)> {
        Self::new(Box::new(RotatedFile::open(path)?), DEFAULT_CAPACITY)
    }

    /// Queues one line; a newline at its end is added unless it is there. Never blocks, never fails: a line for
    /// which there is no room is dropped and counted.
    ///
    /// The caller has to see to it that there is no newline inside.
    pub fn write_line(&self, line: impl AsRef<[u8]>) {
        if !self.shared.push(line.as_ref()) {
            self.count_dropped(1);
        }
    }

    /// How many lines did not reach the sink: no room, or the sink failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn count_dropped(&self, lines: u64) {
        self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

impl fmt::Debug for LineWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWriter").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

/// Ends a log: on drop, what is queued is written, and this waits for that up to a second.
///
/// A sink that hangs for longer keeps its thread; the process can end regardless.
#[must_use = "the log ends when this is dropped"]
pub struct FlushGuard {
    shared: Arc<Shared>,
    ended: Receiver<Infallible>,
}

impl FlushGuard {
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Whether the thread ended in time.
    fn close(&self, patience: Duration) -> bool {
        self.shared.queue.lock().state = State::Closed;
        self.shared.ready.notify_one();
        self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        self.close(Self::PATIENCE);
    }
}

impl fmt::Debug for FlushGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushGuard").finish_non_exhaustive()
    }
}

/// A log that can become another one, or none, while it is written to. Clones are the same log.
#[derive(Debug, Clone, Default)]
pub struct Switch {
    inner: Arc<Switched>,
}

#[derive(Debug, Default)]
struct Switched {
    now: ArcSwapOption<LineWriter>,
    /// Lines that those before it have dropped.
    before: AtomicU64,
    /// There was a log once.
    was_on: AtomicBool,
}

impl Switch {
    /// One that begins with this log.
    #[must_use]
    pub fn new(log: Option<LineWriter>) -> Self {
        let switch = Self::default();
        switch.replace(log);
        switch
    }

    /// Writes there from now on, or nowhere. A line that is on its way may still reach the log before it.
    pub fn replace(&self, log: Option<LineWriter>) {
        self.inner.was_on.fetch_or(log.is_some(), Ordering::Relaxed);
        if let Some(old) = self.inner.now.swap(log.map(Arc::new)) {
            self.inner.before.fetch_add(old.dropped(), Ordering::Relaxed);
        }
    }

    /// Whether anything is written.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.inner.now.load().is_some()
    }

    /// The log now. Not meant to be kept.
    #[must_use]
    pub fn now(&self) -> Option<Arc<LineWriter>> {
        self.inner.now.load_full()
    }

    /// How many lines did not reach their log; `None` where there never was one.
    fn dropped(&self) -> Option<u64> {
        let before = self.inner.before.load(Ordering::Relaxed);
        let now = self.inner.now.load().as_ref().map_or(0, |log| log.dropped());
        self.inner.was_on.load(Ordering::Relaxed).then_some(before + now)
    }
}

impl From<LineWriter> for Switch {
    fn from(log: LineWriter) -> Self {
        Self::new(Some(log))
    }
}

/// Adds `adit_log_lines_dropped_total{log}` for each of `logs`, given as label value and log.
///
/// One call names all logs of a registry: they are one family.
pub fn register_log_metrics(metrics: &Metrics, logs: &[(&'static str, Switch)]) {
    let help = "Log lines that were not written, because the sink was slow or failed";
    metrics.register("adit_log_lines_dropped", help, DroppedLines(logs.to_vec()));
}

#[derive(Debug)]
struct DroppedLines(Vec<(&'static str, Switch)>);

impl EncodeMetric for DroppedLines {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (name, dropped) in self.0.iter().filter_map(|(name, log)| Some((name, log.dropped()?))) {
            ConstCounter::new(dropped).encode(encoder.encode_family(&[("log", *name)])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, log)| log.dropped().is_none())
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the writer thread, its only waiter.
    ready: Condvar,
    capacity: usize,
    dropped: AtomicU64,
}

struct Queue {
    /// Whole lines, one after the other: one buffer to swap and one write, however many they are.
    pending: Vec<u8>,
    state: State,
}

#[derive(PartialEq)]
enum State {
    /// The thread writes, or will look at the queue again soon without being woken.
    Busy,
    /// The thread sleeps until it is woken.
    Idle,
    /// The guard is gone: no more lines, the thread writes what there is and ends.
    Closed,
}

/// How long the thread lets lines gather after a write. Under load this makes few large writes out of many small
/// ones, and spares those who log the cost of waking a thread per line.
const GATHER: Duration = Duration::from_millis(5);

impl Shared {
    /// Whether there was room.
    fn push(&self, line: &[u8]) -> bool {
        let mut queue = self.queue.lock();
        let newline: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
        let needed = queue.pending.len() + line.len() + newline.len();
        if queue.state == State::Closed || needed > self.capacity {
            return false;
        }
        queue.pending.extend_from_slice(line);
        queue.pending.extend_from_slice(newline);
        let must_wake = queue.state == State::Idle || needed >= self.capacity / 2;
        queue.state = State::Busy;
        drop(queue);
        if must_wake {
            self.ready.notify_one();
        }
        true
    }

    /// The writer thread.
    fn run(&self, mut sink: Box<dyn Write + Send>) {
        let (mut batch, mut is_torn) = (Vec::new(), false);
        while self.take(&mut batch) {
            let lost = write_batch(&mut *sink, &batch, &mut is_torn);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            batch.clear();
        }
    }

    /// Waits for lines and moves them into the empty `batch`; false when closed and nothing is left.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut queue = self.queue.lock();
        if queue.state == State::Busy && queue.pending.len() < self.capacity / 2 {
            self.ready.wait_for(&mut queue, GATHER);
        }
        while queue.pending.is_empty() && queue.state != State::Closed {
            queue.state = State::Idle;
            self.ready.wait(&mut queue);
        }
        mem::swap(&mut queue.pending, batch);
        !batch.is_empty()
    }
}

/// Writes `batch` and returns how many of its lines are not known to have reached the sink.
///
/// `is_torn` says, from one batch to the next, that the sink's last line was cut off by an error.
fn write_batch(sink: &mut dyn Write, batch: &[u8], is_torn: &mut bool) -> u64 {
    // Ends the torn line first, so that it does not swallow the next one.
    let repair: &[u8] = if *is_torn { b"\n" } else { b"" };
    if write_most(sink, repair) < repair.len() {
        return count_lines(batch);
    }
    *is_torn = false;
    let written = write_most(sink, batch);
    let (done, lost) = batch.split_at(written);
    *is_torn = done.last().is_some_and(|byte| *byte != b'\n');
    match sink.flush() {
        Ok(()) => count_lines(lost),
        Err(_) => count_lines(batch),
    }
}

/// Writes until an error, and returns how many bytes were written.
fn write_most(sink: &mut dyn Write, bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(0) => break,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    bytes.len() - rest.len()
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

#[cfg(test)]
mod tests;
