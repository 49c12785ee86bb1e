//! `bench`: what Adit costs beside no hop, beside proxies and beside other tunnels, all on this machine's
//! loopback.
//!
//! Every peer stands in front of the same upstream. In each round each step is put to each peer in turn, so that
//! whatever else the machine does hits all of them; ratios are taken within a round, and medians over the
//! rounds. Reading order: [`steps`] says what is measured, [`peers`] against whom, [`measure`] how, [`tables`]
//! what of it is shown.

mod fresh;
mod measure;
mod owned;
mod peers;
mod report;
mod results;
mod standing;
mod steps;
mod tables;
mod tool;
mod usage;
mod wrk;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{self, build_adit, cargo, find, target_dir};
use measure::{Bracket, Sample};
use owned::{Owned, Target};
use peers::{Kind, PEERS, Peer, Programs};
use results::{BASE, Entry, Results};
use standing::{Ground, Standing};
use steps::{How, SCENARIOS, Scenario, Step};

/// Always there: what is possible at all, and what the ratios are to.
const YARDSTICKS: &[&str] = &["direct", BASE];

/// How much is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scale {
    /// For a step.
    seconds: u32,
    rounds: u32,
    bulk_mib: u32,
    idle: u32,
    agents: u32,
}

impl Scale {
    const USUAL: Self = Self { seconds: 2, rounds: 3, bulk_mib: 1024, idle: 5000, agents: 100 };
    const QUICK: Self = Self { seconds: 1, rounds: 1, bulk_mib: 32, idle: 100, agents: 3 };

    /// The same with more time.
    fn longer(&self) -> Self {
        Self { seconds: self.seconds * 10, ..self.clone() }
    }

    fn bulk_bytes(&self) -> u64 {
        u64::from(self.bulk_mib) << 20
    }
}

struct Options {
    /// Those that were named; all that are found if none was.
    peers: Vec<&'static Peer>,
    scenarios: Vec<&'static Scenario>,
    scale: Scale,
    /// The development build, which measures nothing but whether the benchmark itself works.
    is_quick: bool,
    adit: Option<PathBuf>,
    /// A folder with peers' programs, before the PATH.
    bin: Option<PathBuf>,
    json: Option<PathBuf>,
    baseline: Option<PathBuf>,
}

