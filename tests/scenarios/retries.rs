//! A connection that went stale in the pool is the gateway's business, not the client's; and nothing that may have
//! been applied is sent again.

use adit_testkit::world::TOKEN;
use adit_testkit::{AgentPlan, Answer, Puppet, Signal, Upstream, World};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Duration, Instant};

#[tokio::test]
async fn an_upstream_that_closes_after_each_response_is_never_seen_by_a_get() {
    let upstream = Upstream::answering(|_| Answer::text("ok").and_close()).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    for round in 0..200 {
        let reply = client.get("a.example", "/").await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"), "round {round}");
    }
    assert_eq!(upstream.requests().len(), 200);
    world.finish().await;
}

#[tokio::test]
async fn a_get_that_meets_the_close_of_an_idle_connection_is_sent_again_on_a_new_one() {
    // The second request on a connection arrives and is dropped with the connection: the race, made certain.
    let upstream = Upstream::scripted(|mut wire| async move {
        if wire.head().await.is_some() {
            wire.send("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await;
            wire.head().await;
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    for round in 0..50 {
        assert_eq!(client.get("a.example", "/").await.status(), 200, "round {round}");
        client.send("HEAD / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        assert_eq!(client.reply_to("HEAD").await.status(), 200, "round {round}");
    }
    let mut client = world.h2().await;
    for round in 0..50 {
        assert_eq!(client.get("a.example", "/").await.status(), 200, "round {round}");
    }
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn a_post_is_never_applied_twice() {
    let mut bodies = vec!["amount=1", ""];
    'bodies: while let Some(body) = bodies.pop() {
        let applied = Signal::default();
        // The first request on a connection is answered; the second is applied, and its answer never comes.
        let upstream = Upstream::scripted({
            let applied = applied.clone();
            move |mut wire| {
                let applied = applied.clone();
                async move {
                    if wire.head().await.is_none() {
                        return;
                    }
                    wire.send("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await;
                    let Some(head) = wire.head().await else { return };
                    assert!(wire.request_body(&head).await.complete);
                    applied.give();
                }
            }
        })
        .await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let mut client = world.wire().await;
        for round in 1..=20 {
            let began = Instant::now();
            assert_eq!(client.get("a.example", "/").await.status(), 200);
            let reply = client.post("a.example", "/pay", body.as_bytes()).await;
            if reply.status() == 200 && began.elapsed() > Duration::from_secs(2) {
                // The machine stood still, and a POST is not sent on a connection that was idle for so long: that proves
                // nothing here, so again.
                bodies.push(body);
                continue 'bodies;
            }
            assert_eq!((reply.status(), reply.reason()), (502, Some("upstream_closed")), "round {round}");
            assert_eq!(applied.times(), round, "each POST was applied once, and then told to have failed");
        }
        world.finish().await;
    }
}

#[tokio::test]
async fn a_post_to_an_upstream_that_closes_after_each_response_is_applied_at_most_once() {
    let upstream = Upstream::answering(|_| Answer::text("ok").and_close()).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    let mut answered = Vec::new();
    for round in 0..100 {
        let target = format!("/pay/{round}");
        if client.post("a.example", &target, b"amount=1").await.status() == 200 {
            answered.push(target);
        }
    }
    let mut applied: Vec<_> = upstream.requests().iter().map(|r| r.head.target().to_owned()).collect();
    assert!(answered.iter().all(|target| applied.contains(target)));
    let all = applied.len();
    applied.sort();
    applied.dedup();
    assert_eq!(applied.len(), all, "a POST was applied twice");
    assert!(answered.len() > 50, "only {} of 100 were answered", answered.len());
    world.finish().await;
}

#[tokio::test]
async fn a_post_that_its_agent_took_along_when_it_died_is_not_given_to_another_agent() {
    let applied = Signal::default();
    let other = Upstream::named("other").await;
    let mut world = World::new().run().await;
    // An agent that passes the request on and dies before it has said that it was connected.
    let puppet = Puppet::greet(world.control(), TOKEN, (7, 1), &["a.example"]).await.unwrap();
    world.agents_become(1).await;

    let (seen, session) = (applied.clone(), puppet.session.clone());
    puppet.spawn(async move {
        let Some((_, mut stream)) = session.accept().await else { return };
        let mut request = vec![0; 16];
        stream.read_exact(&mut request).await.unwrap();
        seen.give();
        std::future::pending().await
    });
    let mut client = world.wire().await;
    client.send("POST /pay HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n").await;
    applied.given(1).await;
    world.join(AgentPlan::new().offer("a.example", &other)).await;
    drop(puppet);
    let reply = client.reply().await;
    assert_eq!(reply.status(), 502, "{}", reply.text());
    assert_eq!(other.requests().len(), 0, "the request was sent a second time");
    world.finish().await;
}

#[tokio::test]
async fn a_request_whose_upstream_refuses_goes_to_another_agent_with_its_whole_body() {
    let upstream = Upstream::answering(|request| Answer::text(&request.content.bytes)).await;
    let mut world = World::new().offer("a.example", closed_port()).run().await;
    world.join(AgentPlan::new().offer("a.example", &upstream)).await;
    for round in 0..6 {
        let mut client = world.wire().await;
        let reply = client.post("a.example", "/", b"all of it").await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "all of it"), "round {round}");
        assert_eq!(client.get("a.example", "/").await.status(), 200, "round {round}");
    }
    world.finish().await;
}

#[tokio::test]
async fn an_upstream_that_refuses_is_asked_once_for_each_request_when_there_is_no_other() {
    let world = World::new().offer("a.example", closed_port()).run().await;
    let mut client = world.wire().await;
    for _ in 0..3 {
        let reply = client.get("a.example", "/").await;
        assert_eq!((reply.status(), reply.reason()), (502, Some("upstream_refused")));
        let reply = client.post("a.example", "/", b"x").await;
        assert_eq!((reply.status(), reply.reason()), (502, Some("upstream_refused")));
    }
    let asked = world.agent_metrics(0).await.sum("adit_agent_streams_ended_total", &[]);
    assert_eq!(asked, 6.0);
    world.finish().await;
}

/// An address nobody listens on.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
