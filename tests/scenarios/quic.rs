//! Sessions by QUIC: paths that lose packets, paths that die, ports that are taken, callers who say nothing.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use adit_testkit::agent::config::Transport;
use adit_testkit::certificate::{credulous, self_signed};
use adit_testkit::tunnel::transport::quic::Listener;
use adit_testkit::tunnel::transport::{Dialled, Route, dial_quic};
use adit_testkit::udp_path::{Conditions, UdpPath};
use adit_testkit::world::metrics_of;
use adit_testkit::{AgentPlan, Upstream, World, ports, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ALPN: &[&[u8]] = &[b"adit/1"];

async fn dial(to: SocketAddr) -> Dialled {
    let host = to.ip().to_string();
    let route = Route { host: &host, port: to.port(), address: None, proxy: None };
    within("a QUIC connection", dial_quic(route, &credulous(ALPN), Duration::from_secs(10))).await.unwrap()
}

#[tokio::test]
async fn a_long_path_that_loses_one_packet_in_a_hundred_carries_everything_by_a_sender_that_goes_by_rate() {
    const BYTES: usize = 512 << 10;
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &self_signed(ALPN), &[1; 32]).unwrap();
    let conditions = Conditions { delay: Duration::from_millis(50), loss: 10, rate: 100_000_000 };
    let path = UdpPath::start(listener.local_addr().unwrap(), conditions).await;
    let sending = async {
        let Dialled { mut io, .. } = dial(path.addr()).await;
        io.write_all(&vec![b'x'; BYTES]).await.unwrap();
        io.shutdown().await.unwrap();
    };
    let receiving = async {
        let (mut io, ..) = listener.accept().await.unwrap().accept().await.unwrap();
        io.trust().now();
        // What takes every loss for congestion begins with ten packets. How fast this one is, its own tests say: time
        // is not real there.
        assert!(io.probe().state().unwrap().window >= 32 * 1200);
        let (mut buffer, mut got) = (vec![0; 64 * 1024], 0);
        while let Ok(n @ 1..) = io.read(&mut buffer).await {
            got += n;
        }
        assert_eq!(got, BYTES);
        assert!(io.probe().state().unwrap().rtt >= Duration::from_millis(100));
    };
    within("the bytes", async { tokio::join!(sending, receiving) }).await;
}

#[tokio::test]
async fn what_was_written_before_the_end_arrives_before_the_end() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &self_signed(ALPN), &[1; 32]).unwrap();
    let addr = listener.local_addr().unwrap();
    let writing = async {
        let mut io = dial(addr).await.io;
        io.write_all(b"last words").await.unwrap();
        io.shutdown().await.unwrap();
    };
    let reading = async {
        let (mut io, ..) = listener.accept().await.unwrap().accept().await.unwrap();
        let mut words = Vec::new();
        io.read_to_end(&mut words).await.unwrap();
        assert_eq!(words, b"last words");
    };
    within("the words", async { tokio::join!(writing, reading) }).await;
}

