//! Figures about this process, under the names every Prometheus dashboard expects.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::info::Info;

use crate::metrics::{Metrics, encode_counter, encode_gauge};

/// Adds the `process_*` families, read from `/proc` at each scrape.
///
/// Once per registry. What the platform does not tell is left out: without `/proc` there are no such families, and
/// never an error.
pub fn register(metrics: &Metrics) {
    metrics.register_collector(Process::new(PathBuf::from("/proc")));
}

/// Adds `adit_build_info{version, revision} 1`.
pub fn register_build_info(metrics: &Metrics, version: &'static str, revision: &'static str) {
    let labels = vec![("version", version), ("revision", revision)];
    metrics.register("adit_build", "The running build", Info::new(labels));
}

/// Clock ticks per second in `/proc/*/stat`: part of Linux' interface to programs, not of its configuration.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
struct Process {
    proc: PathBuf,
    /// Seconds since 1970. Read once: the kernel derives the boot time from the wall clock, and a start time that
    /// moves whenever the clock is set would look like a restart.
    start_time: Option<f64>,
}

impl Process {
    fn new(proc: PathBuf) -> Self {
        let start_time = Stat::read(&proc).zip(boot_time(&proc)).map(|(stat, boot)| boot + stat.started);
        Self { proc, start_time }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let cpu = Stat::read(&self.proc).map(|stat| stat.cpu);
        let status = fs::read_to_string(self.proc.join("self/status")).unwrap_or_default();
        let (resident, virt) = (bytes(&status, "VmRSS:"), bytes(&status, "VmSize:"));
        encode_counter(
            encoder,
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds.",
            cpu,
        )?;
        encode_gauge(encoder, "process_open_fds", "Number of open file descriptors.", open_fds(&self.proc))?;
        encode_gauge(
            encoder,
            "process_max_fds",
            "Maximum number of open file descriptors.",
            max_fds(&self.proc),
        )?;
        encode_gauge(encoder, "process_resident_memory_bytes", "Resident memory size in bytes.", resident)?;
        encode_gauge(encoder, "process_virtual_memory_bytes", "Virtual memory size in bytes.", virt)?;
        let help = "Start time of the process since unix epoch in seconds.";
        encode_gauge(encoder, "process_start_time_seconds", help, self.start_time)?;
        encode_gauge(
            encoder,
            "process_threads",
            "Number of operating system threads.",
            word(&status, "Threads:"),
        )
    }
}

/// What is used of `/proc/self/stat`, in seconds.
struct Stat {
    cpu: f64,
    /// Since boot.
    started: f64,
}

impl Stat {
    fn read(proc: &Path) -> Option<Self> {
        let text = fs::read_to_string(proc.join("self/stat")).ok()?;
        // The second field is the program's name in parentheses, and the name may hold spaces and parentheses.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // `fields[0]` is field 3 of proc(5), so utime (14), stime (15) and starttime (22) are 11, 12 and 19.
        let seconds = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self { cpu: seconds(11)? + seconds(12)?, started: seconds(19)? })
    }
}

/// Seconds from 1970 to the machine's boot.
fn boot_time(proc: &Path) -> Option<f64> {
    fs::read_to_string(proc.join("stat"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()
}

fn open_fds(proc: &Path) -> Option<u64> {
    let entries = fs::read_dir(proc.join("self/fd")).ok()?.count();
    // One of them is the directory that is being read.
    u64::try_from(entries).ok()?.checked_sub(1)
}

fn max_fds(proc: &Path) -> Option<u64> {
    word(&fs::read_to_string(proc.join("self/limits")).ok()?, "Max open files")
}

/// The number after `key`, which begins a line.
fn word(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// A size of `/proc/self/status`, where all of them are in KiB.
fn bytes(status: &str, key: &str) -> Option<u64> {
    Some(word(status, key)? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_running_process_has_every_figure_and_none_is_zero() {
        let metrics = Metrics::new();
        register(&metrics);
        let families = strict::parse(&metrics.render(None).body).unwrap();
        assert_eq!(families.len(), 7);
        for family in families.iter().filter(|family| family.name != "process_cpu_seconds_total") {
            assert!(family.samples[0].value > 0.0, "{}", family.name);
        }
    }

    #[test]
    fn figures_are_read_as_the_manual_describes_them() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("self");
        fs::create_dir_all(own.join("fd")).unwrap();
        for fd in ["0", "1", "2", "7"] {
            fs::write(own.join("fd").join(fd), "").unwrap();
        }
        let name = "1 (a (b) c) S 0 1 1 0 -1 4194304 5 0 0 0";
        fs::write(own.join("stat"), format!("{name} 250 150 0 0 20 0 9 0 5000001050 1000 5 99")).unwrap();
        fs::write(own.join("status"), "Name:\ta\nVmSize:\t  20 kB\nVmRSS:\t   8 kB\nThreads:\t9\n").unwrap();
        let limits =
            "Limit       Soft Limit  Hard Limit  Units\nMax open files       1024    4096    files\n";
        fs::write(own.join("limits"), limits).unwrap();
        fs::write(root.path().join("stat"), "cpu 1 2\nbtime 1700000000\nprocesses 3\n").unwrap();

        let metrics = Metrics::new();
        metrics.register_collector(Process::new(root.path().to_owned()));
        let families = strict::parse(&metrics.render(None).body).unwrap();
        let figures: Vec<_> =
            families.iter().map(|family| (family.name.as_str(), family.samples[0].value)).collect();
        assert_eq!(
            figures,
            [
                ("process_cpu_seconds_total", 4.0),
                ("process_open_fds", 3.0),
                ("process_max_fds", 1024.0),
                ("process_resident_memory_bytes", 8192.0),
                ("process_virtual_memory_bytes", 20480.0),
                ("process_start_time_seconds", 1_750_000_010.5),
                ("process_threads", 9.0),
            ]
        );
    }

    #[test]
    fn without_proc_there_is_nothing_and_no_error() {
        let metrics = Metrics::new();
        metrics.register_collector(Process::new(PathBuf::from("/nonexistent")));
        register_build_info(&metrics, "1.2.3", "abc");
        let body = metrics.render(None).body;
        let expected = "# HELP adit_build_info The running build.\n# TYPE adit_build_info gauge\n\
                        adit_build_info{version=\"1.2.3\",revision=\"abc\"} 1\n";
        assert_eq!(body, expected);
    }
}
