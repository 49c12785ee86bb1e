//! The result as Markdown: the machine, the versions, one table for each scenario, and how to do it again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::load::SCENARIOS;
use super::peers::{Peer, Started};
use super::{Options, Sample, usage};
use crate::process::program;

const BASE: &str = "nginx";

/// The whole report.
pub(super) fn render(
    options: &Options,
    samples: &[Sample],
    upstream: &Started,
    started: &[(&Peer, Started)],
    folder: &Path,
) -> Result<String> {
    let mut text = String::from("# Benchmark\n\n");
    writeln!(text, "{}", machine()?)?;
    let foreign = samples.iter().map(|sample| sample.foreign_share).fold(0.0, f64::max);
    writeln!(
        text,
        "{} rounds of {} s a step, interleaved; medians, ratios to {BASE} within a round. Other programs took at \
         most {:.0} % of the processors in a step.\n",
        options.rounds,
        options.seconds,
        foreign * 100.0
    )?;
    for (peer, running) in started {
        let version =
            if running.version.is_empty() { String::new() } else { format!(" ({})", running.version) };
        writeln!(text, "- {}: {}{version}", peer.name, peer.about)?;
    }
    writeln!(text, "- load: {}\n", wrk_version()?)?;
    for scenario in SCENARIOS {
        let peers: Vec<&str> = started.iter().map(|(peer, _)| peer.name).collect();
        writeln!(text, "{}", table(scenario.name, samples, &peers))?;
    }
    text += "## Commands\n\n```\n";
    let commands = started.iter().flat_map(|(_, running)| &running.processes);
    for process in upstream.processes.iter().chain(commands) {
        let line =
            process.line.replace(&relative(folder), "$DIR").replace(&folder.display().to_string(), "$DIR");
        writeln!(text, "{line}")?;
    }
    for scenario in SCENARIOS {
        let args = scenario.wrk("$PORT", options.seconds);
        let quoted = args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { arg.clone() });
        writeln!(text, "wrk {}", quoted.collect::<Vec<_>>().join(" "))?;
    }
    Ok(text + "```\n")
}

/// As command lines show it: without the workspace's folder.
fn relative(folder: &Path) -> String {
    folder.strip_prefix(crate::process::root()).unwrap_or(folder).display().to_string()
}

fn table(scenario: &str, samples: &[Sample], peers: &[&str]) -> String {
    let mut text = format!(
        "## {scenario}\n\n| peer | requests/s | of {BASE} | p50 ms | p99 ms | of {BASE} | CPU µs/request | of {BASE} \
         | memory MiB | errors |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    let all: Vec<&Sample> = samples.iter().filter(|sample| sample.scenario == scenario).collect();
    for peer in peers {
        let own: Vec<&Sample> = all.iter().copied().filter(|sample| sample.peer == *peer).collect();
        let value = |figure: fn(&Sample) -> Option<f64>, digits: usize| {
            show(median(own.iter().filter_map(|sample| figure(sample)).collect()), digits)
        };
        let ratio = |figure: fn(&Sample) -> Option<f64>| show(median(ratios(&all, &own, figure)), 2);
        let errors: u64 = own.iter().map(|sample| sample.errors).sum();
        let row = [
            (*peer).to_owned(),
            value(|s| Some(s.requests_per_second), 0),
            ratio(|s| Some(s.requests_per_second)),
            value(|s| Some(s.p50_ms), 2),
            value(|s| Some(s.p99_ms), 2),
            ratio(|s| Some(s.p99_ms)),
            value(|s| s.cpu_us_per_request, 1),
            ratio(|s| s.cpu_us_per_request),
            value(|s| s.memory_kib.map(|kib| kib as f64 / 1024.0), 1),
            errors.to_string(),
        ];
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
}

/// A figure over the base's in the same round, for each round that has both.
fn ratios(all: &[&Sample], own: &[&Sample], figure: fn(&Sample) -> Option<f64>) -> Vec<f64> {
    own.iter()
        .filter_map(|sample| {
            let base = all.iter().find(|other| other.peer == BASE && other.round == sample.round)?;
            let base = figure(base).filter(|base| *base > 0.0)?;
            Some(figure(sample)? / base)
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn machine() -> Result<String> {
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

    fn sample(peer: &'static str, round: u32, rate: f64, cpu: Option<f64>) -> Sample {
        Sample {
            round,
            scenario: "s",
            peer,
            requests_per_second: rate,
            p50_ms: 1.0,
            p99_ms: 2.0,
            cpu_us_per_request: cpu,
            memory_kib: cpu.map(|_| 2048),
            errors: 1,
            foreign_share: 0.0,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_then_the_median() {
        let samples = [
            sample("nginx", 0, 100.0, Some(10.0)),
            sample("adit", 0, 50.0, Some(30.0)),
            sample("nginx", 1, 10.0, Some(10.0)),
            sample("adit", 1, 9.0, Some(20.0)),
            sample("nginx", 2, 100.0, Some(10.0)),
            sample("adit", 2, 70.0, Some(20.0)),
        ];
        let text = table("s", &samples, &["nginx", "adit"]);
        let adit = text.lines().last().unwrap();
        assert_eq!(adit, "| adit | 50 | 0.70 | 1.00 | 2.00 | 1.00 | 20.0 | 2.00 | 2.0 | 3 |");
    }

    #[test]
    fn a_peer_without_processes_has_no_cost() {
        let samples = [sample("nginx", 0, 100.0, Some(10.0)), sample("direct", 0, 200.0, None)];
        let text = table("s", &samples, &["direct"]);
        assert_eq!(
            text.lines().last().unwrap(),
            "| direct | 200 | 2.00 | 1.00 | 2.00 | 1.00 | – | – | – | 1 |"
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn the_machine_is_described() {
        assert!(machine().unwrap().starts_with("Linux "));
    }
}