#[tokio::test]
async fn a_path_that_dies_is_known_to_both_sides_and_the_agent_is_back_when_it_lives() {
    let upstream = Upstream::named("ok").await;
    let mut world = World::new().run().await;
    let path = UdpPath::start(world.control(), Conditions::default()).await;
    let plan =
        AgentPlan::new().offer("a.example", &upstream).transport(Transport::Quic).by_way_of(path.addr());
    world.join(plan).await;
    assert_eq!(world.get("a.example", "/").await.status(), 200);
    path.lose(1000);
    // Somebody who waits makes the gateway wait, and a waiting side knows in seconds.
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    world.agents_become(0).await;
    path.lose(0);
    world.agents_become(1).await;
    until("requests are carried again", || async {
        let reply = world.get("a.example", "/").await;
        if reply.status() == 200 { Ok(()) } else { Err(reply) }
    })
    .await;
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn where_tcp_does_not_get_through_an_agent_takes_quic_by_itself_and_says_why() {
    let mut world = World::new().run().await;
    // Nothing listens there by TCP.
    let path = UdpPath::start(world.control(), Conditions::default()).await;
    world.join(AgentPlan::new().offer("a.example", "http_status:204").by_way_of(path.addr())).await;
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    let dials = world.agent_metrics(0).await;
    let series = [("transport", "quic"), ("why", "tcp_failed")];
    assert!(
        dials.sum("adit_agent_dials_total", &series) > 0.5,
        "{:?}",
        dials.series_of("adit_agent_dials_total")
    );
    world.sum_becomes("adit_sessions", &[("transport", "quic")], 1).await;
    world.finish().await;
}

#[tokio::test]
async fn a_gateway_whose_udp_port_is_taken_serves_by_tcp() {
    let addr: SocketAddr = ([127, 0, 0, 1], ports::free()).into();
    let taken = UdpSocket::bind(addr).unwrap();
    let mut world = World::new().gateway(|config| config.control.listen = addr).run().await;
    assert_eq!(world.control(), addr);
    assert!(world.log().iter().any(|line| line.contains("cannot listen on UDP")), "{:#?}", world.log());
    world.join(AgentPlan::new().offer("a.example", "http_status:204")).await;
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    // And by QUIC as soon as the port is free.
    drop(taken);
    world.join(AgentPlan::new().offer("b.example", "http_status:204").transport(Transport::Quic)).await;
    assert_eq!(world.get("b.example", "/").await.status(), 204);
    world.finish().await;
}

#[tokio::test]
async fn an_agent_that_finds_no_quic_says_so() {
    let world = World::new().gateway(|config| config.control.quic = false).run().await;
    let plan = AgentPlan::new().offer("a.example", "http_status:204").transport(Transport::Quic);
    let agent = world.start_agent(&plan).await;
    until("the failure is counted", || async {
        let samples = metrics_of(&agent).await;
        let failed = samples.sum("adit_agent_connects_total", &[("result", "quic")])
            + samples.sum("adit_agent_connects_total", &[("result", "timeout")]);
        if failed > 0.5 { Ok(()) } else { Err(samples.series_of("adit_agent_connects_total")) }
    })
    .await;
    world.finish().await;
}

#[tokio::test]
async fn callers_who_say_nothing_and_garbage_keep_no_agent_out() {
    let mut world = World::new().run().await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(dial(world.control()).await);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [1, 20, 21, 40, 1200, 9000] {
        for first in [0, 0x40, 0x80, 0xc0, 0xff] {
            let packet: Vec<u8> = std::iter::once(first).chain(std::iter::repeat_n(7, length)).collect();
            socket.send_to(&packet, world.control()).unwrap();
        }
    }
    world.join(AgentPlan::new().offer("a.example", "http_status:204").transport(Transport::Quic)).await;
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    drop(silent);
    world.finish().await;
}

#[tokio::test]
async fn what_a_caller_may_send_before_it_has_proved_anything_is_little() {
    let listener =
        Arc::new(Listener::bind("127.0.0.1:0".parse().unwrap(), &self_signed(ALPN), &[1; 32]).unwrap());
    let addr = listener.local_addr().unwrap();
    let flooding = async {
        let mut io = dial(addr).await.io;
        let chunk = vec![0; 64 * 1024];
        let mut sent = 0;
        // What this side holds to send is bounded too; beyond both nothing is taken any more.
        while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_secs(1), io.write(&chunk)).await {
            sent += n;
        }
        assert!(sent >= 128 * 1024, "a hello fits: {sent}");
        sent
    };
    let holding = async {
        let (io, ..) = listener.accept().await.unwrap().accept().await.unwrap();
        std::future::pending::<()>().await;
        drop(io);
    };
    let sent = tokio::select! { sent = flooding => sent, () = holding => 0 };
    assert!(sent <= (16 << 20) + 256 * 1024, "{sent}");
}
