//! The way out through a proxy, as the environment, a flag and a file name it.

use adit_testkit::proxy::{Manner, Proxy};
use tokio::runtime::Runtime;

use crate::support::http;
use crate::support::process::{Process, run};
use crate::support::wait::{SOON, until};
use crate::support::world::{Agent, Gateway, GatewayFile, World};

const PASSWORD: &str = "pr0xy-password";

/// A gateway that is reached under a name which only the proxy resolves.
struct Office {
    world: World,
    gateway: Gateway,
    proxy: Proxy,
    /// Keeps the proxy running.
    _runtime: Runtime,
}

impl Office {
    fn open() -> Self {
        let world = World::new();
        let gateway = world.gateway(GatewayFile::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let proxy = runtime.block_on(Proxy::start(Manner::AsksFor("me", PASSWORD)));
        Self { world, gateway, proxy, _runtime: runtime }
    }

    fn url(&self) -> String {
        format!("wss://gateway.test:{}", self.gateway.control.port())
    }

    fn login(&self, scheme: &str) -> String {
        self.proxy.url(scheme, &format!("me:{PASSWORD}"))
    }

    /// Runs an agent until it is connected, with these arguments and variables.
    #[track_caller]
    fn connects(&self, args: &[&str], variables: &[(&str, &str)]) {
        let before = self.proxy.asked().len();
        let mut command = self.world.adit(args);
        command.env_remove("NO_PROXY").envs(variables.iter().copied());
        let mut process = Process::start("agent", &mut command);
        process.line(&["session opened"]);
        assert_eq!(self.proxy.asked()[before], format!("gateway.test:{}", self.gateway.control.port()));
        assert!(!format!("{}{}", process.stdout(), process.stderr()).contains(PASSWORD), "{process}");
    }
}

#[test]
fn an_agent_and_status_go_through_the_proxy_that_the_environment_names() {
    let office = Office::open();
    let url = office.url();
    let args = ["http", "client", "--url", &url, "--token-file", "token", "--upstream", "http_status:204"];
    for (variable, scheme) in [("HTTPS_PROXY", "http"), ("all_proxy", "socks5h")] {
        office.connects(&args, &[(variable, &office.login(scheme))]);
    }
    let mut status = office.world.adit(&["status", "--url", &url, "--token-file", "token"]);
    let said = run(status.env("https_proxy", office.login("http"))).ok();
    assert!(said.contains("Connected clients:"), "{said}");
    let mut direct = office.world.adit(&["status", "--url", &url, "--token-file", "token"]);
    let said = run(direct.env("HTTPS_PROXY", office.login("http")).env("NO_PROXY", ".test"));
    assert!(said.code == 1 && said.err.contains("cannot connect"), "nobody else resolves it: {said:#?}");
}

#[test]
fn an_agents_file_names_the_proxy_and_where_its_password_is() {
    let office = Office::open();
    office.world.write("proxy-password", PASSWORD);
    let text = format!(
        "gateway: {{url: '{}', proxy: '{}', proxy_password: 'file:proxy-password'}}\ntoken: 'file:token'\n\
         services: [{{upstream: 'http_status:204'}}]\n",
        office.url(),
        office.proxy.url("http", "me"),
    );
    office.world.write("behind.yaml", &text);
    office.connects(&["agent", "-f", "behind.yaml"], &[]);
    let checked = office.world.run(&["agent", "check", "-f", "behind.yaml"]).ok();
    assert!(!checked.contains(PASSWORD), "{checked}");
}

#[test]
fn a_proxy_that_cannot_be_is_refused_at_start_without_its_password() {
    let world = World::new();
    let args = ["http", "client", "--url", "wss://h", "--token-file", "token", "--upstream", "http://x"];
    let url = format!("ftp://me:{PASSWORD}@proxy");
    let of_variable = run(world.adit(&args).env("HTTPS_PROXY", &url));
    let of_flag = run(world.adit(&args).args(["--proxy-url", &url]));
    for (said, name) in [(of_variable, "HTTPS_PROXY"), (of_flag, "--proxy-url")] {
        assert_eq!(said.code, 2, "{said:#?}");
        assert!(said.err.contains(name) && !said.err.contains(PASSWORD), "{said:#?}");
    }
}

#[test]
fn this_machine_is_reached_directly_whatever_the_environment_says() {
    let office = Office::open();
    let Office { world, gateway, .. } = &office;
    let url = format!("wss://{}", gateway.control);
    let args = ["http", "client", "--url", &url, "--token-file", "token", "--upstream", "http_status:204"];
    let mut command = world.adit(&args);
    command.args(["--listen", "127.0.0.1:0"]).env("HTTPS_PROXY", office.login("http"));
    let mut process = Process::start("agent", &mut command);
    process.line(&["session opened"]);
    assert!(office.proxy.asked().is_empty());
    let listen = process.line(&["listening", "purpose=\"metrics\""]);
    let (_, addr) = listen.split_once("addr=").unwrap();
    let agent = Agent { listen: addr.split(' ').next().unwrap().parse().unwrap(), process };
    until("the agent is ready", SOON, || http::text(agent.listen, "agent", "/ready"));
}
