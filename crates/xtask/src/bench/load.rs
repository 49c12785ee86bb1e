//! The load: which requests, and what wrk says about them.

use anyhow::{Context as _, Result};

use crate::process::{program, read};

/// One way to ask.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    path: &'static str,
    connections: u32,
    /// Whether each request opens a connection of its own.
    closes: bool,
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "1 KiB, 64 connections kept", path: "/1k", connections: 64, closes: false },
    Scenario { name: "1 KiB, 256 connections kept", path: "/1k", connections: 256, closes: false },
    Scenario { name: "64 KiB, 16 connections kept", path: "/64k", connections: 16, closes: false },
    Scenario { name: "1 KiB, 16 at once, Connection: close", path: "/1k", connections: 16, closes: true },
];

impl Scenario {
    /// wrk's arguments. One thread: it saturates every peer here and leaves the other processors to them.
    pub(super) fn wrk(&self, port: &str, seconds: u32) -> Vec<String> {
        let mut args = vec![
            "-t1".into(),
            format!("-c{}", self.connections),
            format!("-d{seconds}s"),
            "--latency".into(),
        ];
        if self.closes {
            args.extend(["-H".into(), "Connection: close".into()]);
        }
        args.push(format!("http://127.0.0.1:{port}{}", self.path));
        args
    }
}

/// What wrk measured.
#[derive(Debug, PartialEq)]
pub(super) struct Load {
    pub(super) requests: u64,
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Connections that failed, and answers other than 2xx and 3xx.
    pub(super) errors: u64,
}

/// Puts one scenario to one port.
pub(super) fn run(scenario: &Scenario, port: u16, seconds: u32) -> Result<Load> {
    let text = read(program("wrk").args(scenario.wrk(&port.to_string(), seconds)))?;
    parse(&text).with_context(|| format!("wrk says something unexpected:\n{text}"))
}

fn parse(text: &str) -> Option<Load> {
    let after = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?;
    let socket_errors: u64 = after("Socket errors:").map_or(0, |list| {
        list.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum()
    });
    let refused: u64 = match after("Non-2xx or 3xx responses:") {
        Some(count) => count.parse().ok()?,
        None => 0,
    };
    Some(Load {
        requests,
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p50_ms: millis(after("50%")?)?,
        p99_ms: millis(after("99%")?)?,
        errors: socket_errors + refused,
    })
}

fn millis(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 4 connections\n  Thread Stats   Avg\n    \
        Latency     3.98ms    2.73ms  16.74ms   80.83%\n  Latency Distribution\n     50%  930.00us\n     75%    5.09ms\n     \
        90%    8.22ms\n     99%    1.26s\n  1058 requests in 1.00s, 353.36KB read\n  Socket errors: connect 1, read 2, \
        write 0, timeout 4\n  Non-2xx or 3xx responses: 5\nRequests/sec:   1057.77\nTransfer/sec:    353.28KB\n";

    #[test]
    fn the_report_of_wrk_is_read() {
        let load = parse(TEXT).unwrap();
        assert_eq!(
            load,
            Load { requests: 1058, requests_per_second: 1057.77, p50_ms: 0.93, p99_ms: 1260.0, errors: 12 }
        );
    }

    #[test]
    fn anything_else_is_not() {
        assert_eq!(parse("unable to connect"), None);
        assert_eq!(millis("3 parsecs"), None);
    }
}
