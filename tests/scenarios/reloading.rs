//! What of a gateway's configuration changes while it runs: all of it or nothing, and what is open goes on.

use std::net::SocketAddr;

use adit_testkit::gateway::StartError;
use adit_testkit::gateway::config::{HttpListener, Tls};
use adit_testkit::ports::free;
use adit_testkit::tcp::Tcp;
use adit_testkit::{AgentPlan, Signal, Wire, World, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::drain::half;

fn listener(port: u16) -> HttpListener {
    HttpListener { listen: ([127, 0, 0, 1], port).into(), tls: None, lb_proxy_protocol: false }
}

async fn refuses(address: SocketAddr) {
    until("no new connection is taken", || async {
        match TcpStream::connect(address).await {
            Err(_refused) => Ok(()),
            Ok(tcp) => Err(tcp),
        }
    })
    .await;
}

#[tokio::test]
async fn listeners_come_and_go_and_what_is_open_goes_on() {
    let go = Signal::default();
    let upstream = half(&go).await;
    let mut world =
        World::new().offer("a.example", &upstream).offer("b.example", "http_status:204").run().await;
    let (old, new) = (world.http(), SocketAddr::from(([127, 0, 0, 1], free())));
    let mut kept = Wire::tls(world.https(), &adit_testkit::certificate::credulous(&[b"http/1.1"])).await;
    assert_eq!(kept.get("b.example", "/").await.status(), 204);
    let mut open = world.wire().await;
    open.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(open.head().await.unwrap().status(), 200);
    let mut idle = world.wire().await;
    assert_eq!(idle.get("b.example", "/").await.status(), 204);

    world.reload(|config| config.http.push(listener(new.port()))).unwrap();
    assert_eq!(Wire::tcp(new).await.get("b.example", "/").await.status(), 204);
    // Before it goes: the first one is the cleartext one.
    world.reload(|config| drop(config.http.remove(0))).unwrap();
    idle.ended().await;
    refuses(old).await;
    assert_eq!(world.running().http_addrs(), [world.https(), new]);
    go.give();
    assert_eq!(open.take(8).await, b"halfrest");
    open.ended().await;
    assert_eq!(kept.get("b.example", "/").await.status(), 204, "another listener's connection");
    assert_eq!(Wire::tcp(new).await.get("b.example", "/").await.status(), 204);
    drop(kept);
    world.finish().await;
}

#[tokio::test]
async fn a_listener_that_cannot_be_had_refuses_everything() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::new().offer("a.example", "http_status:204").run().await;
    let added = free();
    let refused = world.reload(|config| {
        config.http.remove(0);
        config.http.push(listener(added));
        config.http.push(listener(taken.local_addr().unwrap().port()));
        config.allow = vec!["192.0.2.0/24".parse().unwrap()];
        config.limits.max_headers = 1;
    });
    assert!(matches!(refused, Err(StartError::Bind { .. })), "{refused:?}");
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    refuses(([127, 0, 0, 1], added).into()).await;
    let refused = world.reload(|config| {
        let missing = || "/nowhere/at.all".into();
        config
            .http
            .push(HttpListener { tls: Some(Tls::Files { cert: missing(), key: missing() }), ..listener(0) });
    });
    assert!(matches!(refused, Err(StartError::Tls { .. })), "{refused:?}");
    world.finish().await;
}

#[tokio::test]
async fn a_listener_that_stays_may_take_another_certificate_or_a_balancer() {
    let mut world = World::new().offer("a.example", "http_status:204").run().await;
    world
        .reload(|config| config.http[0].tls = Some(Tls::Auto { names: Vec::new(), directory: None }))
        .unwrap();
    let config = adit_testkit::certificate::credulous(&[b"http/1.1"]);
    assert_eq!(Wire::tls(world.http(), &config).await.get("a.example", "/").await.status(), 204);
    world
        .reload(|config| {
            config.http[0].tls = None;
            config.http[0].lb_proxy_protocol = true;
            config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            config.allow = vec!["192.0.2.0/24".parse().unwrap()];
        })
        .unwrap();
    for (client, status) in [("192.0.2.9", 204), ("198.51.100.9", 403)] {
        let mut wire = world.wire().await;
        wire.send(format!("PROXY TCP4 {client} 192.0.2.1 1000 80\r\n")).await;
        assert_eq!(wire.get("a.example", "/").await.status(), status, "{client}");
    }
    world.finish().await;
}

