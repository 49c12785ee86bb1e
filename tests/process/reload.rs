//! A configuration that changes while it is in use: taken or refused whole, and nothing open notices.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use adit_testkit::ports;
use rustix::process::Signal;

use crate::support::data;
use crate::support::http::{self, Request};
use crate::support::load::Load;
use crate::support::metrics::Scrape;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, until};
use crate::support::world::{GatewayFile, World, address};

/// Waits until a file with this text is in force.
#[track_caller]
fn in_force(scrape: impl Fn() -> Scrape, text: &str) {
    let digest = data::digest(text.as_bytes()).unwrap();
    let (_len, digest) = digest.split_once(' ').unwrap();
    let label = format!("hash=\"{}\"", &digest[..32]);
    until("the configuration is in force", SOON, || {
        let scrape = scrape();
        let is_whole = scrape.sum("adit_config_last_reload_successful", &[]) == 1.0;
        let is_there = is_whole && scrape.sum("adit_config_info", &[&label]) == 1.0;
        if is_there { Ok(()) } else { Err(format!("{label} is not")) }
    });
}

/// Waits until a file was refused.
#[track_caller]
fn refused(scrape: impl Fn() -> Scrape) {
    until("the configuration is refused", SOON, || {
        let successful = scrape().sum("adit_config_last_reload_successful", &[]);
        if successful == 0.0 { Ok(()) } else { Err("it is not".to_owned()) }
    });
}

/// Puts another file in the place of this one, as editors do.
#[track_caller]
fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, path).unwrap();
}

