//! `adit tcp server` and `adit tcp client` as people type them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use adit_testkit::ports::free;
use rustix::process::Signal;

use crate::support::process::Process;
use crate::support::wait::{SOON, until};
use crate::support::world::World;

/// A server that sends back what it is sent, for as long as the test runs.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut tcp = tcp;
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = tcp.read(&mut buffer) {
                    if tcp.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// `adit tcp server`, and its control port.
fn server(world: &World, more: &[&str]) -> (Process, String) {
    let line = ["tcp", "server", "--token-file=token", "--control-addr=127.0.0.1", "--control-port=0"];
    let mut command = world.adit(&line);
    let mut process = Process::start("server", command.arg("--data-addr=127.0.0.1").args(more));
    let told = process.line(&["listening", "purpose=\"control\""]);
    let (_, rest) = told.split_once("addr=").unwrap();
    (process, format!("wss://{}", rest.split(' ').next().unwrap()))
}

fn client(world: &World, url: &str, more: &[&str]) -> Process {
    let mut command = world.adit(&["tcp", "client", "--token-file=token", "--url", url]);
    Process::start("client", command.args(more))
}

fn connect(port: u16) -> TcpStream {
    until("the port is open", SOON, || {
        TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
    })
}

/// Sends this, and the end, and returns what comes back.
fn exchange(mut tcp: TcpStream, sent: &str) -> String {
    tcp.set_read_timeout(Some(SOON)).unwrap();
    tcp.write_all(sent.as_bytes()).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    tcp.read_to_string(&mut back).unwrap();
    back
}

#[test]
fn two_commands_make_a_tcp_tunnel_and_status_shows_its_upstreams() {
    let (world, echo) = (World::new(), echo());
    let (_server, url) = server(&world, &[]);
    let (one, other) = (free(), free());
    let pair = format!("{one}=localhost:{}", echo.port());
    let ports = other.to_string();
    let mut agent = client(&world, &url, &["--upstream", &pair, "--upstream=127.0.0.1", "--ports", &ports]);
    agent.line(&["session opened"]);
    assert_eq!(exchange(connect(one), "hello"), "hello");

    let status = world.run(&["status", "--token-file=token", "--url", &url]).ok();
    let (_, block) = status.split_once('\n').unwrap();
    assert!(block.starts_with("Hostname: ") && block.contains("\nMode: tcp\n"), "{status}");
    let upstreams = format!("{one}=localhost:{}, 127.0.0.1:{other}\n", echo.port());
    assert!(status.ends_with(&upstreams), "{status}");
    let json = world.run(&["status", "--token-file=token", "--url", &url, "-o", "json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["info"]["mode"], "tcp");
    assert_eq!(json["clients"][0]["upstreams"][1], format!("127.0.0.1:{other}"));
}

#[test]
fn an_agent_that_is_told_to_end_lets_its_open_connection_finish_and_frees_the_port() {
    let (world, echo) = (World::new(), echo());
    let (_server, url) = server(&world, &[]);
    let port = free();
    let pair = format!("{port}={echo}");
    let mut agent = client(&world, &url, &["--upstream", &pair, "--drain-timeout=20s"]);
    let mut open = connect(port);
    open.write_all(b"a").unwrap();
    open.read_exact(&mut [0]).unwrap();
    agent.signal(Signal::TERM);
    agent.line(&["draining"]);
    until("the port is closed", SOON, || {
        TcpStream::connect(("127.0.0.1", port)).map_or(Ok(()), |_| Err("it is open".to_owned()))
    });
    assert!(agent.ended().is_none(), "it did not wait for the connection");
    assert_eq!(exchange(open, "rest"), "rest");
    assert_eq!(agent.exit_code(SOON), 0);
}

#[test]
fn a_port_that_is_not_allowed_is_refused_in_the_words_of_the_gateway() {
    let world = World::new();
    let allowed = free().to_string();
    let (_server, url) = server(&world, &["--ports", &allowed]);
    let mut agent = client(&world, &url, &["--upstream=127.0.0.1", "--ports=20000-20001"]);
    agent.line(&["the gateway refuses this agent", "not among those that this gateway allows"]);
}

#[test]
fn local_leads_to_the_gateways_side_where_that_is_permitted() {
    let (world, echo) = (World::new(), echo());
    let local = free();
    let forward = format!("--local={local}:{echo}");
    let (_server, url) = server(&world, &["--client-forwarding"]);
    let mut agent = client(&world, &url, &[&forward]);
    agent.line(&["session opened"]);
    assert_eq!(exchange(connect(local), "hello"), "hello");
    drop(agent);

    let (_server, url) = server(&world, &[]);
    let mut agent = client(&world, &url, &[&forward]);
    agent.line(&["the gateway refuses this agent", "--client-forwarding"]);
}

#[test]
fn what_runs_it_for_good_is_printed_without_the_token() {
    let world = World::new();
    let line = ["--token-file=token", "--generate=k8s_yaml", "--ports=5432,8000-8001"];
    let objects = world.run(&[&["tcp", "server"][..], &line].concat()).ok();
    for expected in ["\"--ports=8000-8001\"", "name: tcp-5432", "containerPort: 8001"] {
        assert!(objects.contains(expected), "{expected}: {objects}");
    }
    let line = ["--token-file=token", "--generate=systemd", "--url=wss://h", "--upstream=db", "-p5432"];
    let unit = world.run(&[&["tcp", "client"][..], &line].concat()).ok();
    assert!(unit.contains(" tcp client ") && unit.contains("--upstream=5432=db:5432"), "{unit}");
}
