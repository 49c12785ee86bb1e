//! A gateway whose state directory goes wrong while it runs: traffic goes on, changes are refused with a sentence, nothing
//! is half there, and nothing that was acknowledged is lost.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::support::load::Load;
use crate::support::process::run;
use crate::support::tools;
use crate::support::upstream::Upstream;
use crate::support::world::{Gateway, GatewayFile, World};

const SECRET: &str = "the-secret-of-an-administrator";
const FILE: GatewayFile<'_> = GatewayFile {
    http: None,
    more: "tokens: [{name: default, token: 'file:token'}, {name: ops, token: 'file:ops.token', admin: true, limits: {}}]\n\
           limits: {agent_wait: 500ms}\n",
};
/// Bytes that a file of the gateway may have: enough to start, and for some changes.
const LITTLE: u64 = 256 << 10;

/// The status of a change, and what was said of it.
fn change(gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("https://{}{path}", gateway.control);
    let (header, body) = (format!("Authorization: Bearer {SECRET}"), body.to_string());
    let typed = "Content-Type: application/json";
    let mut curl =
        tools::curl(&["-ks", "-H", &header, "-H", typed, "-w", "\n%{http_code}", "-d", &body, &url]);
    let said = run(&mut curl).ok();
    let (text, status) = said.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(text).unwrap())
}

fn services(gateway: &Gateway) -> usize {
    let url = format!("https://{}/v1/services?limit=1000", gateway.control);
    let header = format!("Authorization: Bearer {SECRET}");
    let said: Value =
        serde_json::from_str(&run(&mut tools::curl(&["-ks", "-H", &header, &url])).ok()).unwrap();
    said["items"].as_array().unwrap().len()
}

/// Ten services at once: all of them or none.
fn ten(round: usize) -> Value {
    let all: Vec<Value> =
        (0..10).map(|one| json!({ "kind": "service", "name": format!("s{round}-{one}") })).collect();
    json!({ "resources": all })
}

#[track_caller]
fn is_refused((status, said): &(u16, Value), why: &str) {
    let error = &said["error"];
    assert_eq!(*status, 503, "{said}");
    assert!(error["message"].as_str().unwrap().contains(why), "{said}");
    assert!(error["next"].as_str().is_some_and(|next| !next.is_empty()), "{said}");
}

#[test]
fn without_its_state_directory_a_gateway_carries_on_refuses_changes_and_takes_them_when_it_is_back() {
    let (world, upstream) = (World::new(), Upstream::start());
    world.write("ops.token", SECRET);
    let mut gateway = world.gateway(FILE);
    let _agent = world.agent(&gateway, &[("*", &upstream.url())], "");
    let load = Load::start(gateway.public());
    load.goes_on(100);
    assert_eq!(change(&gateway, "/v1/apply", &ten(0)).0, 200);
    fs::rename(world.path("state"), world.path("elsewhere")).unwrap();
    is_refused(&change(&gateway, "/v1/apply", &ten(1)), "was removed or replaced");
    assert_eq!(services(&gateway), 10, "nothing of it is there");
    load.goes_on(100);
    fs::rename(world.path("elsewhere"), world.path("state")).unwrap();
    assert_eq!(change(&gateway, "/v1/apply", &ten(2)).0, 200);
    load.goes_on(100);
    let ends = load.stop();
    assert!(ends.keys().all(|end| end == "200"), "{ends:?}");
    gateway.process.kill();
    assert_eq!(services(&world.gateway(FILE)), 20, "what was acknowledged is there, and nothing else");
}

#[test]
fn on_a_disk_without_room_a_gateway_carries_on_refuses_changes_and_takes_them_when_there_is_room() {
    let (world, upstream) = (World::new(), Upstream::start());
    world.write("ops.token", SECRET);
    // A limit on the size of files is a full disk that needs no privilege. It fails a write, and does not end the process.
    let mut gateway = world.gateway_after(&format!("trap '' XFSZ; ulimit -S -f {}", LITTLE / 1024), FILE);
    let _agent = world.agent(&gateway, &[("*", &upstream.url())], "");
    let load = Load::start(gateway.public());
    load.goes_on(100);
    let mut taken = 0;
    let refused = loop {
        match change(&gateway, "/v1/apply", &ten(taken)) {
            (200, _) => taken += 1,
            refused => break refused,
        }
        assert!(taken < 1000, "a file of {LITTLE} bytes cannot hold all that");
    };
    is_refused(&refused, "");
    assert_eq!(services(&gateway), 10 * taken, "nothing of what was refused is there");
    load.goes_on(100);
    make_room(&gateway);
    assert_eq!(change(&gateway, "/v1/apply", &ten(taken)).0, 200);
    let ends = load.stop();
    assert!(ends.keys().all(|end| end == "200"), "{ends:?}");
    gateway.process.kill();
    let again = world.gateway(FILE);
    assert_eq!(services(&again), 10 * (taken + 1), "what was acknowledged is there, and nothing else");
}

fn make_room(gateway: &Gateway) {
    let pid = Pid::from_raw(i32::try_from(gateway.process.pid()).unwrap()).unwrap();
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
}
