//! Where a response ends is never in doubt, also when it has no body or comes before its request has ended.

use adit_testkit::h2::Fed;
use adit_testkit::{Answer, Signal, Upstream, World, within};
use http_body_util::BodyExt as _;
use hyper::Request;

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_at_the_next_response() {
    let upstream = Upstream::answering(|request| match request.head.target() {
        "/head" => Answer::raw("HTTP/1.1 200 X\r\ncontent-length: 1234\r\n\r\n"),
        "/head-chunked" => Answer::raw("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n"),
        "/204" => Answer::raw("HTTP/1.1 204 X\r\n\r\n"),
        "/304" => Answer::raw("HTTP/1.1 304 X\r\netag: \"e\"\r\n\r\n"),
        "/empty" => Answer::raw("HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n"),
        _ => Answer::text("ok"),
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    let rows = [
        ("HEAD", "/head", 200, Some("1234")),
        ("HEAD", "/head-chunked", 200, None),
        ("GET", "/204", 204, None),
        ("DELETE", "/204", 204, None),
        ("GET", "/304", 304, None),
        ("GET", "/empty", 200, Some("0")),
    ];
    for (method, target, status, length) in rows {
        client.send(format!("{method} {target} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        let reply = client.reply_to(method).await;
        assert_eq!((reply.status(), reply.field("content-length")), (status, length), "{method} {target}");
        assert_eq!(reply.field("etag"), (status == 304).then_some("\"e\""), "{method} {target}");
        assert_eq!(client.get("a.example", "/").await.text(), "ok", "behind {method} {target}");
    }
    // For DELETE it has to be one that was used a moment ago, which a busy machine may miss.
    assert!(upstream.connections() <= 2, "the upstream's connection stays in use");

    let mut client = world.h2().await;
    for (method, target, status, length) in rows {
        let request = Request::builder().method(method).uri(format!("http://a.example{target}"));
        let response = client.send(request.body(Fed::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{method} {target}");
        let shown = response.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(shown.as_deref(), length, "{method} {target}");
        assert_eq!(within("the body", response.collect()).await.unwrap().to_bytes(), "", "{method} {target}");
    }
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn an_early_response_reaches_a_client_that_is_still_sending_and_its_upload_ends() {
    let ended = Signal::default();
    let upstream = Upstream::scripted({
        let ended = ended.clone();
        move |mut wire| {
            let ended = ended.clone();
            async move {
                if wire.head().await.is_some() {
                    wire.send("HTTP/1.1 413 X\r\ncontent-length: 9\r\n\r\ntoo large").await;
                    wire.ended().await;
                    ended.give();
                }
            }
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 1000000\r\n\r\npart").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.text().as_str(), reply.content.complete), (413, "too large", true));
    // The rest of the body is not the next request, whatever it looks like.
    drop(client.try_send("GET /smuggled HTTP/1.1\r\nhost: a.example\r\n\r\n").await);
    drop(client);
    ended.given(1).await;

    let mut client = world.h2().await;
    let (feed, body) = Fed::pair();
    feed.data("part").await;
    let request = Request::post("http://a.example/").header("content-length", "1000000").body(body).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(within("the body", response.collect()).await.unwrap().to_bytes(), "too large");
    drop(feed);
    ended.given(2).await;
    drop(client);
    assert_eq!(world.request_log(2).await.len(), 2);
    world.finish().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    let all: String = (0..20).map(|i| format!("GET /{i} HTTP/1.1\r\nhost: a.example\r\n\r\n")).collect();
    client.send(all).await;
    for i in 0..20 {
        assert!(client.reply().await.text().starts_with(&format!("GET /{i} HTTP/1.1\r\n")));
    }
    world.finish().await;
}

#[tokio::test]
async fn a_http10_client_gets_one_response_and_the_end() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.reply().await.status(), 200);
    client.ended().await;
    let mut client = world.wire().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nhost: a.example\r\nconnection: keep-alive\r\n\r\n").await;
        assert_eq!(client.reply().await.status(), 200);
    }
    world.finish().await;
}
