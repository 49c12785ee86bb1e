//! What is put to each peer: the scenarios, their steps, and how a step is measured on a peer that runs.
//! Steps that need a peer of their own are in [`super::fresh`].

use std::time::Duration;

use anyhow::{Result, ensure};

use super::measure::{Bracket, Figures, Used};
use super::owned::pause;
use super::standing::Standing;
use super::{Scale, wrk};
use crate::process::program;

/// Steps that are chosen together.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) steps: &'static [Step],
}

/// One measurement.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) how: How,
}

/// How a step is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum How {
    /// wrk on kept connections.
    Kept { size: u32, connections: u32 },
    /// A fixed rate over kept connections.
    Rate { size: u32, connections: u32, per_second: u32 },
    /// A new connection for each request.
    Close { connections: u32 },
    /// One request after the other, of each size.
    Sweep,
    /// Large bodies.
    Bulk { direction: &'static str, streams: u32 },
    /// A fixed rate beside four large bodies.
    Mixed,
    /// The following start a peer of their own.
    Fresh(Fresh),
}

/// What only a peer that has done nothing else can show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fresh {
    /// How long starting takes, and memory before and after load.
    Footprint,
    /// Memory for connections that do nothing.
    Idle,
    /// How long it takes to be back.
    Recover,
    /// Many agents on one server.
    Agents,
    /// 50 ms between the halves, on a line of this many Mbit/s; 0 for one without a limit.
    Far { megabits: u32 },
}

/// Sizes of a body at which something may change: buffers, frames, segments.
pub(super) const SIZES: &[u32] =
    &[1, 512, 1024, 1400, 4096, 8192, 16_384, 32_768, 51_200, 65_536, 131_072, 262_144, 524_288, 1_048_576];

const fn kept(name: &'static str, size: u32, connections: u32) -> Step {
    Step { name, how: How::Kept { size, connections } }
}

const fn rate(name: &'static str, size: u32, connections: u32, per_second: u32) -> Step {
    Step { name, how: How::Rate { size, connections, per_second } }
}

const fn bulk(name: &'static str, direction: &'static str, streams: u32) -> Step {
    Step { name, how: How::Bulk { direction, streams } }
}

const fn fresh(name: &'static str, what: Fresh) -> Step {
    Step { name, how: How::Fresh(what) }
}

/// All there is, in the order in which it runs.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kept",
        about: "1 KiB over 1, 16, 64 and 256 kept connections",
        steps: &[kept("c1", 1024, 1), kept("c16", 1024, 16), kept("c64", 1024, 64), kept("c256", 1024, 256)],
    },
    Scenario {
        name: "large",
        about: "64 KiB and 1 MiB over 16 kept connections",
        steps: &[kept("64k", 65_536, 16), kept("1m", 1_048_576, 16)],
    },
    Scenario {
        name: "stall",
        about: "one request after the other, from 1 B to 1 MiB",
        steps: &[Step { name: "stall", how: How::Sweep }],
    },
    Scenario { name: "rate", about: "1000 requests/s of 1 KiB", steps: &[rate("rate", 1024, 32, 1000)] },
    Scenario {
        name: "close",
        about: "1 KiB, 16 at once, a new connection each time",
        steps: &[Step { name: "close", how: How::Close { connections: 16 } }],
    },
    Scenario {
        name: "bulk",
        about: "one large body down, one up, four down",
        steps: &[bulk("down", "down", 1), bulk("up", "up", 1), bulk("down4", "down", 4)],
    },
    Scenario {
        name: "scrape",
        about: "667 requests/s of 50 KiB: 10,000 targets every 15 s",
        steps: &[rate("scrape", 51_200, 64, 667)],
    },
    Scenario {
        name: "mixed",
        about: "500 requests/s of 1 KiB beside four large bodies",
        steps: &[Step { name: "mixed", how: How::Mixed }],
    },
    Scenario {
        name: "footprint",
        about: "set-up time; memory at rest and after 256 connections",
        steps: &[fresh("footprint", Fresh::Footprint)],
    },
    Scenario {
        name: "idle",
        about: "memory of connections that do nothing",
        steps: &[fresh("idle", Fresh::Idle)],
    },
    Scenario {
        name: "recover",
        about: "a half is killed and started again",
        steps: &[fresh("recover", Fresh::Recover)],
    },
    Scenario { name: "agents", about: "many agents on one server", steps: &[fresh("agents", Fresh::Agents)] },
    Scenario {
        name: "far",
        about: "50 ms between the halves",
        steps: &[fresh("far", Fresh::Far { megabits: 0 }), fresh("far100", Fresh::Far { megabits: 100 })],
    },
];

