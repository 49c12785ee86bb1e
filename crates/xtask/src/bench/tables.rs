//! Which figures are shown, and where: one table for each group of steps, and what a reader would set as a goal.

/// How a figure is shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum Show {
    /// The median, with this many digits behind the point.
    Median(usize),
    /// The median of the ratios to this peer.
    Of(&'static str),
}

/// A column of a table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) step: &'static str,
    pub(super) figure: &'static str,
    pub(super) show: Show,
}

/// One table; a peer without any of its figures has no row in it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) columns: &'static [Column],
}

const fn median(head: &'static str, step: &'static str, figure: &'static str, digits: usize) -> Column {
    Column { head, step, figure, show: Show::Median(digits) }
}

const fn of(base: &'static str, head: &'static str, step: &'static str, figure: &'static str) -> Column {
    Column { head, step, figure, show: Show::Of(base) }
}

pub(super) const TABLES: &[Table] = &[
    Table {
        title: "Small requests on kept connections",
        about: "1 KiB over 1, 16, 64 and 256 connections; requests/s, then the figures of 64 connections.",
        columns: &[
            median("1", "c1", "per_second", 0),
            median("16", "c16", "per_second", 0),
            median("64", "c64", "per_second", 0),
            median("256", "c256", "per_second", 0),
            of("direct", "64, of direct", "c64", "per_second"),
            of("nginx", "64, of nginx", "c64", "per_second"),
            of("nginx", "256, of nginx", "c256", "per_second"),
            median("p50 ms", "c64", "p50_ms", 2),
            median("p99 ms", "c64", "p99_ms", 2),
            median("CPU µs/request", "c64", "cpu_us", 1),
            of("nginx", "of nginx", "c64", "cpu_us"),
        ],
    },
    Table {
        title: "Large bodies",
        about: "64 KiB and 1 MiB over 16 kept connections. Slowest size: one request after the other, from 1 B to \
                1 MiB; the time that a quarter of the requests of the slowest size stay below. 40 ms there is Nagle's \
                algorithm meeting a delayed acknowledgement.",
        columns: &[
            median("64 KiB: requests/s", "64k", "per_second", 0),
            of("nginx", "of nginx", "64k", "per_second"),
            median("CPU µs", "64k", "cpu_us", 0),
            median("1 MiB: requests/s", "1m", "per_second", 0),
            of("nginx", "of nginx", "1m", "per_second"),
            median("CPU µs", "1m", "cpu_us", 0),
            median("64 KiB p99 ms", "64k", "p99_ms", 1),
            median("slowest size, ms", "stall", "worst_ms", 1),
        ],
    },
    Table {
        title: "A fixed rate, and new connections",
        about: "1000 requests/s of 1 KiB over 32 kept connections, timed from when each was due; and 1 KiB with a \
                new connection for each request, 16 at once.",
        columns: &[
            median("p50 ms", "rate", "p50_ms", 3),
            median("p99 ms", "rate", "p99_ms", 2),
            median("p99.9 ms", "rate", "p999_ms", 2),
            median("CPU µs/request", "rate", "cpu_us", 0),
            median("connections/s", "close", "per_second", 0),
            of("nginx", "of nginx", "close", "per_second"),
            median("CPU µs/connection", "close", "cpu_us", 0),
            of("nginx", "of nginx", "close", "cpu_us"),
        ],
    },
    Table {
        title: "Bulk",
        about: "One large body down, one up, and four down at the same time; MiB/s, and the seconds of processor \
                time that both halves take for a GiB.",
        columns: &[
            median("down", "down", "mib_per_second", 0),
            of("nginx", "of nginx", "down", "mib_per_second"),
            median("CPU s/GiB", "down", "cpu_s_per_gib", 2),
            median("up", "up", "mib_per_second", 0),
            of("nginx", "of nginx", "up", "mib_per_second"),
            median("CPU s/GiB", "up", "cpu_s_per_gib", 2),
            median("4 down", "down4", "mib_per_second", 0),
            of("nginx", "of nginx", "down4", "mib_per_second"),
            median("CPU s/GiB", "down4", "cpu_s_per_gib", 2),
        ],
    },
    Table {
        title: "Scrapes, and small requests beside large ones",
        about: "667 requests/s of 50 KiB are 10,000 Prometheus targets every 15 s. Mixed: 500 requests/s of 1 KiB \
                while four endless bodies use all there is.",
        columns: &[
            median("scrape p50 ms", "scrape", "p50_ms", 3),
            of("nginx", "of nginx", "scrape", "p50_ms"),
            median("p99 ms", "scrape", "p99_ms", 2),
            median("CPU µs/scrape", "scrape", "cpu_us", 0),
            median("mixed p50 ms", "mixed", "p50_ms", 2),
            median("p99 ms", "mixed", "p99_ms", 2),
            median("p99.9 ms", "mixed", "p999_ms", 2),
        ],
    },
    Table {
        title: "Memory and set-up",
        about: "MiB of all processes of a peer, pages shared with others in part; set-up from the start of the last \
                half to the first answer. KiB for each connection that has asked once and is then idle.",
        columns: &[
            median("set-up ms", "footprint", "set_up_ms", 0),
            median("at rest MiB", "footprint", "rest_mib", 1),
            median("client, anonymous", "footprint", "client_rest_anonymous_mib", 1),
            median("after 256 connections", "footprint", "loaded_mib", 1),
            median("anonymous", "footprint", "loaded_anonymous_mib", 1),
            median("idle connections", "idle", "open", 0),
            median("server KiB each", "idle", "server_kib", 2),
            median("client KiB each", "idle", "client_kib", 2),
            median("CPU %", "idle", "busy_percent", 1),
        ],
    },
    Table {
        title: "Recovery",
        about: "The server half is killed and started again, at once or after 2 s, and the client half is; \
                milliseconds from that start to the next answer. Lost: it did not come back within 30 s, or a half \
                had ended.",
        columns: &[
            median("server at once", "recover", "at_once_ms", 0),
            median("after 2 s", "recover", "after_2_s_ms", 0),
            median("client", "recover", "client_ms", 0),
            median("lost", "recover", "lost", 0),
        ],
    },
    Table {
        title: "Many agents on one server",
        about: "Each agent is a process. Anonymous memory of the server for each, processor time to take one in, \
                and the server's load when nothing happens.",
        columns: &[
            median("agents", "agents", "agents", 0),
            median("s until all answer", "agents", "seconds", 2),
            median("server KiB each", "agents", "server_kib", 1),
            median("server CPU ms each", "agents", "server_cpu_ms", 2),
            median("idle CPU %", "agents", "busy_percent", 1),
            median("one agent KiB", "agents", "agent_kib", 0),
        ],
    },
    Table {
        title: "50 ms between the halves",
        about: "A relay that delays each byte by 25 ms each way, without a limit and at 100 Mbit/s. `direct` is the \
                load itself on that path, `nginx2-tls` bare TLS on it.",
        columns: &[
            median("small p50 ms", "far", "p50_ms", 1),
            median("one body MiB/s", "far", "mib_per_second", 0),
            of("nginx2-tls", "of nginx2-tls", "far", "mib_per_second"),
            median("at 100 Mbit/s, MiB/s", "far100", "mib_per_second", 1),
            median("% of the line", "far100", "line_percent", 0),
        ],
    },
];

