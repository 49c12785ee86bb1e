//! Clients that other people wrote, through a whole tunnel: curl, Python's websockets, Node's ws.

use std::io::Read as _;

use crate::support::data::{self, Data};
use crate::support::process::{Process, run};
use crate::support::tools::{self, curl};
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, until};
use crate::support::world::{Agent, Gateway, GatewayFile, World};

/// A gateway with a cleartext and a TLS listener before an upstream of ours and a folder.
struct Tunnel {
    world: World,
    gateway: Gateway,
    _upstream: Upstream,
    _agent: Agent,
}

impl Tunnel {
    fn start() -> Self {
        let (world, upstream) = (World::new(), Upstream::start());
        let http = "http:\n  - {listen: '127.0.0.1:0'}\n  - listen: '127.0.0.1:0'\n    \
                    tls: {auto: {names: [files.test], directory: public-tls}}\n";
        let gateway = world.gateway(GatewayFile { http: Some(http), more: "" });
        std::fs::create_dir(world.path("www")).unwrap();
        world.write("www/digits.txt", "0123456789");
        let files = format!("file:{}", world.path("www").display());
        let agent = world.agent(&gateway, &[("*", &upstream.url()), ("files.test", &files)], "");
        Self { world, gateway, _upstream: upstream, _agent: agent }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.http[0])
    }

    /// curl with these words, to the TLS listener under the name in its certificate.
    fn over_tls(&self, args: &[&str], path: &str) -> String {
        let port = self.gateway.http[1].port();
        let authority = self.world.path("public-tls/ca.crt").display().to_string();
        let resolve = format!("files.test:{port}:127.0.0.1");
        let url = format!("https://files.test:{port}{path}");
        run(curl(&["--cacert", &authority, "--resolve", &resolve]).args(args).arg(url)).ok()
    }
}

#[test]
fn curl_gets_the_same_answer_in_every_version_of_http() {
    let tunnel = Tunnel::start();
    let version = ["-w", " over HTTP/%{http_version}"];
    for (flag, expected) in
        [("--http1.0", "1"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http2", "1.1")]
    {
        let said = run(curl(&version).args([flag, &tunnel.url("/hello")])).ok();
        assert_eq!(said, format!("hello\n over HTTP/{expected}"), "{flag}");
    }
    for (flag, expected) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let said = tunnel.over_tls(&[&version[..], &[flag]].concat(), "/digits.txt");
        assert_eq!(said, format!("0123456789 over HTTP/{expected}"), "{flag}");
    }
    let refused = run(&mut curl(&[&format!("https://{}/", tunnel.gateway.http[1])]));
    assert_eq!(refused.code, 60, "nobody knows this authority: {refused:#?}");
}

#[test]
fn curl_reads_ranges_and_conditions_of_a_served_folder() {
    let tunnel = Tunnel::start();
    let url = tunnel.url("/digits.txt");
    let get = |args: &[&str]| run(curl(&["-i", "-H", "Host: files.test"]).args(args).arg(&url)).ok();
    let part = get(&["-r", "2-4"]);
    assert!(part.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{part}");
    assert!(
        part.to_lowercase().contains("content-range: bytes 2-4/10\r\n") && part.ends_with("\r\n\r\n234"),
        "{part}"
    );
    let last = get(&["-r", "-3"]);
    assert!(last.ends_with("\r\n\r\n789"), "{last}");
    let beyond = get(&["-r", "20-30"]);
    assert!(beyond.starts_with("HTTP/1.1 416 "), "{beyond}");
    let tag = part.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let unchanged = get(&["-H", &format!("If-None-Match: {tag}")]);
    assert!(unchanged.starts_with("HTTP/1.1 304 "), "{unchanged}");
    let head = get(&["-I"]);
    assert!(head.to_lowercase().contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(tunnel.over_tls(&["--http2", "-r", "5-"], "/digits.txt"), "56789");
}

#[test]
fn curl_uploads_after_100_continue_and_without_a_length() {
    let tunnel = Tunnel::start();
    let len = 3_000_000;
    let mut bytes = Vec::new();
    Data::new(len).read_to_end(&mut bytes).unwrap();
    let file = tunnel.world.path("upload");
    std::fs::write(&file, &bytes).unwrap();
    let (file, expected) = (format!("@{}", file.display()), data::digest(bytes.as_slice()).unwrap());
    let url = tunnel.url("/digest");
    let upload =
        ["-v", "-X", "POST", "-H", "Expect: 100-continue", "--expect100-timeout", "30", "--data-binary"];
    let said = run(curl(&upload).args([&file, &url]));
    assert!(said.err.contains("< HTTP/1.1 100 Continue"), "{said:#?}");
    assert_eq!(said.ok(), expected);
    for args in [&["-H", "Transfer-Encoding: chunked"][..], &["--http2-prior-knowledge"], &["-H", "Expect:"]]
    {
        let said = run(curl(args).args(["-X", "POST", "--data-binary", &file, &url]));
        assert_eq!((said.code, &said.out), (0, &expected), "{args:?} {said:#?}");
    }
}

#[test]
fn server_sent_events_arrive_one_by_one_as_they_are_sent() {
    for flag in ["--http1.1", "--http2-prior-knowledge"] {
        // Each run has an upstream of its own, so that no event was released before.
        let upstream = Upstream::start();
        let world = World::new();
        let gateway = world.gateway(GatewayFile::default());
        let _agent = world.agent(&gateway, &[("*", &upstream.url())], "");
        let url = format!("http://{}/events", gateway.public());
        let mut reader = Process::start("curl -N", curl(&["-N", flag]).arg(url));
        for number in 1..=5 {
            upstream.release(1);
            reader.line(&[&format!("data: event {number}")]);
            let later = format!("data: event {}", number + 1);
            assert!(!reader.stdout().contains(&later), "{later} came before it was sent");
        }
        assert_eq!(reader.exit_code(SOON), 0);
    }
}

#[test]
fn websocket_clients_of_other_languages_talk_through_the_tunnel() {
    let world = World::new();
    let mut server = Process::start("websocket server", &mut tools::python("websocket_server.py"));
    let port = server.line(&["listening "]).split(' ').nth(1).unwrap().to_owned();
    let gateway = world.gateway(GatewayFile::default());
    let agent = world.agent(&gateway, &[("*", &format!("http://127.0.0.1:{port}"))], "");
    let url = format!("ws://{}/socket?x=1", gateway.public());
    for (name, mut client) in
        [("python", tools::python("websocket_client.py")), ("node", tools::node("websocket_client.js"))]
    {
        let said = run(client.arg(&url)).ok();
        assert_eq!(said, "text\nbinary\nping\nclosed 4002 as asked\n", "{name}");
    }
    let closed = |code| server.stdout().lines().filter(|line| *line == format!("closed {code}")).count();
    until("the server was told why each client left", SOON, || {
        if closed(4001) == 2 && closed(4002) == 2 { Ok(()) } else { Err(server.stdout()) }
    });
    until("no flow and no stream is left", SOON, || {
        let (flows, streams) =
            (gateway.scrape().sum("adit_flows", &[]), agent.scrape().sum("adit_agent_streams", &[]));
        if flows + streams < 0.5 { Ok(()) } else { Err(format!("{flows} flows, {streams} streams")) }
    });
}