/// Figures, and the share of others.
pub(super) type Seen = (Figures, Option<f64>);

/// Measures a step on a peer that runs.
///
/// # Errors
/// When the load cannot run, or not one request is answered.
pub(super) fn measure(how: How, bracket: &Bracket, peer: &Standing, scale: &Scale) -> Result<Seen> {
    let seconds = scale.seconds;
    let patience = Duration::from_secs(u64::from(seconds) + 60);
    let target = peer.target();
    let (addr, host) = (target.addr().to_string(), target.host.as_str());
    let load = |size: u32, connections: u32, pace: &str, seconds: u32| {
        let (path, connections) = (format!("/bytes/{size}"), connections.to_string());
        bracket.tool(["load", &addr, host, &path, &connections, &seconds.to_string(), pace])
    };
    let mut beside = None;
    let mut command = match how {
        How::Kept { size, connections } => {
            let url = format!("http://{addr}/bytes/{size}");
            let mut wrk = program("wrk");
            wrk.args(wrk::args(&url, host, connections, seconds));
            wrk
        }
        How::Rate { size, connections, per_second } => {
            load(size, connections, &per_second.to_string(), seconds + 1)
        }
        How::Close { connections } => load(1024, connections, "close", seconds),
        How::Sweep => {
            let each = f64::from(seconds) * 0.2;
            let mut sweep = bracket.tool(["sweep", &addr, host, &each.to_string()]);
            sweep.args(SIZES.iter().map(u32::to_string));
            sweep
        }
        How::Bulk { direction, streams } => {
            let (bytes, streams) = (scale.bulk_bytes().to_string(), streams.to_string());
            bracket.tool(["bulk", &addr, host, direction, &bytes, &streams])
        }
        How::Mixed => {
            let endless = (64_u64 << 30).to_string();
            let launch = bracket.launch(["bulk", &addr, host, "down", &endless, "4"]);
            beside = Some(launch.start(&std::env::temp_dir().join("adit-bench-beside.log"))?);
            pause(Duration::from_millis(500));
            load(1024, 16, "500", seconds + 1)
        }
        How::Fresh(_) => anyhow::bail!("a fresh step needs a peer of its own"),
    };
    let used = bracket.run(&peer.pids(), beside.as_ref(), &mut command, patience)?;
    let mut figures = match how {
        How::Kept { .. } => wrk::figures(&used.output)?,
        _ => used.figures()?,
    };
    cost(&mut figures, &used)?;
    Ok((figures, Some(used.foreign)))
}

/// Adds what a request or a GiB has cost.
fn cost(figures: &mut Figures, used: &Used) -> Result<()> {
    if let Some(requests) = figures.get("requests").copied() {
        ensure!(requests > 0.0, "not one request was answered");
        figures.insert("cpu_us".into(), used.cpu_seconds * 1e6 / requests);
    }
    if let Some(bytes) = figures.get("bytes").copied() {
        ensure!(bytes > 0.0, "not one byte was moved");
        figures.insert("cpu_s_per_gib".into(), used.cpu_seconds * f64::from(1 << 30) / bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_own_name() {
        let steps: Vec<&str> =
            SCENARIOS.iter().flat_map(|scenario| scenario.steps).map(|step| step.name).collect();
        for (at, step) in steps.iter().enumerate() {
            assert!(!steps[..at].contains(step), "{step} is there twice");
        }
    }

    #[test]
    fn costs_are_per_request_or_per_gib() {
        let used = Used { output: String::new(), cpu_seconds: 0.5, foreign: 0.0 };
        let mut figures = Figures::from([("requests".to_owned(), 1000.0)]);
        cost(&mut figures, &used).unwrap();
        assert!((figures["cpu_us"] - 500.0).abs() < 1e-9);
        let mut figures = Figures::from([("bytes".to_owned(), f64::from(1 << 29))]);
        cost(&mut figures, &used).unwrap();
        assert!((figures["cpu_s_per_gib"] - 1.0).abs() < 1e-9);
        assert!(cost(&mut Figures::from([("requests".to_owned(), 0.0)]), &used).is_err());
    }
}
