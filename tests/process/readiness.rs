//! Health and readiness, for supervisors and balancers that only know how to ask.

use rustix::process::Signal;

use crate::support::http::{self, Connection, Request};
use crate::support::process::run;
use crate::support::tools::curl;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, until};
use crate::support::world::{GatewayFile, World};

/// Status and text of an unauthenticated request to a control port.
fn anonymous(control: std::net::SocketAddr, path: &str) -> String {
    run(&mut curl(&["-k", "-w", "%{http_code}", &format!("https://{control}{path}")])).ok()
}

#[test]
fn a_gateway_is_healthy_and_ready_for_anybody_who_asks_and_unready_while_it_drains() {
    let (world, service) = (World::new(), Upstream::start());
    let mut gateway = world.gateway(GatewayFile::default());
    assert_eq!(anonymous(gateway.control, "/healthz"), "ok\n200");
    assert!(anonymous(gateway.control, "/ready").starts_with("ready\nlast canary: "));
    let _agent = world.agent(&gateway, &[("*", &service.url())], "");

    let mut slow = Connection::open(gateway.public(), SOON).unwrap();
    slow.send(&Request::get("slow", "/slow")).unwrap();
    let head = slow.head().unwrap();
    gateway.process.signal(Signal::TERM);
    until("the gateway says it is draining", SOON, || match anonymous(gateway.control, "/ready") {
        said if said == "not ready: draining\n503" => Ok(()),
        said => Err(said),
    });
    assert_eq!(anonymous(gateway.control, "/healthz"), "ok\n200");
    service.release(1);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut slow.body(&head), &mut text).unwrap();
    assert_eq!(text, "first last\n");
    assert_eq!(gateway.process.exit_code(SOON), 0);
}

#[test]
fn an_agent_is_ready_only_while_a_session_stands() {
    let world = World::new();
    let mut gateway = world.lasting_gateway(GatewayFile::default());
    let agent = world.agent(&gateway, &[("*", "http_status:204")], "");
    let ask = |path| {
        let response = http::once(agent.listen, &Request::get("agent", path)).unwrap();
        // Behind the first line is how each link stands.
        (response.status, response.text().lines().next().unwrap().to_owned())
    };
    assert_eq!(ask("/healthz"), (200, "ok".to_owned()));
    assert_eq!(ask("/ready"), (200, "ready".to_owned()));
    assert_eq!(ask("/nowhere").0, 404);
    gateway.process.kill();
    let unready = (503, "not ready: no session to the gateway".to_owned());
    let is = |what: &str, expected: &(u16, String)| {
        until(what, SOON, || match ask("/ready") {
            said if said == *expected => Ok(()),
            said => Err(format!("{said:?}")),
        });
    };
    is("the agent notices", &unready);
    assert_eq!(ask("/healthz").0, 200);
    let _gateway = world.again(&gateway, GatewayFile::default());
    is("the agent is back", &(200, "ready".to_owned()));
}

#[test]
fn an_agent_from_flags_says_whether_it_is_ready_where_it_is_told_to_listen() {
    let world = World::new();
    let gateway = world.gateway(GatewayFile::default());
    let url = format!("wss://{}", gateway.control);
    let mut command =
        world.adit(&["http", "client", "--url", &url, "--token-file", "token", "--listen", "127.0.0.1:0"]);
    let mut agent =
        crate::support::process::Process::start("client", command.args(["--upstream", "http_status:204"]));
    let line = agent.line(&["listening", "purpose=\"metrics\""]);
    let (_, rest) = line.split_once("addr=").unwrap();
    let addr = rest.split(' ').next().unwrap().parse().unwrap();
    until("ready", SOON, || http::text(addr, "agent", "/ready"));
    assert_eq!(http::text(addr, "agent", "/healthz"), Ok("ok\n".to_owned()));
    assert!(http::text(addr, "agent", "/metrics").unwrap().contains("adit_agent_session_up 1"));
}
