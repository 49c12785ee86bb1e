//! `bench`: what Adit costs beside no hop at all and beside nginx, all on this machine's loopback.
//!
//! Every peer stands in front of the same upstream (an nginx with two files) for the whole run. In each
//! round each scenario is put to each peer in turn, so that whatever else the machine does hits all of them;
//! ratios are taken within a round, and medians over the rounds.

mod load;
mod owned;
mod peers;
mod report;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{self, cargo, find, target_dir};
use load::{SCENARIOS, Scenario};
use peers::{PEERS, Peer, Place, Started};
use usage::Meter;

/// Always there: what is possible at all, and what the ratios are to.
const YARDSTICKS: &[&str] = &["direct", "nginx"];
const DEFAULT: &[&str] = &["adit"];

struct Options {
    peers: Vec<&'static Peer>,
    seconds: u32,
    rounds: u32,
    adit: Option<PathBuf>,
}

/// One scenario put to one peer once.
#[derive(Debug, Clone)]
struct Sample {
    round: u32,
    scenario: &'static str,
    peer: &'static str,
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// None for a peer without processes of its own.
    cpu_us_per_request: Option<f64>,
    memory_kib: Option<u64>,
    errors: u64,
    /// What share of the machine's processors went to programs that are not part of the comparison.
    foreign_share: f64,
}

/// The command.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    require("wrk", "wrk")?;
    require("nginx", "nginx-light")?;
    for (program, package) in options.peers.iter().flat_map(|peer| peer.needs) {
        require(program, package)?;
    }
    let adit = match &options.adit {
        Some(adit) => fs::canonicalize(adit).with_context(|| format!("no such file: {}", adit.display()))?,
        None => release_adit(&options)?,
    };

    let folder = target_dir().join(format!("bench/{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let upstream = peers::upstream(&folder)?;
    let place = Place { folder: folder.clone(), upstream_port: upstream.port, adit };
    let mut started = Vec::new();
    for peer in &options.peers {
        eprintln!("starting {}", peer.name);
        let peer_started = (peer.start)(&place).with_context(|| format!("`{}` does not start", peer.name))?;
        started.push((*peer, peer_started));
    }
    let samples =
        Run { options: &options, meter: Meter::new()?, upstream: &upstream, started: &started }.samples()?;
    print!("{}", report::render(&options, &samples, &upstream, &started, &folder)?);
    drop(started);
    drop(upstream);
    fs::remove_dir_all(&folder).context("cannot remove the benchmark's folder")
}

fn release_adit(options: &Options) -> Result<PathBuf> {
    let adit = target_dir().join("release/adit");
    if options.peers.iter().any(|peer| peer.name == "adit") {
        process::run(&mut cargo(&["build", "--release", "-p", "adit"]))?;
    }
    Ok(adit)
}

fn require(program: &str, package: &str) -> Result<()> {
    ensure!(
        find(program).is_some(),
        "`{program}` is not installed; `cargo xtask setup` installs what Debian has (package {package})"
    );
    Ok(())
}

/// A run in which every peer answers.
struct Run<'a> {
    options: &'a Options,
    meter: Meter,
    upstream: &'a Started,
    started: &'a [(&'static Peer, Started)],
}

impl Run<'_> {
    fn samples(&self) -> Result<Vec<Sample>> {
        for (peer, running) in self.started {
            eprintln!("warming up {}", peer.name);
            load::run(&SCENARIOS[0], running.port, 1)?;
        }
        let mut samples = Vec::new();
        for round in 0..self.options.rounds {
            for scenario in SCENARIOS {
                for (peer, running) in self.started {
                    let sample = self
                        .sample(round, scenario, peer, running)
                        .with_context(|| format!("`{}` in scenario `{}`", peer.name, scenario.name))?;
                    let rate = sample.requests_per_second;
                    eprintln!("round {}: {}, {}: {rate:.0} requests/s", round + 1, scenario.name, peer.name);
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }

    fn sample(
        &self,
        round: u32,
        scenario: &'static Scenario,
        peer: &'static Peer,
        running: &Started,
    ) -> Result<Sample> {
        let before = self.clock(running)?;
        let load = load::run(scenario, running.port, self.options.seconds)?;
        let after = self.clock(running)?;
        ensure!(load.requests > 0, "not one request was answered");
        let own = after.peer - before.peer;
        let others = (after.machine - before.machine) - own - (after.frame - before.frame);
        let cores = u32::try_from(usage::cores()?).context("too many processors")?;
        let has_processes = !running.processes.is_empty();
        Ok(Sample {
            round,
            scenario: scenario.name,
            peer: peer.name,
            requests_per_second: load.requests_per_second,
            p50_ms: load.p50_ms,
            p99_ms: load.p99_ms,
            cpu_us_per_request: has_processes.then(|| own * 1e6 / load.requests as f64),
            memory_kib: if has_processes { Some(usage::memory_kib(&running.pids())?) } else { None },
            errors: load.errors,
            foreign_share: (others / (f64::from(self.options.seconds) * f64::from(cores))).max(0.0),
        })
    }

    fn clock(&self, peer: &Started) -> Result<Clock> {
        Ok(Clock {
            peer: self.meter.cpu(&peer.pids())?,
            frame: self.meter.cpu(&self.upstream.pids())? + self.meter.waited_for()?,
            machine: self.meter.machine()?,
        })
    }
}

/// Processor seconds used so far.
struct Clock {
    peer: f64,
    /// The upstream and the load generator.
    frame: f64,
    machine: f64,
}

fn parse(args: &[String]) -> Result<Options> {
    let mut names: Vec<&str> = Vec::new();
    let mut options = Options { peers: Vec::new(), seconds: 3, rounds: 3, adit: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("`{arg}` needs a value"));
        let number = |text: &String| {
            let number = text.parse::<u32>().ok().filter(|number| *number > 0);
            number.with_context(|| format!("`{text}` is not a number above 0"))
        };
        match arg.as_str() {
            "--secs" => options.seconds = number(value()?)?,
            "--rounds" => options.rounds = number(value()?)?,
            "--adit" => options.adit = Some(Path::new(value()?).to_owned()),
            flag if flag.starts_with('-') => bail!("`{flag}` is not an option of bench"),
            name => names.push(name),
        }
    }
    let asked: &[&str] = if names.is_empty() { DEFAULT } else { &names };
    for name in YARDSTICKS.iter().chain(asked) {
        let Some(peer) = PEERS.iter().find(|peer| peer.name == *name) else {
            let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
            bail!("`{name}` is no peer; there are: {}", known.join(", "));
        };
        if options.peers.iter().all(|other| other.name != peer.name) {
            options.peers.push(peer);
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<(Vec<&'static str>, u32, u32)> {
        let options = parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())?;
        Ok((options.peers.iter().map(|peer| peer.name).collect(), options.seconds, options.rounds))
    }

    #[test]
    fn the_yardsticks_are_always_measured() {
        assert_eq!(parsed(&[]).unwrap(), (vec!["direct", "nginx", "adit"], 3, 3));
        assert_eq!(
            parsed(&["nginx", "--secs", "1", "--rounds", "2"]).unwrap(),
            (vec!["direct", "nginx"], 1, 2)
        );
    }

    #[test]
    fn what_bench_does_not_know_is_refused() {
        for args in [&["--secs"][..], &["--secs", "0"], &["--quick"], &["carrier-pigeon"]] {
            assert!(parsed(args).is_err(), "{args:?}");
        }
    }
}
