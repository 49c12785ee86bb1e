//! `kill -9` of each part under load: every request ends, and the tunnel is back as soon as the part is.

use std::time::Instant;

use adit_testkit::ports;

use crate::support::load::{FILE, Load, files, is_at_rest, recovery};
use crate::support::process::Process;
use crate::support::tools;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, until};
use crate::support::world::World;

#[test]
fn requests_end_and_the_tunnel_is_back_when_the_agent_was_killed() {
    let (world, upstream) = (World::new(), Upstream::start());
    let gateway = world.gateway(FILE);
    let url = upstream.url();
    let services = [("*", url.as_str())];
    let mut agent = world.agent(&gateway, &services, "");
    let base = files(&gateway, &agent);
    let load = Load::start(gateway.public());
    load.goes_on(2000);
    agent.process.kill();
    // What it carried is lost at once, or sent again where that is safe; what waits for an agent is refused when it has
    // waited long enough.
    load.is_hurt(&["503 no_agent"]);
    let started = Instant::now();
    let agent = world.lone_agent(gateway.control, &services, "");
    recovery("agent", gateway.public(), started);
    load.goes_on(2000);
    eprintln!("{:?}", load.stop());
    is_at_rest(&gateway, &agent, base);
    assert!((gateway.scrape().sum("http_controlplane_connected_gauge", &[]) - 1.0).abs() < 0.5);
}

#[test]
fn requests_end_and_the_agent_comes_back_by_itself_when_the_gateway_was_killed() {
    let (world, upstream) = (World::new(), Upstream::start());
    let mut gateway = world.lasting_gateway(FILE);
    let mut agent = world.agent(&gateway, &[("*", &upstream.url())], "");
    let base = files(&gateway, &agent);
    let load = Load::start(gateway.public());
    load.goes_on(2000);
    gateway.process.kill();
    load.is_hurt(&["ConnectionRefused"]);
    let started = Instant::now();
    let gateway = world.again(&gateway, FILE);
    recovery("gateway", gateway.public(), started);
    load.goes_on(2000);
    eprintln!("{:?}", load.stop());
    assert!(agent.process.ended().is_none(), "the same agent is to come back");
    is_at_rest(&gateway, &agent, base);
    assert!((agent.scrape().sum("adit_agent_session_up", &[]) - 1.0).abs() < 0.5);
}

#[test]
fn requests_end_and_go_on_when_the_upstream_was_killed() {
    let world = World::new();
    let mut port = 0;
    let start = |port: u16| {
        let mut process = Process::start("upstream", tools::python("upstream.py").arg(port.to_string()));
        process.line_or(&["listening "], &["Address already in use"]).map(|_| process)
    };
    let mut upstream = until("the upstream has a port", SOON, || {
        port = ports::free();
        start(port).ok_or_else(|| format!("{port} is taken"))
    });
    let gateway = world.gateway(FILE);
    let agent = world.agent(&gateway, &[("*", &format!("http://127.0.0.1:{port}"))], "");
    let base = files(&gateway, &agent);
    let load = Load::start(gateway.public());
    load.goes_on(2000);
    upstream.kill();
    load.is_hurt(&["502 upstream_refused"]);
    let started = Instant::now();
    let _upstream =
        until("the upstream is back", SOON, || start(port).ok_or_else(|| "the port is taken".to_owned()));
    recovery("upstream", gateway.public(), started);
    load.goes_on(2000);
    let ends = load.stop();
    eprintln!("{ends:?}");
    // Only the upstream was gone, so whoever was not answered well was told so, unless the answer had begun; of an
    // answer that begins and breaks at one moment nothing may be out yet.
    let is_told =
        |end: &&String| matches!(end.as_str(), "200" | "cut" | "UnexpectedEof") || end.contains(" upstream_");
    assert_eq!(ends.keys().find(|end| !is_told(end)), None, "{ends:?}");
    is_at_rest(&gateway, &agent, base);
}
