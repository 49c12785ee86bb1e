//! Fields on their way through: what belongs to one connection stays there, what tells the upstream who asks is the
//! gateway's own word, and everything else is left alone.

use adit_testkit::wire::Head;
use adit_testkit::{Answer, Upstream, World};

async fn seen_by(world: &World, upstream: &Upstream, fields: &str) -> Head {
    let mut client = world.wire().await;
    client.send(format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
    assert_eq!(client.reply().await.status(), 200, "{fields}");
    upstream.requests().pop().unwrap().head
}

#[tokio::test]
async fn fields_of_one_connection_do_not_pass_to_the_upstream() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let head = seen_by(
        &world,
        &upstream,
        "Host: a.example\r\nConnection: keep-alive, X-Hop\r\nConnection: x-other, host, content-length\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: gzip\r\n\
         X-Hop: 1\r\nX-Other: 2\r\nHTTP2-Settings: AAA\r\nX-Kept: 3\r\n",
    )
    .await;
    for gone in
        ["keep-alive", "proxy-connection", "proxy-authorization", "te", "x-hop", "x-other", "http2-settings"]
    {
        assert_eq!(head.field(gone), None, "{gone}: {head:?}");
    }
    assert!(!head.field("connection").unwrap_or("").contains("x-"), "{head:?}");
    assert_eq!((head.field("x-kept"), head.field("host")), (Some("3"), Some("a.example")));
    world.finish().await;
}

#[tokio::test]
async fn fields_of_one_connection_do_not_pass_to_the_client() {
    let upstream = Upstream::answering(|_| {
        Answer::new(
            200,
            "connection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nupgrade: h2c\r\n\
             x-kept: 3\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nserver: theirs\r\nvia: 1.1 theirs\r\n",
            "ok",
        )
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let reply = world.get("a.example", "/").await;
    for gone in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(reply.field(gone), None, "{gone}: {reply:?}");
    }
    assert_eq!((reply.field("x-kept"), reply.field("server")), (Some("3"), Some("theirs")));
    assert_eq!(reply.head.all("set-cookie"), ["a=1", "b=2"], "each stays a field of its own, in order");
    let mut client = world.h2().await;
    let response = client.get("a.example", "/").await;
    assert!(
        ["x-hop", "connection", "keep-alive", "upgrade"]
            .iter()
            .all(|name| !response.headers().contains_key(*name))
    );
    assert_eq!(response.headers()["x-kept"], "3");
    drop((client, response));
    world.finish().await;
}

#[tokio::test]
async fn what_an_untrusted_client_claims_about_itself_is_replaced() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let head = seen_by(
        &world,
        &upstream,
        "Host: a.example\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\n\
         Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nTrue-Client-IP: 10.0.0.1\r\n\
         X_Forwarded_For: 10.0.0.1\r\nX-Forwarded_For: 10.0.0.1\r\nx_real_ip: 10.0.0.1\r\nX_Kept: 1\r\n",
    )
    .await;
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), ["a.example"]);
    assert_eq!(head.all("forwarded"), ["for=127.0.0.1;host=\"a.example\";proto=http"]);
    for gone in ["x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "true-client-ip"] {
        assert_eq!(head.field(gone), None, "{gone}: {head:?}");
    }
    let raw = String::from_utf8_lossy(&head.raw).into_owned();
    assert!(!raw.contains("10.0.0.") && !raw.contains("evil"), "{raw}");
    assert_eq!(head.field("x_kept"), Some("1"), "an underscore alone is no offence");
    world.finish().await;
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_extended() {
    let upstream = Upstream::named("ok").await;
    let world = World::new()
        .gateway(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
        .offer("a.example", &upstream)
        .run()
        .await;
    let head = seen_by(
        &world,
        &upstream,
        "Host: a.example\r\nX-Forwarded-For: 203.0.113.9, 198.51.100.1\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: shown.example\r\nForwarded: for=203.0.113.9\r\nX_Forwarded_For: 10.0.0.1\r\n",
    )
    .await;
    assert_eq!(head.all("x-forwarded-for"), ["203.0.113.9, 198.51.100.1, 127.0.0.1"]);
    assert_eq!(
        (head.field("x-forwarded-proto"), head.field("x-forwarded-host")),
        (Some("https"), Some("shown.example"))
    );
    let forwarded = head.field("forwarded").unwrap();
    assert!(forwarded.starts_with("for=203.0.113.9, for=127.0.0.1;"), "{forwarded}");
    assert_eq!(head.field("x_forwarded_for"), None);
    assert_eq!(world.request_log(1).await[0]["client"], "198.51.100.1", "the nearest stranger is the client");
    world.finish().await;
}

#[tokio::test]
async fn the_host_arrives_as_it_was_sent() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("*.example", &upstream).run().await;
    for host in ["a.example", "A.Example", "a.example:8080", "a.example."] {
        let head = seen_by(&world, &upstream, &format!("Host: {host}\r\n")).await;
        assert_eq!(head.all("host"), [host]);
    }
    let mut client = world.h2().await;
    assert_eq!(client.get("b.example:81", "/").await.status(), 200);
    assert_eq!(upstream.requests().pop().unwrap().head.all("host"), ["b.example:81"]);
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn other_fields_pass_as_they_are() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let long = "x".repeat(8_000);
    let head = seen_by(
        &world,
        &upstream,
        &format!(
            "Host: a.example\r\nX-Twice: 1\r\nX-Twice: 2\r\nX-Empty:\r\nX-Spaces:   a  b  \r\nX-Long: {long}\r\n\
             Authorization: Bearer t\r\nCookie: a=1; b=2\r\nAccept: */*\r\nOrigin: null\r\nRange: bytes=0-1\r\n\
             Via: 1.1 theirs\r\nPriority: u=1\r\n"
        ),
    )
    .await;
    assert_eq!(head.all("x-twice"), ["1", "2"]);
    assert_eq!((head.field("x-empty"), head.field("x-spaces")), (Some(""), Some("a  b")));
    assert_eq!(head.field("x-long"), Some(long.as_str()));
    for (name, value) in [
        ("authorization", "Bearer t"),
        ("cookie", "a=1; b=2"),
        ("accept", "*/*"),
        ("origin", "null"),
        ("range", "bytes=0-1"),
        ("priority", "u=1"),
    ] {
        assert_eq!(head.all(name), [value], "{name}");
    }
    let via = head.field("via").unwrap();
    assert!(via.starts_with("1.1 theirs, 1.1 adit-"), "{via}");
    assert!(
        head.field("user-agent").is_none() && head.field("accept-encoding").is_none(),
        "nothing is made up"
    );
    world.finish().await;
}