#[tokio::test]
async fn bounds_and_the_request_log_change_for_what_comes() {
    let mut world = World::new().offer("a.example", "http_status:204").run().await;
    let mut standing = world.wire().await;
    let request = "GET / HTTP/1.1\r\nhost: a.example\r\na: 1\r\nb: 2\r\n\r\n";
    let ask = async |wire: &mut Wire| {
        wire.send(request).await;
        wire.reply().await.status()
    };
    assert_eq!(ask(&mut standing).await, 204);
    let mut log = None;
    world
        .reload(|config| {
            config.limits.max_headers = 2;
            config.limits.max_sessions = 1;
            log = config.request_log.take();
        })
        .unwrap();
    assert_eq!(ask(&mut standing).await, 204, "it goes by what it began with");
    assert_eq!(ask(&mut world.wire().await).await, 431);
    let agent = world.start_agent(&AgentPlan::new().offer("b.example", "http_status:204")).await;
    let failed = within("the refusal", agent.failed()).await;
    assert!(failed.contains("holds 1 sessions already"), "{failed}");
    drop(agent);
    world
        .reload(|config| {
            config.limits.max_headers = 100;
            config.request_log = log;
        })
        .unwrap();
    assert_eq!(ask(&mut world.wire().await).await, 204);
    let lines = world.request_log(2).await;
    assert_eq!(lines.len(), 2, "nothing while it was off: {lines:#?}");
    drop(standing);
    world.finish().await;
}

#[tokio::test]
async fn fewer_connections_may_be_allowed_than_there_are() {
    let mut world = World::new().offer("a.example", "http_status:204").run().await;
    let (mut one, mut two) = (world.wire().await, world.wire().await);
    for wire in [&mut one, &mut two] {
        assert_eq!(wire.get("a.example", "/").await.status(), 204);
    }
    world.reload(|config| config.limits.max_connections = 1).unwrap();
    for wire in [&mut one, &mut two] {
        assert_eq!(wire.get("a.example", "/").await.status(), 204);
    }
    world.reload(|config| config.limits.max_connections = 100).unwrap();
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    drop((one, two));
    world.finish().await;
}

