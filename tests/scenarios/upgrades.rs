//! `Upgrade`: after a 101 every byte goes through, whichever side spoke first; without one, the bytes are HTTP again.

use adit_testkit::proto::reason::Reason;
use adit_testkit::{AgentPlan, Answer, Signal, Upstream, Wire, World, within};

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: ";

/// Agrees to any upgrade, says hello with the 101 in one segment, then echoes until the client has ended its half.
async fn echoing() -> Upstream {
    Upstream::scripted(|mut wire| async move {
        let Some(head) = wire.head().await else { return };
        let Some(protocol) = head.field("upgrade") else { panic!("no Upgrade arrived: {head:?}") };
        assert_eq!(head.field("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
        wire.send(format!("{SWITCH}{protocol}\r\n\r\nhello from {protocol};")).await;
        loop {
            let waiting = wire.waiting().len();
            if waiting > 0 {
                let bytes = wire.take(waiting).await;
                wire.send(bytes).await;
            } else if wire.fill().await == 0 {
                break;
            }
        }
        wire.send("bye").await;
    })
    .await
}

async fn upgrade(client: &mut Wire, protocol: &str, behind: &str) {
    client
        .send(format!(
            "GET /ws HTTP/1.1\r\nhost: a.example\r\nconnection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\n\
             sec-websocket-key: x\r\n\r\n{behind}"
        ))
        .await;
}

#[tokio::test]
async fn bytes_right_behind_the_request_and_right_behind_the_101_both_arrive() {
    let upstream = echoing().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    for (protocol, https) in [("websocket", false), ("foo", false), ("foo/2", true), ("websocket", true)] {
        let mut client = if https { world.tls_wire(&[b"http/1.1"]).await } else { world.wire().await };
        upgrade(&mut client, protocol, "early;").await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status(), 101, "{protocol}: {head:?}");
        assert_eq!(head.field("upgrade"), Some(protocol));
        let expected = format!("hello from {protocol};early;");
        assert_eq!(client.take(expected.len()).await, expected.as_bytes());
        client.send("later;").await;
        assert_eq!(client.take(6).await, b"later;");
        client.finish_sending().await;
        assert_eq!(client.rest().await, b"bye", "the other half stays open until its own end");
    }
    world.finish().await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_that_look_like_http_unread() {
    let upstream = echoing().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    upgrade(&mut client, "foo", "").await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    assert_eq!(client.take(15).await, b"hello from foo;");
    let odd = b"GET / HTTP/1.1\nHost: b.example\nContent-Length: x\n\n\0\xff";
    client.send(odd).await;
    assert_eq!(client.take(odd.len()).await, odd);
    client.finish_sending().await;
    assert_eq!(client.rest().await, b"bye");
    world.sum_becomes("adit_flows", &[], 0).await;
    let samples = world.metrics().await;
    let bytes = |direction| samples.sum("adit_service_bytes_total", &[("direction", direction)]);
    assert_eq!((bytes("in"), bytes("out")), (52.0, 70.0), "bytes of upgraded connections count");
    world.finish().await;
}

#[tokio::test]
async fn when_the_upstream_ends_an_upgraded_connection_the_client_sees_it() {
    let upstream = Upstream::scripted(|mut wire| async move {
        wire.head().await;
        wire.send(format!("{SWITCH}foo\r\n\r\nlast words")).await;
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    upgrade(&mut client, "foo", "").await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    assert_eq!(client.rest().await, b"last words");
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn when_the_client_is_gone_from_an_upgraded_connection_the_upstream_sees_it() {
    let ended = Signal::default();
    let upstream = Upstream::scripted({
        let ended = ended.clone();
        move |mut wire| {
            let ended = ended.clone();
            async move {
                wire.head().await;
                wire.send(format!("{SWITCH}foo\r\n\r\n")).await;
                wire.ended().await;
                ended.give();
            }
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    upgrade(&mut client, "foo", "").await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    drop(client);
    ended.given(1).await;
    world.finish().await;
}

#[tokio::test]
async fn an_upgrade_to_cleartext_http2_is_not_passed_on() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    for protocol in ["h2c", "H2C", "foo, h2c", "HTTP/2.0"] {
        let mut client = world.wire().await;
        client
            .send(format!(
                "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\n\
                 http2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
            ))
            .await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 200, "{protocol}");
        let seen = reply.text().to_ascii_lowercase();
        assert!(!seen.contains("\r\nupgrade:") && !seen.contains("http2-settings"), "{protocol}: {seen}");
        assert_eq!(client.get("a.example", "/next").await.status(), 200, "{protocol}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_declined_upgrade_leaves_a_connection_that_speaks_http() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    upgrade(&mut client, "websocket", "").await;
    let reply = client.reply().await;
    assert_eq!(reply.status(), 200);
    assert!(reply.text().to_ascii_lowercase().contains("upgrade: websocket"), "{}", reply.text());
    for round in 0..5 {
        assert_eq!(client.get("a.example", "/again").await.status(), 200, "round {round}");
    }
    // What stands right behind the declined request is the next request, read as strictly as any.
    upgrade(&mut client, "websocket", "GET /behind HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert!(client.reply().await.text().starts_with("GET /ws "));
    assert!(client.reply().await.text().starts_with("GET /behind "));
    upgrade(&mut client, "websocket", "GET /smuggled HTTP/1.1\nhost: a.example\n\n").await;
    assert!(client.reply().await.text().starts_with("GET /ws "));
    assert_eq!(client.reply().await.status(), 400);
    client.ended().await;
    assert!(upstream.requests().iter().all(|request| request.head.target() != "/smuggled"));
    world.finish().await;
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_an_invalid_response() {
    let upstream =
        Upstream::answering(|_| Answer::raw(format!("{SWITCH}foo\r\n\r\nHTTP/1.1 200 X\r\n\r\n"))).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let reply = world.get("a.example", "/").await;
    assert_eq!((reply.status(), reply.reason()), (502, Some("upstream_invalid")), "{reply:?}");
    world.finish().await;
}

#[tokio::test]
async fn an_upgraded_connection_counts_for_its_source_until_it_ends() {
    let upstream = echoing().await;
    let world = World::new()
        .limits(|limits| limits.max_connections_per_source = Some(2))
        .offer("a.example", &upstream)
        .run()
        .await;
    let mut held = Vec::new();
    for https in [false, true] {
        let mut client = if https { world.tls_wire(&[b"http/1.1"]).await } else { world.wire().await };
        upgrade(&mut client, "foo", "").await;
        assert_eq!(client.head().await.unwrap().status(), 101);
        held.push(client);
    }
    world.sum_becomes("adit_public_connections", &[], 2).await;
    // Reset, whether the client has said something by then or not.
    world.wire().await.ended().await;
    world.sum_becomes("adit_refusals_total", &[("reason", "overloaded")], 1).await;
    drop(held);
    world.sum_becomes("adit_public_connections", &[], 0).await;
    let mut client = world.wire().await;
    upgrade(&mut client, "foo", "").await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn an_upgraded_connection_is_one_of_all_that_there_may_be() {
    let upstream = echoing().await;
    let mut world =
        World::new().limits(|limits| limits.max_connections = 1).offer("a.example", &upstream).run().await;
    // What an agent opens takes a place among the same, or is refused at once.
    let dialling = world.join(AgentPlan::new().dials()).await;
    let nothing = "nothing".parse().unwrap();
    let mut client = world.wire().await;
    upgrade(&mut client, "foo", "").await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    // Nothing of HTTP is left of the connection.
    assert_eq!(client.take(15).await, b"hello from foo;");
    world.sum_becomes("adit_public_connections", &[], 1).await;
    let refused = within("the dial", world.agent(dialling).dial(&nothing)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Overloaded);
    drop(client);
    world.sum_becomes("adit_public_connections", &[], 0).await;
    let refused = within("the dial", world.agent(dialling).dial(&nothing)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NotPermitted);
    world.finish().await;
}
