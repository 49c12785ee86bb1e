//! Bodies of any size pass whole, and whoever does not read stops whoever sends after bounded bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_testkit::h2::Fed;
use adit_testkit::{Signal, Upstream, World, until, within};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Request;

/// What is offered to a side that does not read: more than all buffers on the way together.
const MUCH: usize = 512 << 20;
/// What all buffers on the way may take: the kernel's of six sockets, and ours.
const BOUND: usize = 96 << 20;
const LARGE: usize = 8 << 20;

/// Bytes that show when some of them are lost, twice or in another order.
fn pattern(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

/// Waits until a count has stood still for many looks in a row. Whoever is not stopped reaches [`MUCH`] instead.
async fn stands_still(count: &AtomicUsize) -> usize {
    let (mut last, mut looks) = (0, 0);
    until("the sender has stopped", || {
        let now = count.load(Ordering::SeqCst);
        looks = if now == last && now > 0 { looks + 1 } else { 0 };
        last = now;
        std::future::ready(if looks > 250 || now >= MUCH { Ok(now) } else { Err(now) })
    })
    .await
}

/// Sends without end and counts what is taken.
async fn pushing(pushed: &Arc<AtomicUsize>, ended: &Signal) -> Upstream {
    let (pushed, ended) = (Arc::clone(pushed), ended.clone());
    Upstream::scripted(move |mut wire| {
        let (pushed, ended) = (Arc::clone(&pushed), ended.clone());
        async move {
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 X\r\ncontent-length: {MUCH}\r\n\r\n")).await;
            let piece = vec![b'x'; 64 * 1024];
            while let Ok(n @ 1..) = wire.write_some(&piece).await {
                pushed.fetch_add(n, Ordering::SeqCst);
            }
            ended.give();
        }
    })
    .await
}

#[tokio::test]
async fn a_http1_client_that_does_not_read_stops_the_upstream_and_nobody_else() {
    let (pushed, ended) = (Arc::default(), Signal::default());
    let upstream = pushing(&pushed, &ended).await;
    let other = Upstream::named("other").await;
    let world = World::new().offer("a.example", &upstream).offer("b.example", &other).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    let stopped = stands_still(&pushed).await;
    assert!(stopped < BOUND, "the upstream could push {stopped} bytes");
    for _ in 0..20 {
        assert_eq!(world.get("b.example", "/").await.status(), 200, "a stalled stream costs only itself");
    }
    drop(client);
    ended.given(1).await;
    world.finish().await;
}

#[tokio::test]
async fn a_http2_client_that_does_not_read_stops_the_upstream_and_no_other_stream() {
    let (pushed, ended) = (Arc::default(), Signal::default());
    let upstream = pushing(&pushed, &ended).await;
    let other = Upstream::named("other").await;
    let world = World::new().offer("a.example", &upstream).offer("b.example", &other).run().await;
    let mut client = world.h2().await;
    let response = client.get("a.example", "/").await;
    let stopped = stands_still(&pushed).await;
    assert!(stopped < BOUND, "the upstream could push {stopped} bytes");
    for _ in 0..20 {
        assert_eq!(client.get("b.example", "/").await.status(), 200, "a stalled stream costs only itself");
    }
    drop(response);
    ended.given(1).await;
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_client() {
    let (pushed, done) = (Arc::<AtomicUsize>::default(), Signal::default());
    let upstream = Upstream::scripted({
        let done = done.clone();
        move |mut wire| {
            let done = done.clone();
            async move {
                wire.head().await;
                done.given(1).await;
            }
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {MUCH}\r\n\r\n")).await;
    let piece = vec![b'x'; 64 * 1024];
    let sending = async {
        while let Ok(n @ 1..) = client.write_some(&piece).await {
            pushed.fetch_add(n, Ordering::SeqCst);
        }
    };
    tokio::select! {
        stopped = stands_still(&pushed) => assert!(stopped < BOUND, "the client could push {stopped} bytes"),
        () = sending => panic!("the connection ended"),
    }
    done.give();
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions_and_versions() {
    let upstream = Upstream::answering(|request| adit_testkit::Answer::text(&request.content.bytes)).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let body = pattern(LARGE);
    let mut client = world.wire().await;
    let reply = client.post("a.example", "/", &body).await;
    assert!(reply.content.complete && reply.content.bytes == body, "{reply:?}");

    let mut client = world.h2().await;
    let (feed, fed) = Fed::pair();
    let pieces = Bytes::from(body.clone());
    let sending = async {
        for at in (0..LARGE).step_by(100_000) {
            feed.data(pieces.slice(at..LARGE.min(at + 100_000))).await;
        }
        drop(feed);
    };
    let receiving = async {
        let response = client.send(Request::post("http://a.example/").body(fed).unwrap()).await.unwrap();
        within("the body", response.collect()).await.unwrap().to_bytes()
    };
    let (echoed, ()) = tokio::join!(receiving, sending);
    assert!(echoed == body, "{} bytes came back, or others", echoed.len());
    drop(client);
    let samples = world.metrics().await;
    for direction in ["in", "out"] {
        let bytes =
            samples.sum("adit_service_bytes_total", &[("service", "a.example"), ("direction", direction)]);
        assert!((bytes - 2.0 * LARGE as f64).abs() < 0.5, "{direction}: {bytes}");
    }
    world.finish().await;
}
