//! wrk for requests on kept connections: its arguments, and what it says.

use anyhow::{Context as _, Result};

use super::measure::Figures;

/// wrk's arguments. One thread: it saturates every peer here and leaves the other processors to them.
pub(super) fn args(url: &str, host: &str, connections: u32, seconds: u32) -> Vec<String> {
    vec![
        "-t1".into(),
        format!("-c{connections}"),
        format!("-d{seconds}s"),
        "--latency".into(),
        "-H".into(),
        format!("Host: {host}"),
        url.into(),
    ]
}

/// Reads wrk's report. Errors are connections that failed, and answers other than 2xx and 3xx.
///
/// # Errors
/// When it is no such report.
pub(super) fn figures(text: &str) -> Result<Figures> {
    parse(text).with_context(|| format!("wrk says something unexpected:\n{text}"))
}

fn parse(text: &str) -> Option<Figures> {
    let after = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?;
    let socket_errors: f64 = after("Socket errors:").map_or(0.0, |list| {
        list.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<f64>().ok()).sum()
    });
    let refused: f64 = match after("Non-2xx or 3xx responses:") {
        Some(count) => count.parse().ok()?,
        None => 0.0,
    };
    Some(Figures::from([
        ("requests".to_owned(), requests),
        ("per_second".to_owned(), after("Requests/sec:")?.parse().ok()?),
        ("p50_ms".to_owned(), millis(after("50%")?)?),
        ("p99_ms".to_owned(), millis(after("99%")?)?),
        ("errors".to_owned(), socket_errors + refused),
    ]))
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
        let seen = parse(TEXT).unwrap();
        let wanted = [("errors", 12.0), ("p50_ms", 0.93), ("p99_ms", 1260.0), ("per_second", 1057.77)];
        for (name, value) in wanted {
            assert!((seen[name] - value).abs() < 1e-9, "{name}: {}", seen[name]);
        }
        assert!((seen["requests"] - 1058.0).abs() < 1e-9);
    }

    #[test]
    fn anything_else_is_not() {
        assert!(figures("unable to connect").is_err());
        assert_eq!(millis("3 parsecs"), None);
    }
}
