//! Nobody holds a place for ever: what stands still is answered, closed or cut in its time, and only that.

use std::time::Duration;

use adit_testkit::h2::{Fed, frame, headers, preface};
use adit_testkit::{Signal, Upstream, Wire, World, within};
use http_body_util::BodyExt as _;
use hyper::Request;

const SHORT: Duration = Duration::from_millis(300);
/// For what has to come before a timeout as well: more than a busy machine stands still.
const A_WHILE: Duration = Duration::from_secs(3);

/// Reads requests, tells, and never answers; tells again when its connection has ended.
async fn silent(came: &Signal, ended: &Signal) -> Upstream {
    let (came, ended) = (came.clone(), ended.clone());
    Upstream::scripted(move |mut wire| {
        let (came, ended) = (came.clone(), ended.clone());
        async move {
            wire.head().await;
            came.give();
            wire.ended().await;
            ended.give();
        }
    })
    .await
}

#[tokio::test]
async fn a_head_that_does_not_come_whole_is_answered_with_408() {
    let world = World::new().limits(|limits| limits.header_timeout = SHORT).run().await;
    for part in ["G", "GET / HTTP/1.1\r\nhost: a.example\r\n", "GET / HTTP/1.1\r\nhost: a.example\r\nx"] {
        let mut client = world.wire().await;
        client.send(part).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.reason()), (408, Some("request_timeout")), "{part:?}");
        assert_eq!(client.rest().await, b"");
    }
    world.sum_becomes("adit_refusals_total", &[("reason", "request_timeout")], 3).await;
    world.finish().await;
}

#[tokio::test]
async fn the_preface_of_http2_that_does_not_come_whole_ends_the_connection() {
    let world = World::new().limits(|limits| limits.header_timeout = SHORT).run().await;
    let mut client = world.wire().await;
    client.send("PRI * HTTP/2.0\r\n").await;
    client.ended().await;
    world.finish().await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_happen_ends_the_connection() {
    let world = World::new().limits(|limits| limits.header_timeout = SHORT).run().await;
    let mut client = Wire::tcp(world.https()).await;
    client.send([0x16, 3, 1]).await;
    client.ended().await;
    world.finish().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let upstream = Upstream::named("ok").await;
    let world =
        World::new().limits(|limits| limits.idle_timeout = SHORT).offer("a.example", &upstream).run().await;
    let mut fresh = world.wire().await;
    assert_eq!(fresh.rest().await, b"");
    let mut used = world.wire().await;
    assert_eq!(used.get("a.example", "/").await.status(), 200);
    assert_eq!(used.rest().await, b"");
    let mut client = world.h2().await;
    assert_eq!(client.get("a.example", "/").await.status(), 200);
    world.sum_becomes("adit_public_connections", &[], 0).await;
    world.finish().await;
}

#[tokio::test]
async fn a_body_that_stands_still_is_answered_with_408_and_never_arrives_whole() {
    for coding in ["content-length: 1000", "transfer-encoding: chunked"] {
        let (came, ended) = (Signal::default(), Signal::default());
        let upstream = silent(&came, &ended).await;
        let world = World::new()
            .limits(|limits| limits.stall_timeout = SHORT)
            .offer("a.example", &upstream)
            .run()
            .await;
        let mut client = world.wire().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a.example\r\n{coding}\r\n\r\n4\r\nabcd\r\n")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.reason()), (408, Some("request_timeout")), "{coding}");
        ended.given(1).await;
        world.finish().await;
    }
}

#[tokio::test]
async fn a_http1_client_that_does_not_take_its_response_is_cut() {
    let ended = Signal::default();
    let upstream = endless(&ended).await;
    let world =
        World::new().limits(|limits| limits.stall_timeout = SHORT).offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    ended.given(1).await;
    world.sum_becomes("adit_public_connections", &[], 0).await;
    drop(client);
    world.finish().await;
}

/// Sends without end; tells when its connection has ended.
async fn endless(ended: &Signal) -> Upstream {
    let ended = ended.clone();
    Upstream::scripted(move |mut wire| {
        let ended = ended.clone();
        async move {
            wire.head().await;
            wire.send("HTTP/1.1 200 X\r\n\r\n").await;
            let piece = vec![b'x'; 64 * 1024];
            while let Ok(1..) = wire.write_some(&piece).await {}
            ended.give();
        }
    })
    .await
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_answered_for_with_504() {
    let (came, ended) = (Signal::default(), Signal::default());
    let upstream = silent(&came, &ended).await;
    let world = World::new()
        .limits(|limits| limits.response_timeout = SHORT)
        .offer("a.example", &upstream)
        .run()
        .await;
    let mut client = world.wire().await;
    for request in 1..=2 {
        let reply = client.get("a.example", "/").await;
        assert_eq!((reply.status(), reply.reason()), (504, Some("upstream_timeout")));
        ended.given(request).await;
    }
    let mut client = world.h2().await;
    let response = client.get("a.example", "/").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["adit-reason"]),
        (504, &"upstream_timeout".parse().unwrap())
    );
    drop((client, response));
    world.sum_becomes("adit_refusals_total", &[("reason", "upstream_timeout")], 3).await;
    world.finish().await;
}

