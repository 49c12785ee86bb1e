//! Whoever goes away, the other end learns of it; and a response that was cut never looks complete.

use adit_testkit::h2::Fed;
use adit_testkit::{Answer, Signal, Upstream, World, within};
use http_body_util::BodyExt as _;
use hyper::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What an upstream does until its connection ends.
#[derive(Debug, Clone, Copy)]
enum Until {
    BeforeHead,
    InTheMiddle,
}

/// Answers as far as told and reports when a request has come and when its connection has ended.
async fn watching(until: Until, came: &Signal, ended: &Signal) -> Upstream {
    let (came, ended) = (came.clone(), ended.clone());
    Upstream::scripted(move |mut wire| {
        let (came, ended) = (came.clone(), ended.clone());
        async move {
            if wire.head().await.is_none() {
                return;
            }
            if matches!(until, Until::InTheMiddle) {
                wire.send("HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\npart").await;
            }
            came.give();
            wire.ended().await;
            ended.give();
        }
    })
    .await
}

#[tokio::test]
async fn a_http1_client_that_leaves_ends_the_upstreams_connection() {
    for until in [Until::BeforeHead, Until::InTheMiddle] {
        let (came, ended) = (Signal::default(), Signal::default());
        let upstream = watching(until, &came, &ended).await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let mut client = world.wire().await;
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        came.given(1).await;
        if matches!(until, Until::InTheMiddle) {
            assert_eq!(client.head().await.unwrap().status(), 200);
            assert_eq!(client.take(4).await, b"part");
        }
        drop(client);
        ended.given(1).await;
        let line = &world.request_log(1).await[0];
        assert_eq!(line["reason"], "client_gone", "{until:?}: {line}");
        let status = if matches!(until, Until::BeforeHead) { 499 } else { 200 };
        assert_eq!(line["status"], status, "{until:?}: {line}");
        world.finish().await;
    }
}

#[tokio::test]
async fn a_reset_http2_stream_ends_the_upstreams_connection_and_no_other_stream() {
    for until in [Until::BeforeHead, Until::InTheMiddle] {
        let (came, ended) = (Signal::default(), Signal::default());
        let upstream = watching(until, &came, &ended).await;
        let other = Upstream::named("other").await;
        let world = World::new().offer("a.example", &upstream).offer("b.example", &other).run().await;
        let mut client = world.h2().await;
        {
            let request = Request::get("http://a.example/").body(Fed::empty()).unwrap();
            let mut response = std::pin::pin!(client.send(request));
            match until {
                Until::BeforeHead => tokio::select! {
                    response = response.as_mut() => panic!("answered: {response:?}"),
                    () = came.given(1) => {}
                },
                Until::InTheMiddle => {
                    let mut response = response.await.unwrap();
                    let part = within("a part", response.frame()).await.unwrap().unwrap();
                    assert_eq!(part.into_data().unwrap(), "part");
                }
            }
        }
        ended.given(1).await;
        assert_eq!(client.get("b.example", "/").await.status(), 200, "the connection lives on");
        drop(client);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_http2_connection_that_ends_takes_its_upstream_connections_along() {
    let (came, ended) = (Signal::default(), Signal::default());
    let upstream = watching(Until::BeforeHead, &came, &ended).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.h2().await;
    tokio::select! {
        response = client.send(Request::get("http://a.example/").body(Fed::empty()).unwrap()) => panic!("{response:?}"),
        () = came.given(1) => {}
    }
    drop(client);
    ended.given(1).await;
    world.finish().await;
}

#[tokio::test]
async fn an_upload_that_its_client_gives_up_never_arrives_whole() {
    for coding in ["content-length: 1000", "transfer-encoding: chunked"] {
        let (came, ended) = (Signal::default(), Signal::default());
        let upstream = Upstream::scripted({
            let (came, ended) = (came.clone(), ended.clone());
            move |mut wire| {
                let (came, ended) = (came.clone(), ended.clone());
                async move {
                    let head = wire.head().await.unwrap();
                    came.give();
                    assert!(!wire.request_body(&head).await.complete, "a body that was cut looks complete");
                    ended.give();
                }
            }
        })
        .await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let mut client = world.wire().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a.example\r\n{coding}\r\n\r\n4\r\nabcd\r\n")).await;
        came.given(1).await;
        drop(client);
        ended.given(1).await;
        world.finish().await;
    }
}

#[tokio::test]
async fn a_response_that_its_upstream_cuts_never_looks_complete() {
    let head = "HTTP/1.1 200 X\r\n";
    let rows = [
        ("content-length", "content-length: 1000\r\n\r\npart"),
        ("chunk", "transfer-encoding: chunked\r\n\r\n4\r\npart\r\n"),
        ("inside a chunk", "transfer-encoding: chunked\r\n\r\n8\r\npart"),
        ("before the trailers' end", "transfer-encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nx: y\r\n"),
    ];
    for (what, rest) in rows {
        let cut = Signal::default();
        let upstream = Upstream::scripted({
            let cut = cut.clone();
            move |mut wire| {
                let cut = cut.clone();
                async move {
                    if wire.head().await.is_some() {
                        wire.send(format!("{head}{rest}")).await;
                        cut.given(wire.number).await;
                    }
                }
            }
        })
        .await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let mut client = world.wire().await;
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        while !client.waiting().windows(4).any(|part| part == b"part") {
            assert!(client.fill().await > 0, "{what}");
        }
        cut.give();
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "part"), "{what}");
        assert!(!reply.content.complete, "{what}: a cut response looks complete");

        let mut client = world.h2().await;
        let mut response = client.get("a.example", "/").await;
        let part = within("a part", response.frame()).await.unwrap().unwrap();
        assert_eq!(part.into_data().unwrap(), "part", "{what}");
        cut.give();
        let end = within("the end", response.collect()).await;
        assert!(end.is_err(), "{what}: a cut response looks complete: {end:?}");
        drop(client);
        let lines = world.request_log(2).await;
        assert!(lines.iter().all(|line| line["reason"] == "upstream_closed"), "{what}: {lines:#?}");
        world.sum_becomes("adit_refusals_total", &[("reason", "upstream_closed")], 2).await;
        world.finish().await;
    }
}

#[tokio::test]
async fn a_response_that_does_not_wait_for_the_body_says_that_the_connection_ends() {
    let upstream = Upstream::scripted(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await;
        wire.ended().await;
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    for (host, status) in [("a.example", 200), ("nobody.example", 404)] {
        let mut client = world.wire().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 9\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.field("connection")), (status, Some("close")), "{host}");
        client.ended().await;
    }
    world.finish().await;
}

#[tokio::test]
async fn a_client_of_http_1_0_can_tell_a_cut_body_from_a_whole_one() {
    let upstream = Upstream::answering(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").and_close()
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = tokio::net::TcpStream::connect(world.http_addr()).await.unwrap();
    client.write_all(b"GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    // The end of the connection is the end of the body in this version, so a cut has to be an error.
    let ended = client.read_to_end(&mut got).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{:?}", got.escape_ascii());
    world.finish().await;
}