#[tokio::test]
async fn a_port_that_is_not_allowed_any_more_is_let_go_and_its_connections_go_on() {
    let echo = Tcp::echo().await;
    let port = free();
    let mut world =
        World::new().offer(&format!("tcp:{port}"), &echo).offer("a.example", "http_status:204").run().await;
    let mut client = within("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap();
    let echoed = async |client: &mut TcpStream| {
        client.write_all(b"a").await.unwrap();
        within("the echo", client.read_exact(&mut [0])).await.unwrap();
    };
    echoed(&mut client).await;
    world.reload(|config| config.tcp.as_mut().unwrap().ports = vec![1..=1]).unwrap();
    refuses(([127, 0, 0, 1], port).into()).await;
    echoed(&mut client).await;
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    world.reload(|config| config.tcp = None).unwrap();
    echoed(&mut client).await;
    world
        .reload(|config| {
            config.tcp = Some(adit_testkit::gateway::config::TcpServices {
                listen: [127, 0, 0, 1].into(),
                ports: Vec::new(),
                proxy_protocol: None,
                lb_proxy_protocol: false,
            });
        })
        .unwrap();
    let mut again =
        until("the port is bound again", || async { TcpStream::connect(("127.0.0.1", port)).await }).await;
    echoed(&mut again).await;
    drop((client, again));
    world.finish().await;
}

#[tokio::test]
async fn an_agent_with_one_port_keeps_its_connections_when_that_is_not_allowed_any_more() {
    let echo = Tcp::echo().await;
    let port = free();
    let mut world = World::new().offer(&format!("tcp:{port}"), &echo).run().await;
    let mut client = within("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap();
    let echoed = async |client: &mut TcpStream| {
        client.write_all(b"a").await.unwrap();
        within("the echo", client.read_exact(&mut [0])).await.unwrap();
    };
    echoed(&mut client).await;
    world.reload(|config| config.tcp.as_mut().unwrap().ports = vec![1..=1]).unwrap();
    refuses(([127, 0, 0, 1], port).into()).await;
    // Every policy is asked again, and the session still stands.
    world.reload(|config| config.allow = vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
    echoed(&mut client).await;
    let log = world.log();
    assert!(log.iter().any(|line| line.contains("do not allow it any more")), "{log:#?}");
    world.reload(|config| config.tcp.as_mut().unwrap().ports = Vec::new()).unwrap();
    let mut again =
        until("the port is bound again", || async { TcpStream::connect(("127.0.0.1", port)).await }).await;
    echoed(&mut again).await;
    echoed(&mut client).await;
    world.sum_becomes("adit_sessions_opened_total", &[], 1).await;
    drop((client, again));
    world.finish().await;
}

#[tokio::test]
async fn an_agent_that_comes_again_keeps_its_hosts_when_its_port_is_not_allowed_any_more() {
    let echo = Tcp::echo().await;
    let port = free();
    let offers =
        || AgentPlan::new().offer(&format!("tcp:{port}"), &echo).offer("a.example", "http_status:204");
    let mut world = World::new().run().await;
    let first = world.join(offers()).await;
    world.reload(|config| config.tcp.as_mut().unwrap().ports = vec![1..=1]).unwrap();
    drop(world.take_agent(first));
    world.agents_become(0).await;
    world.join(offers()).await;
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    let log = world.log();
    let told = |line: &&String| line.contains("does not take an offer") && line.contains("not among those");
    assert_eq!(log.iter().filter(told).count(), 1, "the agent hears of it: {log:#?}");
    let reason = ("reason", "port_unavailable");
    world.sum_becomes("adit_offers_denied_total", &[reason], 1).await;
    world.reload(|config| config.tcp.as_mut().unwrap().ports = Vec::new()).unwrap();
    until("the port is bound", || async { TcpStream::connect(("127.0.0.1", port)).await }).await;
    world.finish().await;
}

#[tokio::test]
async fn hosts_that_nobody_reaches_are_told_and_are_reached_once_there_is_a_listener() {
    let mut world =
        World::new().gateway(|config| config.http.clear()).offer("a.example", "http_status:204").run().await;
    let said = |log: &[String], text: &str| {
        log.iter().filter(|line| line.starts_with("WARN") && line.contains(text)).count()
    };
    let log = world.log();
    assert_eq!(said(&log, "nobody reaches an offer"), 1, "the agent: {log:#?}");
    assert_eq!(said(&log, "an agent offers hosts, and nobody reaches them"), 1, "the gateway: {log:#?}");
    let seen = world.ask_control("GET", "/status", &World::bearer()).await.text();
    assert!(seen.contains(r#""unreachable":["a.example"]"#), "{seen}");

    let port = free();
    world.reload(|config| config.http.push(listener(port))).unwrap();
    let reply = Wire::tcp(([127, 0, 0, 1], port).into()).await.get("a.example", "/").await;
    assert_eq!(reply.status(), 204);
    let seen = world.ask_control("GET", "/status", &World::bearer()).await.text();
    assert!(!seen.contains("unreachable") && seen.contains(r#""mode":"http""#), "{seen}");
    world.reload(|config| config.http.clear()).unwrap();
    let log = world.log();
    assert_eq!(said(&log, "there is no HTTP listener any more"), 1, "{log:#?}");
    world.finish().await;
}

#[tokio::test]
async fn a_listener_whose_socket_was_handed_over_is_taken_out_and_put_back() {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    let there = HttpListener { listen: addr, tls: None, lb_proxy_protocol: false };
    let mut world = World::new()
        .gateway(|config| config.http.push(there.clone()))
        .inherit(socket)
        .offer("a.example", "http_status:204")
        .run()
        .await;
    assert_eq!(Wire::tcp(addr).await.get("a.example", "/").await.status(), 204);
    world.reload(|config| drop(config.http.pop())).unwrap();
    let said = world.log().join("\n");
    assert!(said.contains("keeps the address bound"), "{said}");
    world.reload(|config| config.http.push(there.clone())).unwrap();
    assert_eq!(Wire::tcp(addr).await.get("a.example", "/").await.status(), 204);
    // Nobody else gets it meanwhile.
    world.reload(|config| config.http.push(HttpListener { tls: None, ..there.clone() })).unwrap_err();
    world.finish().await;
}
