//! Every kind of upstream an agent can offer, and every way it can fail, each told by its own name.

use std::fs;

use adit_testkit::wire::Reply;
use adit_testkit::world::files;
use adit_testkit::{Answer, Signal, Upstream, World, certificate, within};
use http_body_util::BodyExt as _;

fn told(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status(), reply.reason())
}

#[tokio::test]
async fn an_https_upstream_is_verified_unless_told_otherwise() {
    let config = certificate::self_signed(&[b"http/1.1"]);
    let upstream = Upstream::answering_tls(config, |_| Answer::text("by TLS")).await;
    let any = upstream.to_string().replace("https://", "https+any://");
    let world = World::new().offer("strict.example", &upstream).offer("any.example", any).run().await;
    assert_eq!(told(&world.get("strict.example", "/").await), (502, Some("upstream_tls")));
    let mut client = world.wire().await;
    for _ in 0..3 {
        assert_eq!(client.get("any.example", "/").await.text(), "by TLS");
    }
    assert_eq!(upstream.connections(), 1, "TLS upstreams keep their connections too");
    world.finish().await;
}

#[tokio::test]
async fn a_unix_socket_is_an_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let upstream = Upstream::answering_unix(&path, |request| Answer::text(request.head.target()));
    let gone = directory.path().join("gone.sock");
    drop(std::os::unix::net::UnixListener::bind(&gone).unwrap());
    let world = World::new()
        .offer("a.example", &upstream)
        .offer("gone.example", format!("unix:{}", gone.display()))
        .offer("never.example", format!("unix:{}", directory.path().join("never.sock").display()))
        .run()
        .await;
    assert_eq!(world.get("a.example", "/x?y").await.text(), "/x?y");
    assert_eq!(told(&world.get("gone.example", "/").await), (502, Some("upstream_refused")));
    assert_eq!(told(&world.get("never.example", "/").await), (502, Some("upstream_unreachable")));
    world.finish().await;
}

#[tokio::test]
async fn a_directory_is_an_upstream() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.txt"), "0123456789").unwrap();
    let world = World::new().offer("a.example", files(directory.path())).run().await;
    let mut client = world.wire().await;
    let whole = client.get("a.example", "/a.txt").await;
    assert_eq!((whole.status(), whole.text().as_str()), (200, "0123456789"));
    assert!(whole.field("content-type").unwrap().starts_with("text/plain"), "{whole:?}");
    let missing = client.get("a.example", "/b.txt").await;
    assert_eq!(
        (missing.status(), missing.reason()),
        (404, None),
        "the upstream's own word, not the gateway's"
    );
    client.send("GET /a.txt HTTP/1.1\r\nhost: a.example\r\nrange: bytes=2-4\r\n\r\n").await;
    let part = client.reply().await;
    assert_eq!((part.status(), part.text().as_str()), (206, "234"));
    assert_eq!(part.field("content-range"), Some("bytes 2-4/10"));
    client.send("HEAD /a.txt HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.reply_to("HEAD").await.field("content-length"), Some("10"));
    let mut client = world.h2().await;
    let response = client.get("a.example", "/a.txt").await;
    assert_eq!(within("the body", response.collect()).await.unwrap().to_bytes(), "0123456789");
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn a_fixed_status_is_an_upstream() {
    let world = World::new()
        .offer("gone.example", "http_status:410")
        .offer("none.example", "http_status:204")
        .run()
        .await;
    let mut client = world.wire().await;
    for _ in 0..3 {
        assert_eq!(client.get("gone.example", "/x").await.status(), 410);
        assert_eq!(client.get("none.example", "/").await.status(), 204);
        assert_eq!(client.post("gone.example", "/", b"body").await.status(), 410);
    }
    world.finish().await;
}

#[tokio::test]
async fn upstreams_that_cannot_be_reached_are_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let world = World::new()
        .offer("refused.example", refused)
        .offer("nowhere.example", "http://nowhere.invalid:80")
        .run()
        .await;
    let mut client = world.wire().await;
    for (host, reason) in
        [("refused.example", "upstream_refused"), ("nowhere.example", "upstream_unreachable")]
    {
        assert_eq!(told(&client.get(host, "/").await), (502, Some(reason)));
        assert_eq!(
            told(&client.post(host, "/", b"body").await),
            (502, Some(reason)),
            "and the connection stays"
        );
    }
    let lines = world.request_log(4).await;
    assert!(lines.iter().all(|line| line["agent"].is_string() && line["status"] == 502), "{lines:#?}");
    let ended = world.agent_metrics(0).await.sum("adit_agent_streams_ended_total", &[]);
    assert!((ended - 4.0).abs() < 0.5, "an upstream that refuses is asked once for each request: {ended}");
    world.finish().await;
}

