//! What is scraped is what is documented, and Prometheus's own tool has nothing against it.

use std::collections::BTreeSet;
use std::process::Stdio;

use adit_telemetry::families::{COMMON, Described};

use crate::support::http::{self, Connection, Request};
use crate::support::metrics::Scrape;
use crate::support::process::{Process, run};
use crate::support::tools::{self, curl};
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, until};
use crate::support::world::{Agent, Gateway, GatewayFile, World};

/// A tunnel to which everything has happened that any metric counts.
struct Lived {
    world: World,
    gateway: Gateway,
    agent: Agent,
    _upstream: Upstream,
}

const FILE: GatewayFile<'_> =
    GatewayFile { http: None, more: "request_log: stdout\nlimits: {agent_wait: 0s}\n" };

impl Lived {
    fn new() -> Self {
        let (world, upstream) = (World::new(), Upstream::start());
        let url = upstream.url();
        let services = [("hello.example.com", url.as_str())];
        let mut first = world.lasting_gateway(FILE);
        let agent = world.agent(&first, &services, "");
        let ask = |gateway: &Gateway, host| {
            http::once(gateway.public(), &Request::get(host, "/hello")).unwrap().status
        };
        assert_eq!(ask(&first, "hello.example.com"), 200);
        // The agent loses a session with a stream, and opens another one.
        first.process.kill();
        let gateway = world.again(&first, FILE);
        until("the agent is back", SOON, || http::text(gateway.public(), "hello.example.com", "/hello"));
        // The gateway loses a session, refuses a request and a head, and does not believe a token.
        let mut other = world.agent(&gateway, &services, "");
        other.process.kill();
        until("the gateway notices", SOON, || {
            let ended = gateway.scrape().sum("adit_sessions_ended_total", &[]);
            if ended > 0.5 { Ok(()) } else { Err(format!("{ended} sessions ended")) }
        });
        assert_eq!(ask(&gateway, "nobody.example.com"), 404);
        let mut broken = Connection::open(gateway.public(), SOON).unwrap();
        crate::support::upstream::send(broken.writer(), &b"GET / HTTP/1.1\r\nno host\r\n\r\n"[..]).unwrap();
        assert_eq!(broken.response().unwrap().status, 400);
        let metrics = format!("https://{}/metrics", gateway.control);
        run(&mut curl(&["-k", "-H", "Authorization: Bearer wrong", &metrics])).ok();
        Self { world, gateway, agent, _upstream: upstream }
    }
}

/// Compares a scrape with the tables it is documented by, both ways.
#[track_caller]
fn compare(scrape: &Scrape, tables: &[&[Described]]) {
    let live = scrape.families();
    // A gateway without TCP services has no port to count connections of, and nobody administers this one.
    let is_here = |family: &&Described| {
        let is_administered = ["adit_admin_requests_total", "adit_changes_total"].contains(&family.name);
        !is_administered && !family.labels.split(',').any(|label| label == "port")
    };
    let documented: Vec<&Described> = tables.iter().copied().flatten().filter(is_here).collect();
    assert!(live.len() > 15 && documented.len() > 15);
    let names =
        |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect::<BTreeSet<String>>();
    assert_eq!(
        names(&mut live.keys().map(String::as_str)),
        names(&mut documented.iter().map(|family| family.name)),
        "on the left what is live, on the right what is documented"
    );
    for Described { name, kind, labels, help: _ } in documented {
        let family = &live[*name];
        assert_eq!(family.kind, *kind, "{name}");
        let labels = names(&mut labels.split(',').filter(|label| !label.is_empty()));
        assert_eq!(family.labels, labels, "{name}");
        assert!(!family.help.is_empty(), "{name} has no help");
    }
}

#[test]
fn a_gateway_exposes_the_families_that_are_documented_and_no_others() {
    let lived = Lived::new();
    compare(&lived.gateway.scrape(), &[adit_gateway::observe::FAMILIES, COMMON]);
}

#[test]
fn an_agent_exposes_the_families_that_are_documented_and_no_others() {
    let lived = Lived::new();
    compare(&lived.agent.scrape(), &[adit_agent::observe::FAMILIES, COMMON]);
}

/// What `promtool check metrics` finds, and the code it ends with.
fn lint(world: &World, scrape: &Scrape) -> (i32, Vec<String>) {
    let file = world.write("metrics.txt", &scrape.to_string());
    let mut command = tools::command(&tools::find("promtool"));
    command.args(["check", "metrics"]).stdin(Stdio::from(std::fs::File::open(file).unwrap()));
    let mut process = Process::start("promtool", &mut command);
    let code = process.exit_code(SOON);
    (code, process.stderr().lines().chain(process.stdout().lines()).map(str::to_owned).collect())
}

#[test]
fn promtool_has_nothing_against_our_metrics_but_two_names_that_are_kept_for_compatibility() {
    let lived = Lived::new();
    let (code, found) = lint(&lived.world, &lived.agent.scrape());
    assert_eq!((code, found), (0, Vec::new()));
    // The names are the neighbouring tool's, and dashboards are built on them.
    let (_, found) = lint(&lived.world, &lived.gateway.scrape());
    let kept = ["http", "tcp"].map(|mode| {
        format!("{mode}_controlplane_connected_gauge metric name should not include type 'gauge'")
    });
    assert_eq!(found, kept);
}

#[test]
fn a_scrape_in_the_newer_format_is_complete_too() {
    let lived = Lived::new();
    let accept = "Accept: application/openmetrics-text;version=1.0.0";
    let url = format!("http://{}/metrics", lived.agent.listen);
    let said = run(&mut curl(&["-i", "-H", accept, &url])).ok();
    assert!(said.to_lowercase().contains("content-type: application/openmetrics-text"), "{said}");
    assert!(said.ends_with("# EOF\n"), "{said}");
}
