//! The results as Markdown: the machine, the versions, the summary, a table for each group of steps, how far
//! the rounds lie apart, and how to do it again.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::peers::{Kind, PEERS, Peer};
use super::results::{BASE, Results, median};
use super::steps::SCENARIOS;
use super::tables::{Column, Count, GOALS, Goal, Limit, Show, TABLES, Table};
use super::usage;
use crate::process::program;

/// The whole report.
pub(super) fn render(results: &Results) -> Result<String> {
    let mut text = String::from("# Benchmark\n\n");
    writeln!(text, "{}\n{}\n", results.machine, results.scale)?;
    for entry in &results.peers {
        let about = peer(&entry.name).map_or("", |peer| peer.about);
        let version = if entry.version.is_empty() { String::new() } else { format!(" ({})", entry.version) };
        writeln!(text, "- {}: {about}{version}", entry.name)?;
    }
    if !results.missing.is_empty() {
        writeln!(text, "- not found on this machine: {}", results.missing.join(", "))?;
    }
    writeln!(text, "- load on kept connections: {}\n", wrk_version()?)?;
    text += &summary(results);
    for shown in TABLES {
        text += &table(shown, results);
    }
    text += &noise(results);
    text += &problems(results);
    text += &commands(results);
    Ok(text)
}

fn peer(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

fn row(text: &mut String, cells: &[String]) {
    *text += &format!("| {} |\n", cells.join(" | "));
}

fn heads(text: &mut String, left: &[&str], right: &[&str]) {
    row(text, &left.iter().chain(right).map(|head| (*head).to_owned()).collect::<Vec<_>>());
    *text += &format!("|{}{}\n", "---|".repeat(left.len()), "--:|".repeat(right.len()));
}

fn summary(results: &Results) -> String {
    let there = |wanted: Kind| {
        let of_kind = move |name: &str| peer(name).is_some_and(|peer| peer.kind == wanted);
        results.peers.iter().map(|entry| entry.name.as_str()).filter(move |name| of_kind(name))
    };
    let ours: Vec<&str> = there(Kind::Adit).collect();
    let mut text = String::from(
        "## Summary\n\nWhat is reached is bold. \"Best tunnel\" is the best other encrypted tunnel of this run, \
         row by row.\n\n",
    );
    heads(&mut text, &["#", "figure"], &[&["goal", "nginx", "best tunnel"][..], &ours].concat());
    for goal in GOALS {
        let rival = there(Kind::EncryptedTunnel)
            .filter_map(|name| Some((count(results, goal, name)?, name)))
            .reduce(|best, next| if is_better(goal, next.0, best.0) { next } else { best });
        let mut cells = vec![goal.number.to_string(), goal.about.to_owned(), limits(goal)];
        cells.push(show(count(results, goal, BASE), 2));
        cells.push(rival.map_or_else(|| show(None, 2), |(value, name)| format!("{value:.2} {name}")));
        for name in &ours {
            let value = count(results, goal, name);
            let is_reached = value.is_some_and(|value| reaches(limit(goal, name), value));
            let shown = show(value, 2);
            cells.push(if is_reached { format!("**{shown}**") } else { shown });
        }
        row(&mut text, &cells);
    }
    text + "\n"
}

fn count(results: &Results, goal: &Goal, peer: &str) -> Option<f64> {
    match goal.count {
        Count::Value => results.median(peer, goal.step, goal.figure),
        Count::OfNginx => results.ratio([peer, BASE], goal.step, goal.figure),
        Count::AboveNginx => {
            results.beside([peer, BASE], goal.step, goal.figure, |own, base| (own - base).max(0.0))
        }
    }
}

fn limit(goal: &Goal, peer: &str) -> Limit {
    goal.limits[usize::from(peer == "adit-tcp")]
}

fn limits(goal: &Goal) -> String {
    let show = |limit: Limit| match limit {
        Limit::AtLeast(value) => format!("≥ {value}"),
        Limit::AtMost(value) => format!("≤ {value}"),
    };
    let [http, tcp] = goal.limits.map(show);
    if http == tcp { http } else { format!("{http}; TCP {tcp}") }
}

fn reaches(limit: Limit, value: f64) -> bool {
    match limit {
        Limit::AtLeast(least) => value >= least,
        // Half of the last digit that is shown.
        Limit::AtMost(most) => value <= most + 0.005,
    }
}

fn is_better(goal: &Goal, one: f64, other: f64) -> bool {
    match goal.limits[0] {
        Limit::AtLeast(_) => one > other,
        Limit::AtMost(_) => one < other,
    }
}

fn table(shown: &Table, results: &Results) -> String {
    let mut text = format!("## {}\n\n{}\n\n", shown.title, shown.about);
    let columns: Vec<&str> = shown.columns.iter().map(|column| column.head).collect();
    heads(&mut text, &["peer"], &columns);
    let before = text.len();
    for entry in &results.peers {
        let values: Vec<Option<f64>> =
            shown.columns.iter().map(|column| value(results, column, &entry.name)).collect();
        if values.iter().any(Option::is_some) {
            let mut cells = vec![entry.name.clone()];
            cells.extend(shown.columns.iter().zip(values).map(|(column, value)| {
                let digits = if let Show::Median(digits) = column.show { digits } else { 2 };
                show(value, digits)
            }));
            row(&mut text, &cells);
        }
    }
    // A group of steps that was not asked for.
    if text.len() == before { String::new() } else { text + "\n" }
}

fn value(results: &Results, column: &Column, peer: &str) -> Option<f64> {
    let is_hopless = peer == "direct" && column.figure.starts_with("cpu");
    match column.show {
        _ if is_hopless => None,
        Show::Median(_) => results.median(peer, column.step, column.figure),
        Show::Of(base) => results.ratio([peer, base], column.step, column.figure),
    }
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// Ratios are what to read; this says how much to believe them.
fn noise(results: &Results) -> String {
    let mut text = String::from(
        "## How far the rounds lie apart\n\nThe range of the rounds as a part of their median, and the share of the \
         processors that other programs took during a peer's steps.\n\n",
    );
    let heads_right =
        ["rounds", "64: requests/s", "64: CPU", "bulk down", "its CPU", "others, median", "others, most"];
    heads(&mut text, &["peer"], &heads_right);
    for entry in &results.peers {
        let name = entry.name.as_str();
        let own = || results.samples.iter().filter(|sample| sample.peer == name);
        let foreign: Vec<f64> = own().filter_map(|sample| sample.foreign).collect();
        let rounds = own().map(|sample| sample.round).collect::<std::collections::BTreeSet<_>>().len();
        let percent = |value: Option<f64>| show(value.map(|value| value * 100.0), 0) + " %";
        let most = foreign.iter().copied().reduce(f64::max);
        row(
            &mut text,
            &[
                name.to_owned(),
                rounds.to_string(),
                percent(results.spread(name, "c64", "per_second")),
                percent(results.spread(name, "c64", "cpu_us")),
                percent(results.spread(name, "down", "mib_per_second")),
                percent(results.spread(name, "down", "cpu_s_per_gib")),
                percent(median(foreign.clone())),
                percent(most),
            ],
        );
    }
    text.replace("– %", "–") + "\n"
}

/// Steps without figures, and requests that failed.
fn problems(results: &Results) -> String {
    let mut lines = Vec::new();
    for sample in &results.samples {
        let of = format!("{}, {}, round {}", sample.peer, sample.step, sample.round + 1);
        if let Some(error) = &sample.error {
            lines.push(format!("- {of}: {}\n", error.lines().next().unwrap_or_default()));
        }
        if let Some(errors) = sample.figures.get("errors").filter(|errors| **errors > 0.0) {
            lines.push(format!("- {of}: {errors} requests failed\n"));
        }
    }
    if lines.is_empty() { String::new() } else { format!("## What went wrong\n\n{}\n", lines.concat()) }
}

fn commands(results: &Results) -> String {
    let mut text = String::from("## Commands\n\n```\n");
    for line in results.peers.iter().flat_map(|entry| &entry.commands) {
        text += &format!("{line}\n");
    }
    text += "```\n\nScenarios, for `--scenario`:\n\n";
    for scenario in SCENARIOS {
        text += &format!("- `{}`: {}\n", scenario.name, scenario.about);
    }
    text
}

/// One line about this machine.
pub(super) fn machine() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    Ok(format!(
        "Linux {}, {}, {} cores, {} of memory; everything on the loopback.",
        read("/proc/sys/kernel/osrelease")?.trim(),
        field(&read("/proc/cpuinfo")?, "model name"),
        usage::cores()?,
        field(&read("/proc/meminfo")?, "MemTotal"),
    ))
}

/// wrk ends with an error after it has said its version.
fn wrk_version() -> Result<String> {
    let output = program("wrk").arg("-v").output().context("wrk -v")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split(" [").next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Entry;
    use crate::bench::results::tests::sample;

    fn results() -> Results {
        let entry =
            |name: &str| Entry { name: name.into(), version: "1".into(), commands: vec!["run".into()] };
        let figures = |rate: f64, cpu: f64| [("per_second", rate), ("cpu_us", cpu), ("errors", 0.0)];
        Results {
            machine: "a machine".into(),
            peers: ["nginx", "ssh", "rathole-tls", "adit", "adit-tcp"].map(entry).to_vec(),
            samples: vec![
                sample("nginx", "c64", 0, &figures(100.0, 10.0)),
                sample("ssh", "c64", 0, &figures(20.0, 30.0)),
                sample("rathole-tls", "c64", 0, &figures(50.0, 40.0)),
                sample("adit", "c64", 0, &figures(110.0, 12.5)),
                sample("adit-tcp", "c64", 0, &figures(90.0, 12.5)),
            ],
            ..Results::default()
        }
    }

    fn line<'a>(text: &'a str, start: &str) -> &'a str {
        text.lines().find(|line| line.starts_with(start)).unwrap()
    }

    #[test]
    fn the_summary_says_who_is_best_and_what_is_reached() {
        let text = summary(&results());
        assert!(
            line(&text, "| 1 |").ends_with("| ≥ 1 | 1.00 | 0.50 rathole-tls | **1.10** | 0.90 |"),
            "{text}"
        );
        assert!(
            line(&text, "| 2 |").contains("≤ 1.25; TCP ≤ 1.02 | 1.00 | 3.00 ssh | **1.25** | 1.25 |"),
            "{text}"
        );
        assert!(line(&text, "| 19 |").ends_with("| – | – | – | – |"), "{text}");
    }

    #[test]
    fn a_table_has_only_peers_with_figures_and_is_left_out_without_any() {
        let text = table(&TABLES[0], &results());
        assert!(line(&text, "| adit |").contains("| – | – | 110 | – | – | 1.10 |"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("| ssh")).count(), 1);
        assert_eq!(table(&TABLES[1], &results()), "");
    }

    #[test]
    fn what_went_wrong_is_said() {
        let mut results = results();
        assert_eq!(problems(&results), "");
        results.samples[1].error = Some("no answer\nmore".into());
        results.samples[2].figures.insert("errors".into(), 3.0);
        let text = problems(&results);
        assert!(text.contains("- ssh, c64, round 1: no answer\n"), "{text}");
        assert!(text.contains("- rathole-tls, c64, round 1: 3 requests failed\n"), "{text}");
    }

    #[test]
    fn the_machine_is_described() {
        assert!(machine().unwrap().starts_with("Linux "));
    }
}