/// The command.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((first, rest)) if first == "tool" => return tool::run(rest),
        Some((first, rest)) if first == "report" => return report_of(rest),
        _ => {}
    }
    let options = parse(args)?;
    for name in ["wrk", "nginx"] {
        ensure!(
            find(name).is_some(),
            "`{name}` is not installed; `cargo xtask setup` installs what Debian has"
        );
    }
    let programs = Programs { folder: options.bin.clone(), adit: adit(&options)? };
    let (peers, missing) = present(&options, &programs)?;
    let folder = target_dir().join(format!("bench/{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let tool = tool_program(&options)?;
    let (upstream, port) = upstream(&tool, &folder)?;
    let bracket = Bracket::new(upstream.pid(), tool)?;
    let ground = Ground { folder: &folder, upstream: port, programs: &programs };
    let mut run = Run { options: &options, bracket, ground, peers, results: Results::default() };
    run.results.missing = missing;
    let outcome = run.all();
    let results = run.results;
    drop(upstream);
    fs::remove_dir_all(&folder).context("cannot remove the benchmark's folder")?;
    outcome?;
    if let Some(file) = &options.json {
        results.write(file)?;
    }
    print!("{}", report::render(&results)?);
    if let Some(file) = &options.baseline {
        for line in results::grown(&results, &Results::read(file)?) {
            println!("warning: {line}");
        }
    }
    if options.is_quick {
        works(&results)?;
    }
    Ok(())
}

/// The tables of results that were kept, their rounds one after the other.
fn report_of(files: &[String]) -> Result<()> {
    ensure!(!files.is_empty(), "`bench report` needs files that --json wrote");
    let mut all = Results::default();
    for file in files {
        all.add(Results::read(Path::new(file))?);
    }
    print!("{}", report::render(&all)?);
    Ok(())
}

/// Whether every step of Adit gave figures: what a quick run is for.
fn works(results: &Results) -> Result<()> {
    let is_ours = |name: &str| PEERS.iter().any(|peer| peer.name == name && peer.kind == Kind::Adit);
    let failed: Vec<String> = results
        .samples
        .iter()
        .filter(|sample| is_ours(&sample.peer))
        .filter_map(|sample| Some(format!("{}, {}: {}", sample.peer, sample.step, sample.error.as_ref()?)))
        .collect();
    ensure!(failed.is_empty(), "steps without figures:\n{}", failed.join("\n"));
    Ok(())
}

fn adit(options: &Options) -> Result<PathBuf> {
    if let Some(adit) = &options.adit {
        return fs::canonicalize(adit).with_context(|| format!("no such file: {}", adit.display()));
    }
    if options.is_quick {
        return build_adit();
    }
    process::run(&mut cargo(&["build", "--release", "-p", "adit"]))?;
    Ok(target_dir().join("release/adit"))
}

/// Where our own tools are: this program, built so that it is not what limits the others.
fn tool_program(options: &Options) -> Result<PathBuf> {
    if options.is_quick || !cfg!(debug_assertions) {
        let own = std::env::current_exe().context("cannot find this program")?;
        // Building the rest may have built this program anew, in the place of the one that runs.
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        return Ok(if own.exists() { own } else { target_dir().join(profile).join("xtask") });
    }
    process::run(&mut cargo(&["build", "--release", "-p", "xtask"]))?;
    Ok(target_dir().join("release/xtask"))
}

/// The peers to measure, and the names of those whose programs are missing.
fn present(options: &Options, programs: &Programs) -> Result<(Vec<&'static Peer>, Vec<String>)> {
    let is_there = |peer: &Peer| peer.needs.iter().all(|program| programs.find(program).is_some());
    if !options.peers.is_empty() {
        for peer in &options.peers {
            ensure!(is_there(peer), "`{}` needs {}; --bin names a folder", peer.name, peer.needs.join(", "));
        }
        return Ok((options.peers.clone(), Vec::new()));
    }
    let (there, missing): (Vec<&Peer>, Vec<&Peer>) = PEERS.iter().partition(|peer| is_there(peer));
    Ok((there, missing.iter().map(|peer| peer.name.to_owned()).collect()))
}

fn upstream(tool: &Path, folder: &Path) -> Result<(Owned, u16)> {
    let [port] = owned::free_ports()?;
    let launch = owned::Launch::new(tool).with(["bench", "tool", "upstream", &format!("127.0.0.1:{port}")]);
    let mut upstream = launch.start(&folder.join("upstream.log"))?;
    let target = Target { port, host: "127.0.0.1".into() };
    target.wait(std::time::Instant::now(), owned::PATIENCE, &mut [&mut upstream])?;
    Ok((upstream, port))
}

/// A run and what it has seen so far.
struct Run<'a> {
    options: &'a Options,
    bracket: Bracket,
    ground: Ground<'a>,
    peers: Vec<&'static Peer>,
    results: Results,
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        let scale = &self.options.scale;
        self.results.machine = report::machine()?;
        self.results.scale = format!(
            "{} rounds of {} s a step, interleaved; medians, ratios within a round. Bulk {} MiB, {} idle \
             connections, {} agents.",
            scale.rounds, scale.seconds, scale.bulk_mib, scale.idle, scale.agents
        );
        let steps: Vec<&'static Step> =
            self.options.scenarios.iter().flat_map(|scenario| scenario.steps).collect();
        let (fresh, standing): (Vec<&Step>, Vec<&Step>) =
            steps.into_iter().partition(|step| matches!(step.how, How::Fresh(_)));
        for peer in self.peers.clone() {
            self.introduce(peer)?;
        }
        for round in 0..scale.rounds {
            if !standing.is_empty() {
                self.standing_steps(round, &standing);
            }
            for step in &fresh {
                self.fresh_step(round, step);
            }
        }
        Ok(())
    }

    /// What the report says of a peer.
    fn introduce(&mut self, peer: &Peer) -> Result<()> {
        let place = self.ground.place(peer, 0)?;
        let plan = (peer.plan)(&place).with_context(|| format!("cannot prepare `{}`", peer.name))?;
        let dir = place.folder.display().to_string();
        let relative =
            place.folder.strip_prefix(process::root()).unwrap_or(&place.folder).display().to_string();
        let commands = plan.server.iter().chain(&plan.client);
        let commands =
            commands.map(|launch| launch.line().replace(&dir, "$DIR").replace(&relative, "$DIR")).collect();
        self.results.peers.push(Entry { name: peer.name.into(), version: plan.version, commands });
        Ok(())
    }

    fn standing_steps(&mut self, round: u32, steps: &[&'static Step]) {
        let mut standing: Vec<(&Peer, Option<Standing>)> =
            self.peers.clone().into_iter().map(|peer| (peer, None)).collect();
        for step in steps {
            for (peer, running) in &mut standing {
                let mut seen = self.on_standing(step, peer, running, &self.options.scale);
                if seen.is_err() && self.options.is_quick {
                    // Nothing is measured, and a second of a busy machine may be too short for a single request.
                    *running = None;
                    seen = self.on_standing(step, peer, running, &self.options.scale.longer());
                }
                if seen.is_err() {
                    // The next step gets a new one.
                    *running = None;
                }
                self.keep(round, step, peer, seen.map(Some));
            }
        }
    }

    fn on_standing(
        &self,
        step: &Step,
        peer: &Peer,
        running: &mut Option<Standing>,
        scale: &Scale,
    ) -> Result<steps::Seen> {
        let standing = match running {
            Some(standing) => standing,
            None => {
                let standing = running.insert(self.ground.start(peer)?);
                // What only the first requests meet is no part of any step.
                let warm = How::Kept { size: 1024, connections: 16 };
                steps::measure(
                    warm,
                    &self.bracket,
                    standing,
                    &Scale { seconds: 1.max(scale.seconds / 10), ..scale.clone() },
                )?;
                standing
            }
        };
        steps::measure(step.how, &self.bracket, standing, scale)
    }

    fn fresh_step(&mut self, round: u32, step: &Step) {
        let How::Fresh(what) = step.how else { return };
        for peer in self.peers.clone() {
            let scale = &self.options.scale;
            let run = |scale: &Scale| fresh::run(what, &self.ground, &self.bracket, peer, scale);
            let seen = match run(scale) {
                Err(_) if self.options.is_quick => run(&scale.longer()),
                seen => seen,
            };
            self.keep(round, step, peer, seen);
        }
    }

    fn keep(&mut self, round: u32, step: &Step, peer: &Peer, seen: Result<Option<steps::Seen>>) {
        let (figures, foreign, error) = match seen {
            Ok(None) => return,
            Ok(Some((figures, foreign))) => (figures, foreign, None),
            Err(error) => (measure::Figures::new(), None, Some(format!("{error:#}"))),
        };
        let short = error.clone().unwrap_or_else(|| {
            let shown = ["per_second", "mib_per_second", "cpu_us", "cpu_s_per_gib", "p99_ms", "server_kib"];
            let shown = shown.iter().filter_map(|name| Some(format!("{name} {:.1}", figures.get(*name)?)));
            shown.collect::<Vec<_>>().join(", ")
        });
        eprintln!("round {}: {}, {}: {short}", round + 1, step.name, peer.name);
        let (step, peer) = (step.name.to_owned(), peer.name.to_owned());
        self.results.samples.push(Sample { round, step, peer, figures, foreign, error });
        if let Some(file) = &self.options.json {
            // A run takes long; what it has seen is kept even if it is broken off.
            if let Err(error) = self.results.write(file) {
                eprintln!("{error:#}");
            }
        }
    }
}

