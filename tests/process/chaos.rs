//! What a network, and whoever stops processes, can do to an agent and its gateway under load: every request ends,
//! the tunnel is back as soon as it can be, and the counts are exact afterwards.
//!
//! `cargo xtask chaos` runs these with a network that is gone for five minutes, and takes the time that things take.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::link::Link;
use crate::support::load::{FILE, Load, files, is_at_rest};
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, promised, time, until};
use crate::support::world::{Agent, Gateway, World};

/// How long the network is gone, unless the environment says otherwise: longer than any dial or handshake lasts.
const GONE: Duration = Duration::from_secs(12);
/// A lane that carries something is known to be dead after 4 s, and has the others asked after one.
const NOTICED: Duration = Duration::from_secs(8);
/// The longest pause between two tries in the first minute of an outage, and after it.
const CAPS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];
/// What a handshake may add to a pause.
const GRACE: Duration = Duration::from_secs(3);

/// A tunnel whose agent and gateway meet over a link.
struct Tunnel {
    world: World,
    upstream: Upstream,
    gateway: Gateway,
    agent: Agent,
    link: Link,
    base: [f64; 2],
    load: Load,
}

impl Tunnel {
    fn start() -> Self {
        let (world, upstream) = (World::new(), Upstream::start());
        let gateway = world.gateway(FILE);
        let link = Link::to(gateway.control);
        let agent = world.lone_agent(link.addr, &[("*", &upstream.url())], "");
        until("the agent is connected", SOON, || is_up(&agent, 1.0));
        let base = files(&gateway, &agent);
        let load = Load::start(gateway.public());
        load.goes_on(500);
        Self { world, upstream, gateway, agent, link, base, load }
    }

    fn public(&self) -> SocketAddr {
        self.gateway.public()
    }

