//! `ci`: every check and test in one command, in the order in which a mistake is cheapest to find.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{bench, checks, churn, deny, docs, setup, tidy};

type Step = (&'static str, fn() -> Result<()>);

// `test` runs the fuzz corpus and the end-to-end tests too: both are ordinary tests of the workspace.
const STEPS: &[Step] = &[
    ("setup", || setup::run(&[])),
    ("fmt", || checks::fmt(&[])),
    ("clippy", || checks::clippy(&[])),
    ("tidy", || tidy::run(&[])),
    ("docs --check", || docs::run(&["--check".to_owned()])),
    ("doc", || checks::doc(&[])),
    ("deny", || deny::run(&[])),
    ("test", || checks::test(&[])),
    ("soak", || churn::soak(&["--minutes".to_owned(), "2".to_owned()])),
    // No figure of it is judged: it shows that every scenario still runs.
    ("bench --quick", || bench::run(&["--quick".to_owned()])),
];

/// Runs the steps, stops at the first that fails, and prints what each took.
pub(crate) fn run(_args: &[String]) -> Result<()> {
    let mut done: Vec<(&str, Duration, &str)> = Vec::new();
    let mut result = Ok(());
    for (name, step) in STEPS {
        eprintln!("\n== {name}");
        let start = Instant::now();
        result = step();
        done.push((name, start.elapsed(), if result.is_ok() { "ok" } else { "FAILED" }));
        if result.is_err() {
            break;
        }
    }
    print!("\n{}", table(&done));
    result
}

fn table(done: &[(&str, Duration, &str)]) -> String {
    let mut text = format!("{:<14}{:>9}  result\n", "step", "seconds");
    for (name, took, outcome) in done {
        text += &format!("{name:<14}{:>9.1}  {outcome}\n", took.as_secs_f64());
    }
    for (name, _) in STEPS.get(done.len()..).unwrap_or_default() {
        text += &format!("{name:<14}{:>9}  not run\n", "-");
    }
    let total: Duration = done.iter().map(|(_, took, _)| *took).sum();
    text + &format!("{:<14}{:>9.1}\n", "total", total.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_ran_what_failed_and_what_did_not_run() {
        let text =
            table(&[("setup", Duration::from_millis(1500), "ok"), ("fmt", Duration::from_secs(2), "FAILED")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), STEPS.len() + 2);
        assert_eq!(lines[1], "setup               1.5  ok");
        assert_eq!(lines[2], "fmt                 2.0  FAILED");
        assert!(lines[3].starts_with("clippy") && lines[3].ends_with("not run"));
        assert_eq!(lines.last(), Some(&"total               3.5"));
    }
}
