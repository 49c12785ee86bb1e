//! Tests of the line writer with sinks that remember, fail and hang.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::strict;

/// A sink that keeps what was written, and fails while told to.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    writes: Arc<AtomicU64>,
    /// How many more bytes fit; `None` is without end.
    room: Arc<Mutex<Option<usize>>>,
}

impl Memory {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().clone()).unwrap()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mut room = self.room.lock();
        let taken = room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if taken == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        *room = room.map(|room| room - taken);
        self.bytes.lock().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink whose first write waits for a sender to go away.
struct Gate {
    entered: Arc<AtomicBool>,
    opened: Receiver<Infallible>,
    memory: Memory,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.store(true, Ordering::Release);
        assert_eq!(self.opened.recv(), Err(mpsc::RecvError));
        self.memory.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gate() -> (Gate, mpsc::Sender<Infallible>, Arc<AtomicBool>, Memory) {
    let (key, opened) = mpsc::channel();
    let (entered, memory) = (Arc::new(AtomicBool::new(false)), Memory::default());
    (Gate { entered: Arc::clone(&entered), opened, memory: memory.clone() }, key, entered, memory)
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        thread::yield_now();
    }
}

#[test]
fn lines_of_many_threads_arrive_whole_and_the_guard_waits_for_them() {
    let memory = Memory::default();
    let (writer, guard) = LineWriter::new(Box::new(memory.clone()), 1 << 20).unwrap();
    thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let writer = writer.clone();
            scope.spawn(move || (0..1000).for_each(|n| writer.write_line(format!("{name} {n}"))));
        }
    });
    drop(guard);
    let text = memory.text();
    for name in ["a", "b", "c"] {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect();
        assert_eq!(lines, (0..1000).map(|n| format!("{name} {n}")).collect::<Vec<_>>());
    }
    assert_eq!(writer.dropped(), 0);
}

#[test]
fn a_newline_is_added_only_where_none_is() {
    let memory = Memory::default();
    let (writer, guard) = LineWriter::new(Box::new(memory.clone()), 1 << 20).unwrap();
    writer.write_line("one");
    writer.write_line(b"two\n");
    writer.write_line("");
    drop(guard);
    assert_eq!(memory.text(), "one\ntwo\n\n");
}

#[test]
fn lines_that_wait_for_a_slow_sink_go_out_in_one_write() {
    let (sink, key, entered, memory) = gate();
    let (writer, guard) = LineWriter::new(Box::new(sink), 1 << 20).unwrap();
    writer.write_line("first");
    wait_for(&entered);
    (0..500).for_each(|n| writer.write_line(n.to_string()));
    drop(key);
    drop(guard);
    assert_eq!(memory.text().lines().count(), 501);
    assert_eq!(memory.writes.load(Ordering::Relaxed), 2);
}

#[test]
fn lines_beyond_the_capacity_are_dropped_and_counted() {
    let (sink, key, entered, memory) = gate();
    let (writer, guard) = LineWriter::new(Box::new(sink), 10).unwrap();
    writer.write_line("first");
    wait_for(&entered);
    writer.write_line("1234");
    writer.write_line("12345");
    writer.write_line("5678");
    writer.write_line("");
    assert_eq!(writer.dropped(), 2);
    drop(key);
    drop(guard);
    assert_eq!(memory.text(), "first\n1234\n5678\n");
}

#[test]
fn a_sink_that_fails_loses_lines_but_not_the_log() {
    let memory = Memory::default();
    let (mut sink, mut is_torn) = (memory.clone(), false);
    *memory.room.lock() = Some(9);
    assert_eq!(write_batch(&mut sink, b"one\ntwo\nthree\nfour\n", &mut is_torn), 2);
    assert_eq!(write_batch(&mut sink, b"five\nsix\n", &mut is_torn), 2);
    *memory.room.lock() = None;
    assert_eq!(write_batch(&mut sink, b"seven\n", &mut is_torn), 0);
    assert_eq!(memory.text(), "one\ntwo\nt\nseven\n");
}

#[test]
fn losses_of_the_sink_are_counted_by_the_writer() {
    let memory = Memory::default();
    *memory.room.lock() = Some(0);
    let (writer, guard) = LineWriter::new(Box::new(memory), 1 << 20).unwrap();
    (0..3).for_each(|_| writer.write_line("lost"));
    drop(guard);
    assert_eq!(writer.dropped(), 3);
}

#[test]
fn a_line_after_the_guard_is_gone_is_dropped_and_counted() {
    let memory = Memory::default();
    let (writer, guard) = LineWriter::new(Box::new(memory.clone()), 1 << 20).unwrap();
    drop(guard);
    writer.write_line("late");
    assert_eq!((writer.dropped(), memory.text().as_str()), (1, ""));
}

#[test]
fn the_guard_does_not_wait_for_ever_for_a_sink_that_hangs() {
    let (sink, key, entered, _memory) = gate();
    let (writer, guard) = LineWriter::new(Box::new(sink), 1 << 20).unwrap();
    writer.write_line("stuck");
    wait_for(&entered);
    assert!(!guard.close(Duration::from_millis(1)));
    drop(key);
    assert!(guard.close(Duration::MAX));
}

#[test]
fn a_file_gets_the_lines_after_what_it_held() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    std::fs::write(&path, "old\n").unwrap();
    let (writer, guard) = LineWriter::file(&path).unwrap();
    writer.write_line("new");
    drop(guard);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\nnew\n");
    assert!(LineWriter::file(root.path()).is_err());
}

#[test]
fn dropped_lines_are_a_metric_of_each_log() {
    let metrics = Metrics::new();
    let (one, _guard) = LineWriter::new(Box::new(io::sink()), 0).unwrap();
    let (two, _guard) = LineWriter::new(Box::new(io::sink()), 1 << 20).unwrap();
    one.write_line("no room");
    register_log_metrics(&metrics, &[("process", one.into()), ("requests", two.into())]);
    let body = metrics.render(None).body;
    strict::parse(&body).unwrap();
    assert!(body.contains("adit_log_lines_dropped_total{log=\"process\"} 1\n"), "{body}");
    assert!(body.contains("adit_log_lines_dropped_total{log=\"requests\"} 0\n"), "{body}");
}