/// Waits until requests for a host are answered so.
#[track_caller]
fn answers(public: SocketAddr, host: &str, status: u16) {
    until("the host is answered for", SOON, || match http::once(public, &Request::get(host, "/")) {
        Ok(response) if response.status == status => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
}

#[test]
fn a_hundred_changes_of_both_files_under_load_fail_no_request() {
    let (world, upstream) = (World::new(), Upstream::start());
    let mut gateway = world.gateway(GatewayFile { http: None, more: "access: {allow: [127.0.0.0/8]}\n" });
    let mut agent = world.agent(&gateway, &[("*", &upstream.url())], "");
    let (gateway_file, agent_file) = (world.path("gateway.yaml"), world.path("agent.yaml"));
    let (good_gateway, good_agent) =
        (fs::read_to_string(&gateway_file).unwrap(), fs::read_to_string(&agent_file).unwrap());
    let load = Load::start(gateway.public());
    load.goes_on(200);

    for turn in 0..100_u32 {
        let is_wrong = turn % 10 == 9;
        let networks =
            if is_wrong { "127.0.0.0/99".to_owned() } else { format!("127.0.0.0/8, 192.0.2.{turn}") };
        let text = good_gateway.replace("127.0.0.0/8", &networks);
        replace(&gateway_file, &text);
        gateway.process.signal(Signal::HUP);
        if is_wrong {
            refused(|| gateway.scrape());
        } else {
            in_force(|| gateway.scrape(), &text);
        }
        if turn % 10 == 5 {
            // Its session is replaced by one that offers something else besides.
            let host = format!("turn{turn}");
            let text = format!("{good_agent}  - {{host: '{host}', upstream: 'http_status:204'}}\n");
            replace(&agent_file, &text);
            agent.process.signal(Signal::HUP);
            in_force(|| agent.scrape(), &text);
            answers(gateway.public(), &host, 204);
        }
        load.goes_on(5);
    }
    let ends = load.stop();
    assert_eq!(ends.keys().collect::<Vec<_>>(), ["200"], "{ends:?}");
    assert!(
        gateway.process.stderr().contains("access.allow[0]: `127.0.0.0/99`"),
        "the log says what is wrong"
    );
}

#[test]
fn a_download_outlives_the_service_that_it_came_from() {
    let (world, upstream) = (World::new(), Upstream::start());
    let gateway = world.gateway(GatewayFile::default());
    let mut agent = world.agent(&gateway, &[("*", &upstream.url())], "");
    let mut connection = http::Connection::open(gateway.public(), SOON).unwrap();
    connection.send(&Request::get("slow", "/slow")).unwrap();
    let head = connection.head().unwrap();

    let file = world.path("agent.yaml");
    let text = fs::read_to_string(&file).unwrap();
    replace(&file, &text.replace(&upstream.url(), "http_status:204"));
    agent.process.signal(Signal::HUP);
    answers(gateway.public(), "x", 204);
    agent.process.line(&["a newer session has taken the place of this one"]);
    assert!(!agent.process.stderr().contains("the gateway is leaving"), "the gateway stays");
    upstream.release(1);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut connection.within(SOON).body(&head), &mut text).unwrap();
    assert_eq!(text, "first last\n");
}

#[test]
fn a_changed_file_is_noticed_where_kubernetes_mounts_it_and_takes_effect() {
    let world = World::new();
    let (mount, token) = (world.path("mount"), world.path("token"));
    let text = format!(
        "control: {{listen: '127.0.0.1:0'}}\nhttp: [{{listen: '127.0.0.1:0'}}]\n\
         tokens: [{{name: default, token: 'file:{}'}}]\n",
        token.display()
    );
    // As a ConfigMap is mounted: gateway.yaml -> ..data/gateway.yaml, ..data -> ..1.
    fs::create_dir_all(mount.join("..1")).unwrap();
    fs::create_dir_all(mount.join("..2")).unwrap();
    fs::write(mount.join("..1/gateway.yaml"), &text).unwrap();
    fs::write(mount.join("..2/gateway.yaml"), format!("{text}access: {{allow: [192.0.2.1]}}\n")).unwrap();
    symlink("..1", mount.join("..data")).unwrap();
    symlink("..data/gateway.yaml", mount.join("gateway.yaml")).unwrap();
    let mut process = crate::support::process::Process::start(
        "gateway",
        world.adit(&["gateway", "-f"]).arg(mount.join("gateway.yaml")),
    );
    let control = address(&process.line(&["listening", "purpose=\"control\""]));
    let public = address(&process.line(&["listening", "purpose=\"http\""]));
    let _agent = world.lone_agent(control, &[("*", "http_status:204")], "");
    answers(public, "x", 204);

    symlink("..2", mount.join("..new")).unwrap();
    fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    process.line(&["the configuration was read again and is in force", "the file has changed"]);
    answers(public, "x", 403);
}

#[test]
fn keys_that_need_a_restart_are_named_and_the_rest_is_taken() {
    let world = World::new();
    let mut gateway = world.gateway(GatewayFile::default());
    let _agent = world.agent(&gateway, &[("*", "http_status:204")], "");
    let file = world.path("gateway.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let waiting = format!("{text}log: {{format: json}}\n");
    replace(&file, &format!("{waiting}access: {{allow: [192.0.2.1]}}\n"));
    gateway.process.signal(Signal::HUP);
    gateway.process.line(&["take effect only after a restart", "log.format"]);
    answers(gateway.public(), "x", 403);
    // It still waits, which was said; put back, it waits no more, and that is said once as well.
    replace(&file, &waiting);
    gateway.process.signal(Signal::HUP);
    answers(gateway.public(), "x", 204);
    replace(&file, &text);
    gateway.process.signal(Signal::HUP);
    gateway.process.line(&["no key waits for a restart any more"]);
    replace(&file, &format!("{text}# another file, the same keys\n"));
    gateway.process.signal(Signal::HUP);
    in_force(|| gateway.scrape(), &format!("{text}# another file, the same keys\n"));
    let log = gateway.process.stderr();
    let said = |what: &str| log.matches(what).count();
    assert_eq!((said("take effect only after a restart"), said("waits for a restart any more")), (1, 1));
}

#[test]
fn listeners_bounds_and_the_request_log_take_effect_without_a_restart() {
    let world = World::new();
    let mut gateway = world.gateway(GatewayFile::default());
    let mut agent = world.agent(&gateway, &[("*", "http_status:204")], "");
    let file = world.path("gateway.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let log = world.path("requests.log");
    answers(gateway.public(), "x", 204);
    replace(
        &file,
        &format!(
            "{text}limits: {{max_header_bytes: 1KiB}}\nrequest_log: {}\ndrain_timeout: 1s\n",
            log.display()
        ),
    );
    gateway.process.signal(Signal::HUP);
    until("a head is longer than it may be now", SOON, || {
        match http::once(gateway.public(), &Request::get("x", &format!("/{}", "x".repeat(2000)))) {
            Ok(response) if response.status == 414 => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    until("the request log is written", SOON, || match fs::read_to_string(&log) {
        Ok(text) if text.contains("target_too_long") => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    let added = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    replace(&file, &text.replace("'127.0.0.1:0'}]", &format!("'127.0.0.1:0'}}, {{listen: '{added}'}}]")));
    gateway.process.signal(Signal::HUP);
    answers(added, "x", 204);
    answers(gateway.public(), "x", 204);
    assert!(!gateway.process.stderr().contains("only after a restart"));

    // The agent's own listener moves.
    let file = world.path("agent.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let moved = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    replace(&file, &format!("{}drain_timeout: 1s\n", text.replace("'127.0.0.1:0'", &format!("'{moved}'"))));
    agent.process.signal(Signal::HUP);
    let old = std::mem::replace(&mut agent.listen, moved);
    until("the agent answers there", SOON, || http::text(moved, "agent", "/ready"));
    assert!(http::once(old, &Request::get("agent", "/ready")).is_err(), "and not where it was");
    assert!(!agent.process.stderr().contains("only after a restart"));
}

#[test]
fn who_asks_an_agent_for_a_reload_hears_what_became_of_it() {
    let world = World::new();
    let gateway = world.gateway(GatewayFile::default());
    let agent = world.agent(&gateway, &[("a", "http_status:204")], "");
    let file = world.path("agent.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let ask = || http::once(agent.listen, &Request::post("agent", "/-/reload", b"")).unwrap();

    replace(&file, &text.replace("http_status:204", "http_status:9"));
    let refused = ask();
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("services[0].upstream"), "{}", refused.text());
    answers(gateway.public(), "a", 204);
    replace(&file, &text.replace("http_status:204", "http_status:205"));
    assert_eq!((ask().status, ask().status), (200, 200));
    answers(gateway.public(), "a", 205);
    assert_eq!(http::once(agent.listen, &Request::get("agent", "/-/reload")).unwrap().status, 405);
}
