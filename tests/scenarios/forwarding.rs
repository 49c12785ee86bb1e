//! The other way round: an agent listens, and the gateway connects; only where the gateway permits it.

use std::io::ErrorKind;
use std::net::SocketAddr;

use adit_testkit::ports::free;
use adit_testkit::proto::header::StreamHeader;
use adit_testkit::proto::reason::Reason;
use adit_testkit::tcp::Tcp;
use adit_testkit::world::TOKEN;
use adit_testkit::{AgentPlan, Puppet, World, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn permitting() -> World {
    World::new().gateway(|config| config.client_forwarding = true).run().await
}

fn local() -> SocketAddr {
    ([127, 0, 0, 1], free()).into()
}

#[tokio::test]
async fn connections_to_the_agent_reach_what_the_gateway_can_reach() {
    let echo = Tcp::echo().await;
    let mut world = permitting().await;
    let here = local();
    // Nothing is offered; that an agent forwards is reason enough to let it in.
    world.join(AgentPlan::new().forward(here, &echo.addr.to_string())).await;
    let mut client = within("a connection", TcpStream::connect(here)).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut back = String::new();
    within("the end", client.read_to_string(&mut back)).await.unwrap();
    assert_eq!(back, "hello");
    let line = world.request_log(1).await.remove(0);
    assert_eq!(line["service"], format!("dial:{}", echo.addr));
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"], &line["reason"]),
        (&5.into(), &5.into(), &"done".into())
    );
    assert_eq!(line["agent"], world.agent(0).instance().to_string());
    let forwarded = world.metrics().await.sum("adit_service_bytes_total", &[("service", "forwarded")]);
    assert!((forwarded - 10.0).abs() < 0.1);
    world.finish().await;
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_a_reset_and_what_is_not_permitted_an_end() {
    let mut world = permitting().await;
    let (closed, cloud) = (local(), local());
    let nobody = local().to_string();
    let plan = AgentPlan::new().forward(closed, &nobody).forward(cloud, "169.254.169.254:80");
    world.join(plan).await;
    for (here, reason) in [(closed, "upstream_refused"), (cloud, "forwarding_denied")] {
        let mut client = within("a connection", TcpStream::connect(here)).await.unwrap();
        let end = within("the end", client.read(&mut [0])).await.map_err(|error| error.kind());
        // What is not permitted has not begun: that is an ordinary end.
        let expected = if here == cloud { Ok(0) } else { Err(ErrorKind::ConnectionReset) };
        assert_eq!(end, expected);
        world.sum_becomes("adit_refusals_total", &[("reason", reason)], 1).await;
    }
    world.finish().await;
}

#[tokio::test]
async fn a_gateway_that_does_not_permit_it_refuses_the_agent_and_says_so() {
    let world = World::new().run().await;
    let agent = world.start_agent(&AgentPlan::new().forward(local(), "127.0.0.1:1")).await;
    let refusal = within("the refusal", agent.refused()).await;
    assert!(refusal.contains("--client-forwarding"), "{refusal}");
    drop(agent);
    world.finish().await;
}

#[tokio::test]
async fn an_agent_keeps_its_offers_where_forwarding_is_not_permitted_and_forwards_as_soon_as_it_is() {
    let echo = Tcp::echo().await;
    let mut world = World::new().run().await;
    let here = local();
    let plan = AgentPlan::new().offer("a.example", "http_status:204").forward(here, &echo.addr.to_string());
    world.join(plan).await;
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    for sent in [&b""[..], b"hello"] {
        let mut client = within("a connection", TcpStream::connect(here)).await.unwrap();
        client.write_all(sent).await.unwrap();
        let mut back = Vec::new();
        within("an ordinary end", client.read_to_end(&mut back)).await.unwrap();
        assert!(back.is_empty());
    }
    let denied = world.agent_metrics(0).await.sum(
        "adit_agent_streams_ended_total",
        &[("service", &format!("dial:{}", echo.addr)), ("reason", "forwarding_denied")],
    );
    assert!(denied > 1.5, "{denied}");
    let mut wire = adit_testkit::Wire::tcp(world.agent(0).listen_addr().unwrap()).await;
    let ready = wire.get("agent", "/ready").await;
    assert_eq!(ready.status(), 200);
    assert!(
        ready.text().contains("did not permit what is forwarded to its side when it was connected"),
        "{}",
        ready.text()
    );
    let log = world.log();
    let said = |text: &str| log.iter().filter(|line| line.starts_with("WARN") && line.contains(text)).count();
    assert_eq!(said("is closed until it is started with --client-forwarding"), 1, "{log:#?}");
    assert_eq!(said("let in without what it wants forwarded"), 1, "{log:#?}");
    assert_eq!(said("was not carried to its end"), 1, "once a second at most: {log:#?}");

    world.reload(|config| config.client_forwarding = true).unwrap();
    let mut client = within("a connection", TcpStream::connect(here)).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut back = String::new();
    within("the end", client.read_to_string(&mut back)).await.unwrap();
    assert_eq!(back, "hello", "in the same session");
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    world.sum_becomes("adit_sessions_opened_total", &[], 1).await;
    world.finish().await;
}

#[tokio::test]
async fn every_agent_that_may_not_forward_is_counted_however_many_are_logged() {
    let mut world = World::new().run().await;
    for host in ["a.example", "b.example", "c.example", "d.example"] {
        world.join(AgentPlan::new().offer(host, "http_status:204").forward(local(), "127.0.0.1:1")).await;
    }
    world.sum_becomes("adit_offers_denied_total", &[("reason", "forwarding_denied")], 4).await;
    world.finish().await;
}

#[tokio::test]
async fn an_agent_that_was_not_granted_it_and_opens_a_stream_loses_its_session() {
    let world = permitting().await;
    let agent = Puppet::greet(world.control(), TOKEN, (1, 1), &["a.example"]).await.unwrap();
    let header = StreamHeader {
        service: "dial:127.0.0.1:1".parse().unwrap(),
        client_addr: None,
        connect_timeout: std::time::Duration::from_secs(1),
    };
    let _stream = agent.session.open(&header).unwrap();
    within("the end", agent.session.closed()).await;
    let reason = ("reason", Reason::ProtocolError.label());
    world.sum_becomes("adit_sessions_ended_total", &[reason], 1).await;
    world.agents_become(0).await;
    world.finish().await;
}

#[tokio::test]
async fn every_lane_carries_connections_the_other_way_whichever_thread_moves_it() {
    let echo = Tcp::echo().await;
    let permitting = World::new().workers(4).gateway(|config| config.client_forwarding = true);
    let mut world = permitting.run().await;
    let here = local();
    world.join(AgentPlan::new().forward(here, &echo.addr.to_string())).await;
    // Held open together, so that the agent has reason to open its further lanes.
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = within("a connection", TcpStream::connect(here)).await.unwrap();
        client.write_all(&[7; 100_000]).await.unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        within("an echo", client.read_exact(&mut [0; 100_000])).await.unwrap();
    }
    drop(clients);
    world.finish().await;
}
