//! Metric families as they are documented: the reference page is made from these tables.

/// One metric family.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// The name as it is scraped.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// Its labels, comma separated.
    pub labels: &'static str,
    /// What it means, with its unit.
    pub help: &'static str,
}

/// A row of a table.
#[must_use]
pub const fn family(
    name: &'static str,
    kind: &'static str,
    labels: &'static str,
    help: &'static str,
) -> Described {
    Described { name, kind, labels, help }
}

/// The help text of `name` in a table; empty for a name that is not in it.
#[must_use]
pub fn help(table: &'static [Described], name: &str) -> &'static str {
    table.iter().find(|family| family.name == name).map_or("", |family| family.help)
}

/// What every role exposes beside its own families.
pub const COMMON: &[Described] = &[
    family("adit_build_info", "gauge", "version,revision", "Always 1; its labels say which build this is"),
    family(
        "adit_log_lines_dropped_total",
        "counter",
        "log",
        "Log lines dropped because their sink was too slow",
    ),
    family(
        "adit_config_last_reload_successful",
        "gauge",
        "",
        "1 unless the last configuration that was read was refused, so that the one before is still in force",
    ),
    family(
        "adit_config_last_reload_success_timestamp_seconds",
        "gauge",
        "",
        "When the configuration in force was read, in seconds since 1970",
    ),
    family(
        "adit_config_reloads_total",
        "counter",
        "result",
        "Configurations that were read after the start, by what became of them: taken, or refused",
    ),
    family(
        "adit_config_info",
        "gauge",
        "hash",
        "Always 1; its label is the hash of the configuration file in force, empty for flags alone",
    ),
    family("process_cpu_seconds_total", "counter", "", "Processor time used, in seconds"),
    family("process_open_fds", "gauge", "", "File descriptors open now"),
    family("process_max_fds", "gauge", "", "File descriptors that may be open"),
    family("process_resident_memory_bytes", "gauge", "", "Resident memory, in bytes"),
    family("process_virtual_memory_bytes", "gauge", "", "Virtual memory, in bytes"),
    family("process_start_time_seconds", "gauge", "", "When the process started, in seconds since 1970"),
    family("process_threads", "gauge", "", "Threads of the process"),
    family("tokio_workers", "gauge", "", "Worker threads of the runtime"),
    family("tokio_alive_tasks", "gauge", "", "Tasks of the runtime that have not ended"),
    family("tokio_global_queue_depth", "gauge", "", "Tasks that wait in the runtime's global queue"),
    family(
        "tokio_worker_busy_seconds_total",
        "counter",
        "",
        "Time the workers were busy, summed, in seconds",
    ),
];