/// How a goal is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Value,
    /// As a part of nginx's in the same round.
    OfNginx,
    /// What it is above nginx's in the same round.
    AboveNginx,
}

/// What a good result is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// A row of the summary.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) number: u32,
    pub(super) about: &'static str,
    pub(super) step: &'static str,
    pub(super) figure: &'static str,
    pub(super) count: Count,
    /// For HTTP, and for TCP where that differs.
    pub(super) limits: [Limit; 2],
}

const fn goal(
    number: u32,
    about: &'static str,
    (step, figure): (&'static str, &'static str),
    count: Count,
    limit: Limit,
) -> Goal {
    Goal { number, about, step, figure, count, limits: [limit, limit] }
}

impl Goal {
    const fn for_tcp(self, limit: Limit) -> Self {
        Self { limits: [self.limits[0], limit], ..self }
    }
}

use Count::{AboveNginx, OfNginx, Value};
use Limit::{AtLeast, AtMost};

/// Nineteen scenarios; some have several figures.
pub(super) const GOALS: &[Goal] = &[
    goal(1, "64 connections, 1 KiB: requests/s of nginx", ("c64", "per_second"), OfNginx, AtLeast(1.0)),
    goal(2, "the same: CPU per request of nginx", ("c64", "cpu_us"), OfNginx, AtMost(1.25))
        .for_tcp(AtMost(1.02)),
    goal(3, "256 connections: requests/s of nginx", ("c256", "per_second"), OfNginx, AtLeast(1.0)),
    goal(4, "64 connections: p99 of nginx", ("c64", "p99_ms"), OfNginx, AtMost(1.0)),
    goal(5, "1000/s: p50 of nginx", ("rate", "p50_ms"), OfNginx, AtMost(1.4)),
    goal(5, "1000/s: p99 above nginx, ms", ("rate", "p99_ms"), AboveNginx, AtMost(1.0)),
    goal(6, "64 KiB: requests/s of nginx", ("64k", "per_second"), OfNginx, AtLeast(0.8)),
    goal(6, "slowest size from 1 B to 1 MiB, ms", ("stall", "worst_ms"), Value, AtMost(30.0)),
    goal(7, "1 MiB: requests/s of nginx", ("1m", "per_second"), OfNginx, AtLeast(0.9)),
    goal(8, "bulk down: of nginx", ("down", "mib_per_second"), OfNginx, AtLeast(1.1)),
    goal(9, "bulk up: of nginx", ("up", "mib_per_second"), OfNginx, AtLeast(1.2)),
    goal(10, "bulk down: CPU s/GiB", ("down", "cpu_s_per_gib"), Value, AtMost(0.95)),
    goal(11, "new connections/s of nginx", ("close", "per_second"), OfNginx, AtLeast(0.75))
        .for_tcp(AtLeast(0.5)),
    goal(12, "idle connection: server KiB", ("idle", "server_kib"), Value, AtMost(1.0)),
    goal(12, "idle connection: client KiB", ("idle", "client_kib"), Value, AtMost(0.0)).for_tcp(AtMost(1.0)),
    goal(13, "an agent: server KiB", ("agents", "server_kib"), Value, AtMost(12.0)),
    goal(14, "an agent connects: server CPU ms", ("agents", "server_cpu_ms"), Value, AtMost(0.6)),
    goal(15, "both halves at rest, MiB", ("footprint", "rest_mib"), Value, AtMost(6.0)),
    goal(15, "client at rest, anonymous MiB", ("footprint", "client_rest_anonymous_mib"), Value, AtMost(1.0)),
    goal(15, "both after 256 connections, MiB", ("footprint", "loaded_mib"), Value, AtMost(12.0)),
    goal(16, "set-up ms", ("footprint", "set_up_ms"), Value, AtMost(12.0)),
    goal(17, "server killed, back at once: ms", ("recover", "at_once_ms"), Value, AtMost(60.0)),
    goal(17, "back after 2 s: ms", ("recover", "after_2_s_ms"), Value, AtMost(150.0)),
    goal(17, "client killed: ms", ("recover", "client_ms"), Value, AtMost(12.0)),
    goal(18, "scrapes: p50 of nginx", ("scrape", "p50_ms"), OfNginx, AtMost(1.4)),
    goal(18, "scrapes: p99 ms", ("scrape", "p99_ms"), Value, AtMost(3.0)),
    goal(18, "scrapes: CPU µs", ("scrape", "cpu_us"), Value, AtMost(110.0)),
    goal(19, "small beside four large: p99 ms", ("mixed", "p99_ms"), Value, AtMost(8.0)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::steps::SCENARIOS;

    #[test]
    fn every_figure_belongs_to_a_step_and_every_step_is_shown() {
        let steps: Vec<&str> =
            SCENARIOS.iter().flat_map(|scenario| scenario.steps).map(|step| step.name).collect();
        let shown: Vec<&str> =
            TABLES.iter().flat_map(|table| table.columns).map(|column| column.step).collect();
        for step in shown.iter().chain(GOALS.iter().map(|goal| &goal.step)) {
            assert!(steps.contains(step), "{step} is no step");
        }
        for step in steps {
            assert!(shown.contains(&step), "{step} is not shown");
        }
    }

    #[test]
    fn the_goals_are_those_of_nineteen_scenarios() {
        let mut numbers: Vec<u32> = GOALS.iter().map(|goal| goal.number).collect();
        numbers.dedup();
        assert_eq!(numbers, (1..=19).collect::<Vec<_>>());
    }
}
