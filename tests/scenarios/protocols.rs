//! HTTP/1.1 and HTTP/2 towards clients, in cleartext and by TLS, and few connections towards upstreams.

use adit_testkit::h2::{Fed, H2};
use adit_testkit::{Upstream, World, within};
use http_body_util::BodyExt as _;
use hyper::{Request, Version};

#[tokio::test]
async fn cleartext_clients_speak_either_version_from_the_first_byte() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    assert!(world.get("a.example", "/").await.head.first.starts_with("HTTP/1.1 200 "));
    let mut client = world.h2().await;
    let response = client.get("a.example", "/").await;
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
    drop((client, response));
    world.finish().await;
}

#[tokio::test]
async fn tls_clients_get_the_version_that_alpn_agrees_on() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut both = world.tls_wire(&[b"h2", b"http/1.1"]).await;
    assert_eq!(both.alpn.take().as_deref(), Some(&b"h2"[..]));
    let mut client = H2::on(both).await;
    let request = Request::get("https://a.example/").body(Fed::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let seen = within("the body", response.collect()).await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&seen).contains("x-forwarded-proto: https"), "{seen:?}");
    drop(client);
    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        let mut client = world.tls_wire(alpn).await;
        assert_eq!(client.alpn.as_deref(), alpn.first().copied());
        assert_eq!(client.get("a.example", "/").await.status(), 200);
        assert_eq!(client.get("a.example", "/").await.status(), 200, "and stays");
    }
    world.finish().await;
}

#[tokio::test]
async fn requests_one_after_the_other_share_one_connection_to_the_upstream() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    for _ in 0..50 {
        assert_eq!(client.get("a.example", "/").await.status(), 200);
        assert_eq!(client.post("a.example", "/", b"body").await.status(), 200);
    }
    let mut client = world.h2().await;
    for _ in 0..50 {
        let response = client.get("a.example", "/").await;
        within("the body", response.collect()).await.unwrap();
    }
    drop(client);
    for _ in 0..10 {
        assert_eq!(world.get("a.example", "/").await.status(), 200, "also for clients that come and go");
    }
    assert_eq!(upstream.requests().len(), 160);
    // A body is not sent on a connection that was idle for seconds, as it may be while the machine does something else.
    assert!(upstream.connections() < 30, "{} connections", upstream.connections());
    world.finish().await;
}

#[tokio::test]
async fn requests_beside_each_other_share_one_http2_connection_and_do_not_wait_for_each_other() {
    let upstream = Upstream::answering(|request| adit_testkit::Answer::text(request.head.target())).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let client = std::sync::Arc::new(tokio::sync::Mutex::new(world.h2().await));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let client = std::sync::Arc::clone(&client);
        tasks.spawn(async move {
            let uri = format!("http://a.example/{number}");
            let sent = client.lock().await.start(Request::get(uri).body(Fed::empty()).unwrap());
            let body = within("the body", sent.await.unwrap().collect()).await.unwrap().to_bytes();
            assert_eq!(body, format!("/{number}"));
        });
    }
    within("all of them", tasks.join_all()).await;
    drop(client);
    assert_eq!(upstream.requests().len(), 100);
    assert!(upstream.connections() <= 100);
    world.finish().await;
}

#[tokio::test]
async fn a_stalled_response_holds_up_no_other_on_its_connection() {
    let upstream = Upstream::scripted(|mut wire| async move {
        wire.head().await;
        wire.ended().await;
    })
    .await;
    let other = Upstream::named("other").await;
    let world = World::new().offer("a.example", &upstream).offer("b.example", &other).run().await;
    let mut client = world.h2().await;
    let stalled = client.start(Request::get("http://a.example/").body(Fed::empty()).unwrap());
    for _ in 0..20 {
        assert_eq!(client.get("b.example", "/").await.status(), 200);
    }
    drop((stalled, client));
    world.finish().await;
}
