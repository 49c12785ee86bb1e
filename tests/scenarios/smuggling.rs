//! No two readers of one HTTP/1.x connection may see different requests: what could be read in two ways is refused,
//! the connection is closed, and nothing behind the last clean request reaches an upstream.

use adit_testkit::{Answer, Upstream, World, until};

/// What may be behind a request that is refused; it must never arrive.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Refused as a whole: the head is malformed, so nothing of it arrives. Each is followed by [`SMUGGLED`].
const HEADS: &[(&str, u16)] = &[
    // Two framings.
    (
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    // Codings that one reader knows and another does not.
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chu\0nked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding\r\n : chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    // Lengths that one reader takes for another number.
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1, 1\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +1\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: -1\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0x1\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1 1\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1;\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length:\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 18446744073709551616\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length : 1\r\n\r\nx", 400),
    ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\n\r\nx", 400),
    // Line ends and lines.
    ("GET / HTTP/1.1\nHost: a.example\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\nX: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\n\n", 400),
    ("GET / HTTP/1.1\rHost: a.example\r\r", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nX: a\rb\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nX: a\0b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nX: a\r\n b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nX: a\r\n\tb\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n X: y\r\nHost: a.example\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nX y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\n: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nX(y): z\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nX\u{e9}: z\r\n\r\n", 400),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    // Hosts.
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost : a.example\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: user@a.example\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example:x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a.example:99999\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET http://a.example:81/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET http://user@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET http:/// HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    // Request lines.
    ("GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET /  HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET\t/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: a.example\r\n\r\n", 400),
    ("GET / HTTP/1.2\r\nHost: a.example\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a.example\r\n\r\n", 400),
    ("GET / http/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET / HTTP/01.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET /\r\nHost: a.example\r\n\r\n", 400),
    ("GET /a b HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET /#x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("G(T / HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 501),
];

/// The head is in order and may arrive; the body is not. Whatever arrives, it is this one request and no other, and
/// not as a whole one.
const BODIES: &[&str] = &[
    "x\r\nabc\r\n0\r\n\r\n",
    "-1\r\nabc\r\n0\r\n\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    " 3\r\nabc\r\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3\nabc\r\n0\r\n\r\n",
    "3\rabc\r\n0\r\n\r\n",
    "3\r\nabc\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nabc0\r\n\r\n",
    "\r\n3\r\nabc\r\n0\r\n\r\n",
    "10000000000000000\r\nabc\r\n0\r\n\r\n",
    "00000000000000003\r\nabc\r\n0\r\n\r\n",
    "3;a\nb\r\nabc\r\n0\r\n\r\n",
    "3;=\r\nabc\r\n0\r\n\r\n",
    "3 a\r\nabc\r\n0\r\n\r\n",
    "3;a=\"\0\"\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\n\n",
    "3\r\nabc\r\n0\r\n\n",
    "3\r\nabc\r\n0\r\nX y\r\n\r\n",
    "3\r\nabc\r\n0\r\n X: y\r\n\r\n",
    "3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
    "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "3\r\nabc\r\n0\r\nHost: b.example\r\n\r\n",
    "3\r\nabc\r\n0\r\nX: y\nZ: w\r\n\r\n",
];

#[tokio::test]
async fn a_malformed_head_is_refused_and_nothing_of_it_or_behind_it_arrives() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("*", &upstream).run().await;
    assert!(HEADS.len() >= 60);
    let mut wrong = Vec::new();
    for (head, status) in HEADS {
        let mut client = world.wire().await;
        client.send(to_bytes(head)).await;
        let sent = client.try_send(SMUGGLED).await;
        let reply = client.try_reply_to("GET").await;
        let reply = reply.unwrap_or_else(|| panic!("no answer to {head:?}; sending was {sent:?}"));
        if reply.status() != *status {
            wrong.push((head, reply.status()));
        }
        assert!(reply.content.complete && reply.reason().is_some(), "{head:?}: {reply:?}");
        assert_eq!(client.rest().await, b"", "{head:?} got a second answer");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(upstream.connections(), 0, "{:#?}", upstream.requests());
    world.finish().await;
}

#[tokio::test]
async fn a_malformed_head_behind_clean_requests_leaves_exactly_those() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("*", &upstream).run().await;
    for (round, (head, status)) in HEADS.iter().enumerate() {
        let mut client = world.wire().await;
        let clean = format!(
            "GET /{round}/first HTTP/1.1\r\nHost: a.example\r\n\r\nPOST /{round}/second HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc"
        );
        client.send([clean.as_bytes(), &to_bytes(head), SMUGGLED.as_bytes()].concat()).await;
        if head.starts_with("\r\n\r\n") {
            continue;
        }
        let replies = [client.reply().await, client.reply().await, client.reply().await];
        assert_eq!(replies.each_ref().map(|reply| reply.status()), [200, 200, *status], "{head:?}");
        assert_eq!(client.rest().await, b"", "{head:?} got a fourth answer");
    }
    let targets: Vec<String> = upstream.requests().iter().map(|r| r.head.target().to_owned()).collect();
    assert!(targets.len() >= 2 * (HEADS.len() - 1));
    assert!(
        targets.iter().all(|target| target.ends_with("/first") || target.ends_with("/second")),
        "{targets:?}"
    );
    assert!(upstream.requests().iter().all(|r| r.head.method() == "GET" || r.content.bytes == b"abc"));
    world.finish().await;
}

#[tokio::test]
async fn a_malformed_chunked_body_never_arrives_whole_and_nothing_behind_it_arrives() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    assert!(BODIES.len() >= 20);
    for body in BODIES {
        let mut client = world.wire().await;
        let head = "POST /body HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send([head.as_bytes(), &to_bytes(body), SMUGGLED.as_bytes()].concat()).await;
        let reply = client.try_reply_to("POST").await.unwrap_or_else(|| panic!("no answer to {body:?}"));
        assert_eq!(reply.status(), 400, "{body:?}: {}", reply.text());
        assert_eq!(reply.reason(), Some("bad_request"), "{body:?}");
        assert_eq!(client.rest().await, b"", "{body:?} got a second answer");
    }
    until("the upstream's connections have ended", || async {
        if upstream.open() == 0 { Ok(()) } else { Err(upstream.open()) }
    })
    .await;
    assert!(upstream.requests().is_empty(), "{:#?}", upstream.requests());
    world.finish().await;
}

#[tokio::test]
async fn too_long_targets_and_too_many_or_too_large_fields_are_refused_by_their_own_status() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let large = "x".repeat(70_000);
    let many = "x: y\r\n".repeat(101);
    let rows = [
        (format!("GET /{large} HTTP/1.1\r\nHost: a.example\r\n\r\n"), 414, "target_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {large}\r\n\r\n"), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a.example\r\n{many}\r\n"), 431, "headers_too_large"),
        (format!("{large} / HTTP/1.1\r\nHost: a.example\r\n\r\n"), 400, "bad_request"),
    ];
    for (request, status, reason) in rows {
        let mut client = world.wire().await;
        drop(client.try_send(request).await);
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.reason()), (status, Some(reason)));
        client.ended().await;
    }
    assert_eq!(upstream.connections(), 0);
    let field = "x".repeat(8 * 1024);
    let mut client = world.wire().await;
    client.send(format!("GET / HTTP/1.1\r\nhost: a.example\r\nx: {field}\r\n\r\n")).await;
    assert!(client.reply().await.text().contains(&field), "8 KiB in one field are in order");
    world.finish().await;
}

#[tokio::test]
async fn a_poisoned_response_never_answers_another_request() {
    // Behind the announced length stands a second response that nobody asked for.
    let upstream = Upstream::answering(|request| {
        let poison = "HTTP/1.1 200 X\r\ncontent-length: 6\r\n\r\npoison";
        match request.head.target() {
            "/bait" => Answer::raw(format!("HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\nbait{poison}")),
            _ => Answer::text("clean"),
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    for _ in 0..20 {
        assert_eq!(client.get("a.example", "/bait").await.text(), "bait");
        assert_eq!(client.get("a.example", "/").await.text(), "clean");
        assert_eq!(world.get("a.example", "/").await.text(), "clean");
    }
    world.finish().await;
}

/// One byte for each character, so that the table can hold bytes that are not UTF-8.
fn to_bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}
