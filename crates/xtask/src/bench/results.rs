//! What a run has seen, as it is kept in a file, and the arithmetic over rounds.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::measure::Sample;

/// What every ratio is to.
pub(super) const BASE: &str = "nginx";

/// One run, or several that were added up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) machine: String,
    /// What was asked for: seconds a step, and so on.
    pub(super) scale: String,
    pub(super) peers: Vec<Entry>,
    /// Peers whose programs were not found.
    pub(super) missing: Vec<String>,
    pub(super) samples: Vec<Sample>,
}

/// A peer that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) version: String,
    /// How it is started, with the run's folder left out.
    pub(super) commands: Vec<String>,
}

impl Results {
    /// # Errors
    /// When the file cannot be read, or was not written by [`Results::write`].
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no result of bench", file.display()))
    }

    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot encode the results")?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    /// Adds the rounds of another run behind those that are there.
    pub(super) fn add(&mut self, other: Self) {
        let rounds = self.samples.iter().map(|sample| sample.round + 1).max().unwrap_or(0);
        self.samples.extend(
            other.samples.into_iter().map(|sample| Sample { round: sample.round + rounds, ..sample }),
        );
        for entry in other.peers {
            if self.peers.iter().all(|known| known.name != entry.name) {
                self.peers.push(entry);
            }
        }
        self.missing.retain(|name| self.peers.iter().all(|entry| entry.name != *name));
        if self.machine.is_empty() {
            (self.machine, self.scale, self.missing) = (other.machine, other.scale, other.missing);
        }
    }

    fn all<'a>(&'a self, peer: &'a str, step: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.peer == peer && sample.step == step)
    }

    /// A figure of each round.
    pub(super) fn values(&self, peer: &str, step: &str, figure: &str) -> Vec<f64> {
        self.all(peer, step).filter_map(|sample| sample.figures.get(figure).copied()).collect()
    }

    pub(super) fn median(&self, peer: &str, step: &str, figure: &str) -> Option<f64> {
        median(self.values(peer, step, figure))
    }

    /// The median of what `with` makes of the figure and another peer's in the same round.
    pub(super) fn beside(
        &self,
        [peer, other]: [&str; 2],
        step: &str,
        figure: &str,
        with: fn(f64, f64) -> f64,
    ) -> Option<f64> {
        let pairs = self.all(peer, step).filter_map(|sample| {
            let twin = self.all(other, step).find(|twin| twin.round == sample.round)?;
            Some(with(*sample.figures.get(figure)?, *twin.figures.get(figure)?))
        });
        median(pairs.filter(|value| value.is_finite()).collect())
    }

    /// The figure as a part of the other peer's in the same round.
    pub(super) fn ratio(&self, peers: [&str; 2], step: &str, figure: &str) -> Option<f64> {
        self.beside(peers, step, figure, |own, base| own / base)
    }

    /// How far the rounds lie apart: the range as a part of the median.
    pub(super) fn spread(&self, peer: &str, step: &str, figure: &str) -> Option<f64> {
        let values = self.values(peer, step, figure);
        if values.len() < 2 {
            return None;
        }
        let highest = values.iter().copied().fold(f64::MIN, f64::max);
        let lowest = values.iter().copied().fold(f64::MAX, f64::min);
        median(values).filter(|median| *median > 0.0).map(|median| (highest - lowest) / median)
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

/// What must not grow: what a request, a GiB, a stream and an agent cost.
const COSTS: &[(&str, &str)] = &[
    ("c64", "cpu_us"),
    ("c256", "cpu_us"),
    ("64k", "cpu_us"),
    ("close", "cpu_us"),
    ("scrape", "cpu_us"),
    ("down", "cpu_s_per_gib"),
    ("up", "cpu_s_per_gib"),
    ("idle", "server_kib"),
    ("idle", "client_kib"),
    ("agents", "server_kib"),
    ("footprint", "loaded_anonymous_mib"),
];

/// Growth below this is noise, as a part and as an amount.
const GROWTH: f64 = 1.1;
const AMOUNT: f64 = 0.1;

/// Costs of Adit that have grown since, one line each. Processor time is compared as a part of the base's in
/// the same run, so that another machine, or a busy one, does not look like a change.
pub(super) fn grown(now: &Results, then: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    for peer in ["adit", "adit-tcp"] {
        for (step, figure) in COSTS {
            let read = |results: &Results| {
                if figure.starts_with("cpu") {
                    results.ratio([peer, BASE], step, figure)
                } else {
                    results.median(peer, step, figure)
                }
            };
            let (Some(now), Some(then)) = (read(now), read(then)) else { continue };
            if now > then * GROWTH && now > then + AMOUNT {
                lines.push(format!("{peer}, {step}: {figure} grew from {then:.2} to {now:.2}"));
            }
        }
    }
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::measure::Figures;

    pub(in crate::bench) fn sample(peer: &str, step: &str, round: u32, figures: &[(&str, f64)]) -> Sample {
        let figures: Figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Sample { round, step: step.into(), peer: peer.into(), figures, foreign: Some(0.1), error: None }
    }

    fn results(samples: Vec<Sample>) -> Results {
        Results { samples, ..Results::default() }
    }

    fn cpu(peer: &str, round: u32, micros: f64) -> Sample {
        sample(peer, "c64", round, &[("cpu_us", micros)])
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_then_the_median() {
        let results = results(vec![
            cpu("nginx", 0, 100.0),
            cpu("adit", 0, 50.0),
            cpu("nginx", 1, 10.0),
            cpu("adit", 1, 9.0),
            cpu("nginx", 2, 100.0),
            cpu("adit", 2, 70.0),
            // A round that the base has not.
            cpu("adit", 3, 1000.0),
        ]);
        assert_eq!(results.ratio(["adit", BASE], "c64", "cpu_us"), Some(0.7));
        assert_eq!(results.median("adit", "c64", "cpu_us"), Some(60.0));
        assert_eq!(results.ratio(["adit", BASE], "c64", "p99_ms"), None);
        assert_eq!(results.spread("nginx", "c64", "cpu_us"), Some(0.9));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn rounds_of_another_run_come_after() {
        let mut all = results(vec![cpu("nginx", 0, 1.0), cpu("nginx", 1, 1.0)]);
        all.add(results(vec![cpu("nginx", 0, 4.0)]));
        assert_eq!(all.samples.iter().map(|sample| sample.round).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn growth_is_told_only_when_it_is_more_than_noise() {
        let then = results(vec![cpu("nginx", 0, 10.0), cpu("adit", 0, 20.0)]);
        let slower_machine = results(vec![cpu("nginx", 0, 20.0), cpu("adit", 0, 40.0)]);
        let grown_now = results(vec![cpu("nginx", 0, 10.0), cpu("adit", 0, 25.0)]);
        assert_eq!(grown(&slower_machine, &then), Vec::<String>::new());
        assert_eq!(grown(&grown_now, &then), ["adit, c64: cpu_us grew from 2.00 to 2.50"]);
    }

    #[test]
    fn results_survive_their_file() {
        let file = std::env::temp_dir().join(format!("xtask-results-{}", std::process::id()));
        let all = results(vec![cpu("nginx", 0, 1.5)]);
        all.write(&file).unwrap();
        let read = Results::read(&file);
        fs::write(&file, "nonsense").unwrap();
        let wrong = Results::read(&file);
        fs::remove_file(&file).unwrap();
        assert_eq!(read.unwrap(), all);
        assert!(wrong.is_err());
    }
}
