//! What an upstream sends is held to the same rules as what a client sends: one framing, one reading, no surprise.

use adit_testkit::{Answer, Upstream, World};

#[tokio::test]
async fn a_response_that_can_be_read_in_two_ways_is_not_passed_on() {
    let table = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 10\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzzz",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ];
    for bytes in table {
        let upstream = Upstream::answering(move |_| Answer::raw(bytes)).await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let reply = world.get("a.example", "/").await;
        assert_eq!((reply.status(), reply.reason()), (502, Some("upstream_invalid")), "{bytes:?}");
        world.finish().await;
    }
}

#[tokio::test]
async fn an_upgrade_to_anything_but_what_was_asked_for_is_not_passed_on() {
    for agreed in ["", "Upgrade: evil/1\r\n", "Upgrade: h2c\r\n"] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{agreed}\r\n");
        let upstream = Upstream::answering(move |_| Answer::raw(answer.clone())).await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let mut client = world.wire().await;
        client
            .send("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.reason()), (502, Some("upstream_invalid")), "{agreed:?}");
        world.finish().await;
    }
}

#[tokio::test]
async fn an_upstream_that_is_for_ever_about_to_answer_is_given_up() {
    let upstream = Upstream::scripted(|mut wire| async move {
        wire.head().await;
        while wire.try_send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await.is_ok() {}
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    let mut interims = 0;
    loop {
        let head = client.head().await.expect("an answer");
        if head.status() != 103 {
            assert_eq!((head.status(), head.field("adit-reason")), (502, Some("upstream_invalid")));
            break;
        }
        interims += 1;
    }
    assert!(interims <= 32, "{interims}");
    world.finish().await;
}

#[tokio::test]
async fn a_body_without_a_length_reaches_the_upstream_whatever_the_method() {
    let upstream = Upstream::answering(|_| Answer::text("ok")).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let methods = ["GET", "HEAD", "DELETE", "OPTIONS", "POST"];
    for method in methods {
        let mut client = world.wire().await;
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(client.reply_to(method).await.status(), 200);
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), methods.len());
    for request in requests {
        assert_eq!(request.content.bytes, b"hello", "{}", request.head.method());
    }
    world.finish().await;
}

#[tokio::test]
async fn an_upstream_of_http_1_0_does_not_cost_the_next_request_its_body() {
    let upstream = Upstream::answering(|_| {
        Answer::raw("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    assert_eq!(world.get("a.example", "/").await.status(), 200);
    let mut client = world.wire().await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(client.reply().await.status(), 200);
    assert_eq!(upstream.requests()[1].content.bytes, b"hello");
    world.finish().await;
}

#[tokio::test]
async fn a_request_whose_answer_had_begun_is_not_sent_again() {
    for beginning in ["H", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let upstream = Upstream::scripted(move |mut wire| async move {
            if wire.head().await.is_some() {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                if wire.head().await.is_some() {
                    wire.send(beginning).await;
                }
            }
        })
        .await;
        let world = World::new().offer("a.example", &upstream).run().await;
        assert_eq!(world.get("a.example", "/first").await.status(), 200);
        let mut client = world.wire().await;
        client.send("GET /second HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        let mut head = client.head().await.expect("an answer");
        while head.status() == 103 {
            head = client.head().await.expect("an answer");
        }
        assert_eq!(head.status(), 502, "{beginning:?}");
        assert_eq!(upstream.connections(), 1, "{beginning:?}");
        world.finish().await;
    }
}

#[tokio::test]
async fn trailers_cannot_bring_what_the_head_must_settle() {
    let upstream = Upstream::answering(|_| Answer::text("ok")).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\nte: trailers\r\n\
             trailer: x-forwarded-for, x-sum\r\n\r\n1\r\nx\r\n0\r\nx-forwarded-for: 6.6.6.6\r\nx-sum: 1\r\n\r\n",
        )
        .await;
    assert_eq!(client.reply().await.status(), 200);
    let requests = upstream.requests();
    let trailers = format!("{:?}", requests[0].content);
    assert!(!trailers.contains("6.6.6.6"), "{trailers}");
    world.finish().await;
}

#[tokio::test]
async fn a_service_that_leads_back_to_its_gateway_is_told_so_after_one_round() {
    let world = World::new().run().await;
    let gateway = format!("http://{}", world.http_addr());
    let mut world = world;
    world.join(adit_testkit::AgentPlan::new().offer("loop.example", gateway)).await;
    let reply = world.get("loop.example", "/").await;
    assert_eq!((reply.status(), reply.text().contains("loop_detected")), (508, true), "{}", reply.text());
    world.finish().await;
}