    /// The load goes on, ends, and leaves nothing: one session, no stream, no file; status and metrics agree.
    #[track_caller]
    fn ends_exactly(self) {
        self.load.goes_on(500);
        let ends = self.load.stop();
        eprintln!("{ends:?}");
        is_at_rest(&self.gateway, &self.agent, self.base);
        until("status and metrics agree that there is one session", SOON, || {
            let scrape = self.gateway.scrape();
            let said: serde_json::Value = serde_json::from_str(&self.gateway.ask("/status")).unwrap();
            let seen = [
                said["clients"].as_array().map_or(0, Vec::len).to_string(),
                scrape.sum("adit_sessions", &[]).to_string(),
                scrape.sum("http_controlplane_connected_gauge", &[]).to_string(),
                self.agent.scrape().sum("adit_agent_session_up", &[]).to_string(),
            ];
            if seen.iter().all(|count| count == "1") { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        // The gateway keeps idle streams for a while; none outlives the agent's end of it.
        drop((self.world, self.upstream));
    }
}

fn is_up(agent: &Agent, wanted: f64) -> Result<(), String> {
    let up = agent.scrape().sum("adit_agent_session_up", &[]);
    if (up - wanted).abs() < 0.5 { Ok(()) } else { Err(format!("adit_agent_session_up is {up}")) }
}

/// Waits until requests are answered again, and says how long that took.
#[track_caller]
fn is_back(tunnel: &Tunnel, within: Duration) -> Duration {
    let started = Instant::now();
    until("the tunnel is back", promised(within), || {
        crate::support::http::text(tunnel.public(), "load", "/hello")
    });
    started.elapsed()
}

#[test]
fn a_network_that_is_gone_for_long_is_noticed_and_used_as_soon_as_it_is_back() {
    let gone = time("ADIT_CHAOS_GONE", GONE);
    let tunnel = Tunnel::start();
    tunnel.link.falls_silent();
    let began = Instant::now();
    until("the agent knows that the gateway is gone", promised(NOTICED), || is_up(&tunnel.agent, 0.0));
    let noticed = began.elapsed();
    until("the gateway knows that the agent is gone", promised(NOTICED), || {
        let count = tunnel.gateway.scrape().sum("adit_sessions", &[]);
        if count < 0.5 { Ok(()) } else { Err(format!("{count} sessions")) }
    });
    tunnel.load.is_hurt(&["503 no_agent"]);
    let during = files(&tunnel.gateway, &tunnel.agent)[1];
    until("the outage is over", gone + SOON, || {
        let lasted = began.elapsed();
        if lasted >= gone { Ok(()) } else { Err(format!("{lasted:?}")) }
    });
    let after = files(&tunnel.gateway, &tunnel.agent)[1];
    assert!(after <= during + 4.0, "the agent had {during} files when it noticed, and {after} at the end");
    tunnel.link.is_back();
    let cap = CAPS[usize::from(gone > Duration::from_secs(60))];
    let back = is_back(&tunnel, cap + GRACE);
    eprintln!("gone for {gone:?}: noticed after {noticed:?}, back after {back:?}");
    tunnel.ends_exactly();
}

#[test]
fn a_network_that_loses_one_direction_is_noticed_too() {
    let tunnel = Tunnel::start();
    tunnel.link.loses_what_the_agent_sends();
    until("the gateway knows that it does not hear the agent", promised(NOTICED), || {
        let count = tunnel.gateway.scrape().sum("adit_sessions", &[]);
        if count < 0.5 { Ok(()) } else { Err(format!("{count} sessions")) }
    });
    until("the agent knows it too", promised(NOTICED), || is_up(&tunnel.agent, 0.0));
    tunnel.link.is_back();
    let back = is_back(&tunnel, CAPS[0] + GRACE);
    eprintln!("back after {back:?}");
    tunnel.ends_exactly();
}

#[test]
fn an_agent_whose_gateway_has_not_heard_of_its_end_comes_back_at_once() {
    let tunnel = Tunnel::start();
    let forgotten = tunnel.link.forgets_the_agent();
    assert!(forgotten.count() > 0);
    let back = is_back(&tunnel, CAPS[0] + GRACE);
    eprintln!("back after {back:?}");
    tunnel.ends_exactly();
    drop(forgotten);
}

#[test]
fn a_storm_of_resets_and_cuts_costs_only_what_was_under_way() {
    let tunnel = Tunnel::start();
    for round in 0..40 {
        match round % 4 {
            0 => tunnel.link.cuts(),
            _ => tunnel.link.resets(),
        }
        // Some hit a session, some a handshake, some nothing at all.
        std::thread::park_timeout(Duration::from_millis(20 + round * 7));
    }
    let back = is_back(&tunnel, CAPS[0] + GRACE);
    eprintln!("back after {back:?}");
    tunnel.ends_exactly();
}

#[test]
fn a_slow_network_carries_everything() {
    let tunnel = Tunnel::start();
    tunnel.link.delays(Duration::from_millis(30));
    tunnel.load.goes_on(300);
    tunnel.link.delays(Duration::ZERO);
    tunnel.ends_exactly();
}

#[test]
fn a_process_that_is_stopped_is_given_up_and_taken_back_when_it_goes_on() {
    for stops_agent in [true, false] {
        let mut tunnel = Tunnel::start();
        let stopped = if stops_agent { &mut tunnel.agent.process } else { &mut tunnel.gateway.process };
        stopped.signal(Signal::STOP);
        if stops_agent {
            until("the gateway gives the agent up", promised(NOTICED), || {
                let count = tunnel.gateway.scrape().sum("adit_sessions", &[]);
                if count < 0.5 { Ok(()) } else { Err(format!("{count} sessions")) }
            });
        } else {
            // Its clients would not wait until the agent has given up a lane that carries nothing.
            let stopped = Instant::now();
            until("the gateway was stopped for long enough", SOON, || {
                let lasted = stopped.elapsed();
                if lasted > Duration::from_secs(6) { Ok(()) } else { Err(format!("{lasted:?}")) }
            });
        }
        let stopped = if stops_agent { &mut tunnel.agent.process } else { &mut tunnel.gateway.process };
        stopped.signal(Signal::CONT);
        let back = is_back(&tunnel, CAPS[0] + GRACE);
        eprintln!("back after {back:?}");
        tunnel.ends_exactly();
    }
}
