//! Bytes go on as they come, in both directions, with everything that may stand before and behind them.

use adit_testkit::h2::Fed;
use adit_testkit::{Answer, Signal, Upstream, World, within};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::header::{HeaderMap, HeaderValue};

/// Sends each event only when the one before it has been received.
async fn events(received: &Signal) -> Upstream {
    let received = received.clone();
    Upstream::scripted(move |mut wire| {
        let received = received.clone();
        async move {
            wire.head().await;
            wire.send(
                "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .await;
            for event in 1..=5 {
                received.given(event).await;
                wire.send(format!("9\r\ndata: {event}\n\n\r\n")).await;
            }
            received.given(6).await;
            wire.send("0\r\n\r\n").await;
        }
    })
    .await
}

#[tokio::test]
async fn an_event_reaches_a_http1_client_before_the_next_one_is_sent() {
    let received = Signal::default();
    let upstream = events(&received).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    received.give();
    for event in 1..=5 {
        assert_eq!(client.chunk().await.unwrap(), format!("data: {event}\n\n").as_bytes());
        received.give();
    }
    assert_eq!(client.chunk().await, None);
    world.finish().await;
}

#[tokio::test]
async fn an_event_reaches_a_http2_client_before_the_next_one_is_sent() {
    let received = Signal::default();
    let upstream = events(&received).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.h2().await;
    let mut response = client.get("a.example", "/").await;
    received.give();
    for event in 1..=5 {
        let frame = within("an event", response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), format!("data: {event}\n\n"));
        received.give();
    }
    assert_eq!(within("the end", response.collect()).await.unwrap().to_bytes(), "");
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn a_part_of_a_body_without_announced_length_arrives_before_the_next_is_sent() {
    let received = Signal::default();
    let upstream = Upstream::scripted({
        let received = received.clone();
        move |mut wire| {
            let received = received.clone();
            async move {
                wire.head().await;
                wire.send("HTTP/1.1 200 X\r\n\r\none").await;
                received.given(1).await;
                wire.send("two").await;
            }
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().field("transfer-encoding"), Some("chunked"));
    assert_eq!(client.chunk().await.unwrap(), b"one");
    received.give();
    assert_eq!(client.chunk().await.unwrap(), b"two");
    assert_eq!(client.chunk().await, None);
    drop(client);
    let mut old = world.wire().await;
    old.send("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").await;
    let reply = old.reply().await;
    assert_eq!((reply.field("transfer-encoding"), reply.text().as_str()), (None, "onetwo"));
    world.finish().await;
}

#[tokio::test]
async fn a_part_of_an_upload_reaches_the_upstream_before_the_next_is_sent() {
    let received = Signal::default();
    let upstream = Upstream::scripted({
        let received = received.clone();
        move |mut wire| {
            let received = received.clone();
            async move {
                while wire.head().await.is_some() {
                    while wire.chunk().await.is_some() {
                        received.give();
                    }
                    assert_eq!(wire.line().await.unwrap(), "");
                    wire.send("HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\ndone").await;
                }
            }
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for part in 1..=5 {
        client.send("4\r\npart\r\n").await;
        received.given(part).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "done");

    let mut client = world.h2().await;
    let (feed, body) = Fed::pair();
    let sending = async {
        for part in 6..=10 {
            feed.data("part").await;
            received.given(part).await;
        }
        drop(feed);
    };
    let request = Request::post("http://a.example/").body(body).unwrap();
    let (response, ()) = tokio::join!(client.send(request), sending);
    assert_eq!(response.unwrap().collect().await.unwrap().to_bytes(), "done");
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn trailers_of_a_response_reach_clients_of_both_versions() {
    let upstream = Upstream::answering(|_| {
        Answer::raw(
            "HTTP/1.1 200 X\r\ntrailer: x-sum, x-more\r\ntransfer-encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: 42\r\nx-more: yes\r\n\r\n",
        )
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    let reply = client.reply().await;
    assert!(reply.content.complete && reply.text() == "body", "{reply:?}");
    assert_eq!(reply.field("trailer"), Some("x-sum, x-more"));
    let trailers = &reply.content.trailers;
    assert!(trailers.contains(&("x-sum".into(), "42".into())), "{trailers:?}");
    assert!(trailers.contains(&("x-more".into(), "yes".into())), "{trailers:?}");

    let mut client = world.h2().await;
    let response = client.get("a.example", "/").await;
    let collected = within("the body", response.collect()).await.unwrap();
    let trailers = collected.trailers().unwrap();
    assert_eq!((trailers["x-sum"].as_bytes(), trailers["x-more"].as_bytes()), (&b"42"[..], &b"yes"[..]));
    assert_eq!(collected.to_bytes(), "body");
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_upstream_from_clients_of_both_versions() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a.example\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n",
        )
        .await;
    assert_eq!(client.reply().await.status(), 200);

    let mut client = world.h2().await;
    let (feed, body) = Fed::pair();
    let sending = async {
        feed.data("body").await;
        feed.trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("42"))]))
            .await;
        drop(feed);
    };
    let request = Request::post("http://a.example/").header("trailer", "x-sum").body(body).unwrap();
    let (response, ()) = tokio::join!(client.send(request), sending);
    assert_eq!(response.unwrap().status(), 200);
    drop(client);

    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.content.bytes, b"body");
        assert_eq!(request.content.trailers, [("x-sum".to_owned(), "42".to_owned())], "{request:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn early_hints_reach_a_http1_client_before_the_upstream_has_answered() {
    let received = Signal::default();
    let upstream = Upstream::scripted({
        let received = received.clone();
        move |mut wire| {
            let received = received.clone();
            async move {
                while wire.head().await.is_some() {
                    wire.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nconnection: x\r\nx: y\r\n\r\n")
                        .await;
                    received.given(1).await;
                    wire.send("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await;
                }
            }
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    let hints = client.head().await.unwrap();
    assert_eq!((hints.status(), hints.field("link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!((hints.field("connection"), hints.field("x")), (None, None), "hop-by-hop fields stay behind");
    received.give();
    assert_eq!(client.head().await.unwrap().status(), 200);
    assert_eq!(client.take(2).await, b"ok");

    // A client of HTTP/1.0 does not know them, and one of HTTP/2 gets at least its response.
    let mut old = world.wire().await;
    old.send("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(old.head().await.unwrap().status(), 200);
    let mut client = world.h2().await;
    assert_eq!(client.get("a.example", "/").await.status(), 200);
    drop(client);
    world.finish().await;
}
