//! A drain loses nothing that could be finished in its time, says what it had to cut, and takes nothing new.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use adit_testkit::proto::reason::Reason;
use adit_testkit::world::TOKEN;
use adit_testkit::{AgentPlan, Puppet, Signal, Upstream, World, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SHORT: Duration = Duration::from_millis(300);

/// Answers half, and the other half when told.
pub(crate) async fn half(go: &Signal) -> Upstream {
    let go = go.clone();
    Upstream::scripted(move |mut wire| {
        let go = go.clone();
        async move {
            while wire.head().await.is_some() {
                wire.send("HTTP/1.1 200 X\r\ncontent-length: 8\r\n\r\nhalf").await;
                go.given(1).await;
                drop(wire.try_send("rest").await);
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_draining_gateway_finishes_open_responses_and_takes_no_new_connections() {
    let go = Signal::default();
    let upstream = half(&go).await;
    let mut world = World::new().offer("a.example", &upstream).run().await;
    let mut open = world.wire().await;
    open.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(open.head().await.unwrap().status(), 200);
    let mut second = world.h2().await;
    let response = second.get("a.example", "/").await;
    let mut idle = world.wire().await;
    assert_eq!(idle.get("nobody.example", "/").await.status(), 404);

    let address = world.http();
    let drain = world.take_gateway().drain();
    let meanwhile = async {
        idle.ended().await;
        until("no new connection is taken", || async {
            match tokio::net::TcpStream::connect(address).await {
                Err(_refused) => Ok(()),
                Ok(tcp) => Err(tcp),
            }
        })
        .await;
        let ready = world.ask_control("GET", "/ready", "").await;
        assert_eq!(ready.status(), 503, "{}", ready.text());
        go.give();
        assert_eq!(open.take(8).await, b"halfrest");
        open.ended().await;
        let body = within("the body", http_body_util::BodyExt::collect(response)).await.unwrap();
        assert_eq!(body.to_bytes(), "halfrest");
        drop(second);
    };
    let (cut, ()) = tokio::join!(within("the drain", drain), meanwhile);
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn a_gateways_drain_cuts_what_is_open_at_its_deadline_and_counts_it() {
    let upstream = half(&Signal::default()).await;
    let mut world =
        World::new().gateway(|config| config.drain_timeout = SHORT).offer("a.example", &upstream).run().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = world.wire().await;
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status(), 200);
        clients.push(client);
    }
    assert_eq!(within("the drain", world.take_gateway().drain()).await, 3);
    for mut client in clients {
        assert_eq!(client.rest().await, b"half", "what was cut does not look complete");
    }
}

#[tokio::test]
async fn a_draining_gateway_does_not_wait_for_requests_that_have_not_come() {
    let upstream = Upstream::named("ok").await;
    let for_ever = Duration::from_secs(1000);
    let mut world = World::new()
        .limits(|limits| (limits.header_timeout, limits.idle_timeout) = (for_ever, for_ever))
        .gateway(|config| config.drain_timeout = for_ever)
        .offer("a.example", &upstream)
        .run()
        .await;
    let mut clients = Vec::new();
    for part in ["", "G", "GET / HTTP/1.1\r\nhost: a.example\r\nx", "PRI * HT"] {
        for used in [false, true] {
            let mut client = world.wire().await;
            if used {
                assert_eq!(client.get("a.example", "/").await.status(), 200);
            }
            client.send(part).await;
            clients.push(client);
        }
    }
    world.sum_becomes("adit_public_connections", &[], 8).await;
    assert_eq!(within("the drain", world.take_gateway().drain()).await, 0);
    for mut client in clients {
        client.ended().await;
    }
}

#[tokio::test]
async fn a_response_without_a_length_that_is_cut_ends_with_a_reset() {
    let upstream = Upstream::scripted(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 X\r\n\r\nhalf").await;
        wire.ended().await;
    })
    .await;
    let mut world =
        World::new().gateway(|config| config.drain_timeout = SHORT).offer("a.example", &upstream).run().await;
    let mut client = world.wire().await.into_io();
    client.write_all(b"GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"half") {
        assert!(within("the response", client.read_buf(&mut read)).await.unwrap() > 0);
    }
    assert_eq!(within("the drain", world.take_gateway().drain()).await, 1);
    let end = within("the end", client.read_buf(&mut read)).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn upgraded_connections_have_the_same_deadline() {
    let upstream = Upstream::scripted(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nhello").await;
        wire.ended().await;
    })
    .await;
    let mut world =
        World::new().gateway(|config| config.drain_timeout = SHORT).offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    assert_eq!(client.take(5).await, b"hello");
    assert_eq!(within("the drain", world.take_gateway().drain()).await, 1);
    client.ended().await;
}

#[tokio::test]
async fn a_draining_agent_finishes_open_responses_and_gets_no_new_requests() {
    let go = Signal::default();
    let upstream = half(&go).await;
    let mut world = World::new().offer("a.example", &upstream).run().await;
    let mut open = world.wire().await;
    open.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(open.head().await.unwrap().status(), 200);

    let drain = world.take_agent(0).drain();
    let meanwhile = async {
        until("no new request is given to it", || async {
            let reply = world.get("a.example", "/").await;
            match (reply.status(), reply.reason()) {
                (503, Some("no_agent" | "agent_draining")) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        go.give();
        assert_eq!(open.take(8).await, b"halfrest");
    };
    let (cut, ()) = tokio::join!(within("the drain", drain), meanwhile);
    assert_eq!(cut, 0);
    world.agents_become(0).await;
    world.sum_becomes("adit_sessions_ended_total", &[("reason", "agent_draining")], 1).await;
    world.finish().await;
}

#[tokio::test]
async fn an_agents_drain_cuts_what_is_open_at_its_deadline_and_counts_it() {
    let upstream = half(&Signal::default()).await;
    let mut world = World::new().run().await;
    world.join(AgentPlan::new().offer("a.example", &upstream).drain_timeout(SHORT)).await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    assert_eq!(within("the drain", world.take_agent(0).drain()).await, 1);
    assert_eq!(client.rest().await, b"half", "what was cut does not look complete");
    world.agents_become(0).await;
    world.finish().await;
}

/// Clients that go on asking until they are told to stop; every answer that is not 200 is kept.
async fn load(world: &World, post: bool, stop: &AtomicBool, served: &AtomicUsize) -> Vec<String> {
    let mut client = world.wire().await;
    let mut failed = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let reply = if post {
            client.post("a.example", "/", b"body").await
        } else {
            client.get("a.example", "/").await
        };
        if reply.status() != 200 {
            failed.push(format!("{reply:?}"));
        }
        served.fetch_add(1, Ordering::SeqCst);
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_two_agents_may_drain_under_load_and_no_request_fails() {
    let upstream = Upstream::named("ok").await;
    let plan = AgentPlan::new().offer("a.example", &upstream);
    let mut world = World::new().limits(|limits| limits.agent_wait = Duration::from_secs(5)).run().await;
    world.join(plan.clone()).await;
    world.join(plan.clone()).await;
    let (stop, served) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let mut agents = vec![world.take_agent(0), world.take_agent(1)];
    let after = |count: usize| {
        let (target, served) = (served.load(Ordering::SeqCst) + count, &served);
        async move {
            until("requests go on", || {
                let now = served.load(Ordering::SeqCst);
                std::future::ready(if now >= target { Ok(()) } else { Err(now) })
            })
            .await;
        }
    };
    let world = &world;
    let changes = async {
        for _ in 0..6 {
            after(100).await;
            agents.push(world.start_agent(&plan).await);
            world.knows(agents.last().unwrap()).await;
            assert_eq!(within("the drain", agents.remove(0).drain()).await, 0);
        }
        after(100).await;
        stop.store(true, Ordering::SeqCst);
    };
    let (one, two, three, four, ()) = tokio::join!(
        load(world, false, &stop, &served),
        load(world, true, &stop, &served),
        load(world, false, &stop, &served),
        load(world, true, &stop, &served),
        changes
    );
    let failed = [one, two, three, four].concat();
    let lines = world.request_log(served.load(Ordering::SeqCst)).await;
    let told: Vec<_> = lines.iter().filter(|line| line["status"] != 200).collect();
    assert!(
        failed.is_empty() && told.is_empty(),
        "{} of {served:?} failed: {failed:#?} {told:#?}",
        failed.len()
    );
}

#[tokio::test]
async fn an_agent_that_is_welcome_can_be_reached() {
    let world = World::new().limits(|limits| limits.agent_wait = Duration::ZERO).run().await;
    for number in 0..20 {
        let host = format!("{number}.example");
        let agent = Puppet::greet(world.control(), TOKEN, (number, 1), &[&host]).await.unwrap();
        let mut client = world.wire().await;
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        let (_, mut stream) = within("the request", agent.session.accept()).await.unwrap();
        stream.confirm();
        stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.unwrap();
        assert_eq!(client.head().await.unwrap().status(), 204);
    }
}

#[tokio::test]
async fn a_request_that_meets_an_agent_on_its_way_out_goes_to_another_one() {
    for request in [
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 0\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 4\r\n",
    ] {
        let upstream = Upstream::named("ok").await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let leaving = Puppet::greet(world.control(), TOKEN, (1, 1), &["a.example"]).await.unwrap();
        world.agents_become(2).await;
        let met = Signal::default();
        let (meets, session) = (met.clone(), leaving.session.clone());
        leaving.spawn(async move {
            let _stream = session.accept().await;
            session.close(Reason::AgentDraining);
            meets.give();
        });
        let body = if request.contains("length: 4") { "body" } else { "" };
        let mut client = world.wire().await;
        for _ in 0..2 {
            client.send(format!("{request}host: a.example\r\n\r\n{body}")).await;
            let reply = client.reply().await;
            assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"), "{request:?}");
        }
        met.given(1).await;
        assert_eq!(upstream.requests().len(), 2, "each was applied once");
        drop(leaving);
        world.finish().await;
    }
}

#[tokio::test]
async fn agents_that_come_while_a_gateway_drains_are_one_line_in_its_log_and_a_count() {
    let go = Signal::default();
    let upstream = half(&go).await;
    let mut world = World::new().offer("a.example", &upstream).run().await;
    let mut open = world.wire().await;
    open.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(open.head().await.unwrap().status(), 200);
    let (control, gateway) = (world.control(), world.take_gateway());
    let meanwhile = async {
        until("agents are sent away", || async {
            match Puppet::greet(control, TOKEN, (7, 1), &["b.example"]).await {
                Err(_refused) => Ok(()),
                Ok(puppet) => Err(puppet),
            }
        })
        .await;
        for _ in 0..10 {
            assert!(Puppet::greet(control, TOKEN, (7, 1), &["b.example"]).await.is_err());
        }
        go.give();
        assert_eq!(open.take(8).await, b"halfrest");
    };
    let (cut, ()) = tokio::join!(within("the drain", gateway.drain()), meanwhile);
    assert_eq!(cut, 0);
    let log = world.log();
    let said = log.iter().filter(|line| line.contains("refused a session")).count();
    assert_eq!(said, 1, "{log:#?}");
}