#[tokio::test]
async fn an_upstream_that_does_not_finish_connecting_is_answered_for_with_504() {
    // Takes the connection and says nothing in the TLS handshake.
    let upstream = Upstream::scripted(|mut wire| async move { wire.ended().await }).await;
    let world = World::new()
        .limits(|limits| limits.connect_timeout = SHORT)
        .offer("a.example", format!("https+any://{}", upstream.addr()))
        .run()
        .await;
    let reply = world.get("a.example", "/").await;
    assert_eq!((reply.status(), reply.reason()), (504, Some("upstream_timeout")));
    world.finish().await;
}

#[tokio::test]
async fn silence_inside_a_response_is_not_limited() {
    let go = Signal::default();
    let upstream = Upstream::scripted({
        let go = go.clone();
        move |mut wire| {
            let go = go.clone();
            async move {
                wire.head().await;
                wire.send("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
                go.given(1).await;
                wire.send("3\r\ntwo\r\n0\r\n\r\n").await;
            }
        }
    })
    .await;
    let world = World::new()
        .limits(|limits| {
            limits.header_timeout = A_WHILE;
            limits.idle_timeout = A_WHILE;
            limits.stall_timeout = A_WHILE;
            limits.response_timeout = A_WHILE;
            limits.connect_timeout = A_WHILE;
        })
        .offer("a.example", &upstream)
        .run()
        .await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    assert_eq!(client.chunk().await.unwrap(), b"one");
    let mut second = world.h2().await;
    let mut response = second.get("a.example", "/").await;
    assert_eq!(within("a part", response.frame()).await.unwrap().unwrap().into_data().unwrap(), "one");
    // Connections without a request come to their end one after the other, each a whole timeout later.
    for _ in 0..2 {
        world.wire().await.ended().await;
    }
    go.give();
    assert_eq!(client.chunk().await.unwrap(), b"two");
    assert_eq!(client.chunk().await, None);
    assert_eq!(within("the rest", response.collect()).await.unwrap().to_bytes(), "two");
    drop((client, second));
    world.finish().await;
}

#[tokio::test]
async fn a_http2_upload_that_stands_still_is_ended() {
    let (came, ended) = (Signal::default(), Signal::default());
    let upstream = silent(&came, &ended).await;
    let world = World::new()
        .limits(|limits| {
            limits.stall_timeout = SHORT;
            limits.response_timeout = SHORT;
        })
        .offer("a.example", &upstream)
        .run()
        .await;
    let mut client = world.h2().await;
    let (feed, body) = Fed::pair();
    feed.data("part").await;
    let response = client.send(Request::post("http://a.example/").body(body).unwrap()).await.unwrap();
    assert!(matches!(response.status().as_u16(), 408 | 504), "{response:?}");
    ended.given(1).await;
    drop((client, response, feed));
    world.finish().await;
}

#[tokio::test]
async fn a_http2_client_that_does_not_take_its_response_is_cut() {
    let ended = Signal::default();
    let upstream = endless(&ended).await;
    let world =
        World::new().limits(|limits| limits.stall_timeout = SHORT).offer("a.example", &upstream).run().await;
    let mut client = world.h2().await;
    let response = client.get("a.example", "/").await;
    ended.given(1).await;
    drop((client, response));
    world.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_nobody_reads_its_upload_is_noticed() {
    for coding in ["content-length: 1000000000", "transfer-encoding: chunked"] {
        let ended = Signal::default();
        let upstream = Upstream::scripted({
            let ended = ended.clone();
            move |mut wire| {
                let ended = ended.clone();
                async move {
                    wire.head().await;
                    wire.send("HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nab").await;
                    ended.given(1).await;
                }
            }
        })
        .await;
        let world = World::new()
            .limits(|limits| limits.stall_timeout = SHORT)
            .offer("a.example", &upstream)
            .run()
            .await;
        let mut client = world.wire().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a.example\r\n{coding}\r\n\r\n")).await;
        let piece = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
        let blocked = Duration::from_millis(100);
        while let Ok(Ok(1..)) = tokio::time::timeout(blocked, client.write_some(&piece)).await {}
        drop(client);
        world.sum_becomes("adit_public_connections", &[], 0).await;
        world.sum_becomes("adit_flows", &[], 0).await;
        ended.give();
        world.finish().await;
    }
}

#[tokio::test]
async fn a_http2_client_that_does_not_finish_what_it_begins_is_cut() {
    let world = World::new().limits(|limits| limits.header_timeout = SHORT).run().await;
    let begun = frame(1, 0, 1, &[0x82]);
    for rest in [&[][..], &frame(4, 0, 0, &[])[..5], &[frame(4, 0, 0, &[]), begun].concat()] {
        let mut client = world.wire().await;
        client.send([&preface()[..24], rest].concat()).await;
        client.ended().await;
    }
    world.finish().await;
}

#[tokio::test]
async fn a_http2_client_that_is_told_to_leave_and_does_not_is_cut() {
    let upstream = Upstream::named("ok").await;
    let world = World::new()
        .limits(|limits| {
            limits.idle_timeout = SHORT;
            limits.header_timeout = SHORT;
        })
        .offer("a.example", &upstream)
        .run()
        .await;
    let mut client = world.wire().await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    client.send([preface(), headers(1, true, &fields)].concat()).await;
    // It answers nothing, not even the question whether it has seen everything.
    client.ended().await;
    assert_eq!(upstream.requests().len(), 1);
    world.finish().await;
}
