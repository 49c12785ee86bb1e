//! `Expect: 100-continue`: the client is asked for its body when the upstream asks, and not at all when it refuses.

use adit_testkit::{Signal, Upstream, World};

const HEAD: &str =
    "POST /upload HTTP/1.1\r\nhost: a.example\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[tokio::test]
async fn a_client_that_waits_is_asked_for_its_body_when_the_upstream_wants_it() {
    let upstream = Upstream::scripted(|mut wire| async move {
        while let Some(head) = wire.head().await {
            assert_eq!(head.field("expect"), Some("100-continue"));
            assert_eq!(wire.waiting(), b"", "the body came before it was asked for");
            wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            let body = wire.request_body(&head).await;
            wire.send("HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\n").await;
            wire.send(body.bytes).await;
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    for _ in 0..3 {
        client.send(HEAD).await;
        let interim = client.head().await.unwrap();
        assert_eq!((interim.status(), interim.first.as_str()), (100, "HTTP/1.1 100 Continue"));
        client.send("hello").await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "hello"));
    }
    world.finish().await;
}

#[tokio::test]
async fn a_client_is_not_asked_for_a_body_that_the_upstream_refuses_unread() {
    for status in [417, 401, 302, 500] {
        let upstream = Upstream::scripted(move |mut wire| async move {
            while wire.head().await.is_some() {
                wire.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nno")).await;
            }
        })
        .await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let mut client = world.wire().await;
        client.send(HEAD).await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status(), status, "no 100 comes before a refusal: {head:?}");
        assert_eq!(client.take(2).await, b"no");
        // Whether the client sends its body now is its own choice, so what it sends is not read as anything.
        assert_eq!(head.field("connection"), Some("close"));
        drop(client.try_send("GET /smuggled HTTP/1.1\r\nhost: a.example\r\n\r\n").await);
        assert_eq!(client.rest().await, b"", "{status}: a second answer");
        drop(client);
        world.request_log(1).await;
        assert_eq!(upstream.connections(), 1, "{status}");
        // The connection it was refused on is not used again either.
        assert_eq!(world.get("a.example", "/").await.status(), status);
        assert_eq!(upstream.connections(), 2, "{status}");
        let lines = world.request_log(2).await;
        assert!(lines.iter().all(|line| line["target"] != "/smuggled"), "{lines:#?}");
        world.finish().await;
    }
}

#[tokio::test]
async fn a_client_is_asked_for_its_body_after_a_while_even_if_the_upstream_does_not_ask() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send(HEAD).await;
    assert_eq!(client.head().await.unwrap().status(), 100);
    client.send("hello").await;
    assert!(client.reply().await.text().ends_with("hello"));
    world.finish().await;
}

#[tokio::test]
async fn a_client_that_does_not_wait_to_be_asked_is_served_all_the_same() {
    let asked = Signal::default();
    let upstream = Upstream::scripted({
        let asked = asked.clone();
        move |mut wire| {
            let asked = asked.clone();
            async move {
                while let Some(head) = wire.head().await {
                    wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                    asked.give();
                    assert_eq!(wire.request_body(&head).await.bytes, b"hello");
                    wire.send("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await;
                }
            }
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    for round in 1..=3 {
        client.send(format!("{HEAD}hello")).await;
        assert_eq!(client.reply().await.status(), 200, "round {round}");
        asked.given(round).await;
    }
    world.finish().await;
}