fn parse(args: &[String]) -> Result<Options> {
    let is_quick = args.iter().any(|arg| arg == "--quick");
    let mut options = Options {
        peers: Vec::new(),
        scenarios: Vec::new(),
        scale: if is_quick { Scale::QUICK } else { Scale::USUAL },
        is_quick,
        adit: None,
        bin: None,
        json: None,
        baseline: None,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("`{arg}` needs a value"));
        let number = |text: &String| {
            let number = text.parse::<u32>().ok().filter(|number| *number > 0);
            number.with_context(|| format!("`{text}` is not a number above 0"))
        };
        let scale = &mut options.scale;
        match arg.as_str() {
            "--quick" => {}
            "--secs" => scale.seconds = number(value()?)?,
            "--rounds" => scale.rounds = number(value()?)?,
            "--bulk" => scale.bulk_mib = number(value()?)?,
            "--idle" => scale.idle = number(value()?)?,
            "--agents" => scale.agents = number(value()?)?,
            "--adit" => options.adit = Some(value()?.into()),
            "--bin" => options.bin = Some(absolute(value()?)?),
            "--json" => options.json = Some(absolute(value()?)?),
            "--baseline" => options.baseline = Some(absolute(value()?)?),
            "--scenario" => {
                for name in value()?.split(',') {
                    options.scenarios.push(scenario(name)?);
                }
            }
            "--peer" => {
                for name in value()?.split(',') {
                    add(&mut options.peers, name)?;
                }
            }
            flag if flag.starts_with('-') => bail!("`{flag}` is not an option of bench"),
            name => add(&mut options.peers, name)?,
        }
    }
    if options.scenarios.is_empty() {
        options.scenarios = SCENARIOS.iter().collect();
    }
    if is_quick && options.peers.is_empty() {
        add(&mut options.peers, "adit")?;
        add(&mut options.peers, "adit-tcp")?;
        options.peers.retain(|peer| peer.kind != Kind::Direct);
    }
    Ok(options)
}

fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{path}` is no path"))
}

fn scenario(name: &str) -> Result<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).with_context(|| {
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("`{name}` is no scenario; there are: {}", known.join(", "))
    })
}

/// Adds a peer that was named, and before the first one the yardsticks.
fn add(peers: &mut Vec<&'static Peer>, name: &str) -> Result<()> {
    let yardsticks: &[&str] = if peers.is_empty() { YARDSTICKS } else { &[] };
    for name in yardsticks.iter().chain(&[name]) {
        let Some(peer) = PEERS.iter().find(|peer| peer.name == *name) else {
            let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
            bail!("`{name}` is no peer; there are: {}", known.join(", "));
        };
        if peers.iter().all(|other| other.name != peer.name) {
            peers.push(peer);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &str) -> Result<Options> {
        parse(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn names(options: &Options) -> Vec<&'static str> {
        options.peers.iter().map(|peer| peer.name).collect()
    }

    #[test]
    fn the_yardsticks_are_always_measured() {
        assert_eq!(names(&parsed("adit").unwrap()), ["direct", "nginx", "adit"]);
        assert_eq!(names(&parsed("--peer ssh,nginx bore").unwrap()), ["direct", "nginx", "ssh", "bore"]);
        assert!(names(&parsed("").unwrap()).is_empty(), "every peer that is found");
    }

    #[test]
    fn scales_and_scenarios_are_chosen() {
        let options = parsed("--secs 1 --rounds 2 --scenario bulk,far").unwrap();
        assert_eq!((options.scale.seconds, options.scale.rounds), (1, 2));
        let scenarios: Vec<&str> = options.scenarios.iter().map(|scenario| scenario.name).collect();
        assert_eq!(scenarios, ["bulk", "far"]);
        let quick = parsed("--rounds 2 --quick").unwrap();
        assert_eq!(quick.scale, Scale { rounds: 2, ..Scale::QUICK });
        assert_eq!(names(&quick), ["nginx", "adit", "adit-tcp"]);
    }

    #[test]
    fn what_bench_does_not_know_is_refused() {
        for args in ["--secs", "--secs 0", "--fast", "carrier-pigeon", "--scenario moon", "--peer direct,x"] {
            assert!(parsed(args).is_err(), "{args}");
        }
    }

    #[test]
    fn a_quick_run_fails_when_a_step_of_ours_has_no_figures() {
        let mut results = Results::default();
        let mut sample = results::tests::sample("nginx", "c1", 0, &[]);
        sample.error = Some("gone".into());
        results.samples.push(sample.clone());
        assert!(works(&results).is_ok());
        sample.peer = "adit".into();
        results.samples.push(sample);
        assert!(works(&results).unwrap_err().to_string().contains("adit, c1: gone"));
    }
}
