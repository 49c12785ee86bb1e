//! Paths and queries reach the upstream byte for byte: nothing is decoded, folded or put in order.

use adit_testkit::h2::Fed;
use adit_testkit::{Upstream, World};
use hyper::Request;

const TARGETS: &[&str] = &[
    "/",
    "/?",
    "/??",
    "/?a",
    "/?a=b&a=c&&=",
    "/?a=b?c=d",
    "/a?b/c/../d",
    "//",
    "///a//b///",
    "//evil.example/x",
    "/.",
    "/..",
    "/a/./b",
    "/a/../b",
    "/a/../../../../etc/passwd",
    "/a/..;/b",
    "/%2e%2e/%2E%2e/",
    "/%2f%2F",
    "/a%2fb%5Cc",
    "/%00",
    "/%0d%0aX:%20y",
    "/%",
    "/%zz",
    "/%u0041",
    "/%C3%A9%ff",
    "/a+b%20c",
    "/a;b;c=d",
    "/a,b,c",
    "/a:b@c",
    "/http://b.example/",
    "/~user/!$&'()*+,;=:@",
    "/[a]",
    "/a|b^c",
    "/a\"b",
    "/a\\b",
    "/{template}",
    "/CaSe/%aB",
    "/.hidden/-/_/~",
    "/a?q=%26%3D&x=[1]&y={2}",
    "/?q=a|b^c`d'e",
    "/?http://b.example/?c=d",
    "/?%",
    "/trailing/",
    "/trailing/?",
    "/a.b..c...",
];

#[tokio::test]
async fn odd_but_legal_targets_arrive_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    assert!(TARGETS.len() >= 40);
    let mut client = world.wire().await;
    for target in TARGETS {
        let reply = client.get("a.example", target).await;
        assert_eq!(reply.status(), 200, "{target}: {}", reply.text());
        let expected = format!("GET {target} HTTP/1.1\r\n");
        assert!(reply.text().starts_with(&expected), "{target}: {}", reply.text());
    }
    let long = format!("/{}?{}", "a".repeat(7_000), "b".repeat(7_000));
    assert!(client.get("a.example", &long).await.text().starts_with(&format!("GET {long} HTTP/1.1\r\n")));
    world.finish().await;
}

#[tokio::test]
async fn the_same_targets_arrive_from_http2() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.h2().await;
    let mut expected = Vec::new();
    for target in TARGETS {
        let Ok(request) = Request::get(format!("http://a.example{target}")).body(Fed::empty()) else {
            continue;
        };
        assert_eq!(client.send(request).await.unwrap().status(), 200, "{target}");
        expected.push((*target).to_owned());
    }
    assert!(expected.len() >= 40, "{}", expected.len());
    let seen: Vec<_> = upstream.requests().iter().map(|request| request.head.target().to_owned()).collect();
    assert_eq!(seen, expected);
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn an_absolute_target_arrives_in_its_short_form_and_a_star_as_a_star() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    for (from, to) in [
        ("GET http://a.example/a%2Fb?c", "GET /a%2Fb?c"),
        ("GET http://a.example:80/x", "GET /x"),
        ("GET http://a.example", "GET /"),
        ("GET HTTP://A.EXAMPLE/X", "GET /X"),
        ("OPTIONS *", "OPTIONS *"),
        ("OPTIONS /x", "OPTIONS /x"),
    ] {
        client.send(format!("{from} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        let reply = client.reply().await;
        assert!(reply.text().starts_with(&format!("{to} HTTP/1.1\r\n")), "{from}: {}", reply.text());
    }
    world.finish().await;
}