#[tokio::test]
async fn responses_that_break_the_rules_of_http_are_not_passed_on() {
    let many = "x: y\r\n".repeat(200);
    let large = "x".repeat(200_000);
    let rows = [
        "garbage\r\n\r\n".to_owned(),
        "\r\n\r\n\r\n\r\n\0\0\0\0".to_owned(),
        "HTTP/1.1 abc X\r\n\r\n".to_owned(),
        "HTTP/1.1 99 X\r\n\r\n".to_owned(),
        "HTTP/3.7 200 X\r\n\r\n".to_owned(),
        "HTTP/1.1 200 X\r\nno colon\r\n\r\n".to_owned(),
        "HTTP/1.1 200 X\r\nbad name: y\r\n\r\n".to_owned(),
        "HTTP/1.1 200 X\r\nx: a\0b\r\n\r\n".to_owned(),
        "HTTP/1.1 200 X\r\ncontent-length: x\r\n\r\n".to_owned(),
        "HTTP/1.1 200 X\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(),
        format!("HTTP/1.1 200 X\r\n{many}\r\n"),
        format!("HTTP/1.1 200 X\r\nx: {large}\r\n\r\n"),
    ];
    for row in rows {
        let answer = row.clone();
        let upstream = Upstream::answering(move |_| Answer::raw(&answer).and_close()).await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let shown = &row[..row.len().min(60)];
        assert_eq!(told(&world.get("a.example", "/").await), (502, Some("upstream_invalid")), "{shown:?}");
        world.finish().await;
    }
}

#[tokio::test]
async fn an_upstream_that_closes_without_an_answer_is_told() {
    for answer in ["", "HTTP/1.1 20", "HTTP/1.1 200 X\r\ncontent-len"] {
        let upstream = Upstream::answering(move |_| Answer::raw(answer).and_close()).await;
        let world = World::new().offer("a.example", &upstream).run().await;
        let mut client = world.wire().await;
        assert_eq!(told(&client.get("a.example", "/").await), (502, Some("upstream_closed")), "{answer:?}");
        assert_eq!(
            told(&client.post("a.example", "/", b"body").await),
            (502, Some("upstream_closed")),
            "{answer:?}"
        );
        world.finish().await;
    }
}

#[tokio::test]
async fn an_agent_that_dies_before_the_response_is_told() {
    let came = Signal::default();
    let upstream = Upstream::scripted({
        let came = came.clone();
        move |mut wire| {
            let came = came.clone();
            async move {
                wire.head().await;
                came.give();
                wire.ended().await;
            }
        }
    })
    .await;
    let mut world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    // Not a GET, which would be given to another agent if there were one.
    client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n").await;
    came.given(1).await;
    drop(world.take_agent(0));
    assert_eq!(told(&client.reply().await), (502, Some("agent_lost")));
    world.agents_become(0).await;
    world.finish().await;
}

#[tokio::test]
async fn an_agent_that_dies_inside_a_response_cuts_it() {
    for framing in
        ["content-length: 100\r\n\r\npart", "transfer-encoding: chunked\r\n\r\n4\r\npart\r\n", "\r\npart"]
    {
        let upstream = Upstream::scripted(move |mut wire| async move {
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 X\r\n{framing}")).await;
            wire.ended().await;
        })
        .await;
        let mut world = World::new().offer("a.example", &upstream).run().await;
        let mut client = world.wire().await;
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        while !client.waiting().windows(4).any(|part| part == b"part") {
            assert!(client.fill().await > 0, "{framing:?}");
        }
        let mut second = world.h2().await;
        let mut response = second.get("a.example", "/").await;
        assert_eq!(within("a part", response.frame()).await.unwrap().unwrap().into_data().unwrap(), "part");
        drop(world.take_agent(0));
        let reply = client.reply().await;
        assert!(!reply.content.complete, "{framing:?}: a cut response looks complete: {reply:?}");
        assert!(within("the end", response.collect()).await.is_err(), "{framing:?}");
        drop(second);
        let lines = world.request_log(2).await;
        assert!(lines.iter().all(|line| line["reason"] == "agent_lost"), "{lines:#?}");
        world.finish().await;
    }
}
