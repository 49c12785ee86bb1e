//! What HTTP/2 cannot say in HTTP/1.1 without doubt is reset or refused, and nothing of it reaches an upstream.

use adit_testkit::h2::{Outcome, frame, headers, outcome, preface};
use adit_testkit::{Upstream, World};

/// `:status: 400` in the static table, as an indexed field.
const BAD_REQUEST: u8 = 0x8c;

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

#[tokio::test]
async fn malformed_http2_requests_are_reset_or_refused_and_nothing_arrives() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("*", &upstream).run().await;
    let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
    let changed = |name: &'static str, value: &'static str| {
        GET.map(|field| if field.0 == name { (name, value) } else { field }).to_vec()
    };
    let without = |name: &'static str| GET.into_iter().filter(|field| field.0 != name).collect::<Vec<_>>();
    let rows: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("connection field", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te other than trailers", with(&[("te", "gzip")])),
        ("upper case name", with(&[("X-Upper", "1")])),
        ("space in a name", with(&[("x y", "1")])),
        ("colon in a name", with(&[("x:y", "1")])),
        ("line end in a value", with(&[("x", "1\r\nsmuggled: 1")])),
        ("line end in a name", with(&[("x: 1\r\nsmuggled", "1")])),
        ("NUL in a value", with(&[("x", "1\0")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "1")])),
        ("a length that is no number", with(&[("content-length", "+0")])),
        ("a length without a body", with(&[("content-length", "5")])),
        ("pseudo field behind a field", with(&[("x", "1"), (":path", "/b")])),
        ("pseudo field twice", with(&[(":path", "/b")])),
        ("unknown pseudo field", with(&[(":x", "1")])),
        ("response pseudo field", with(&[(":status", "200")])),
        ("authority and host disagree", with(&[("host", "b.example")])),
        ("two hosts", with(&[("host", "a.example"), ("host", "a.example")])),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no authority", without(":authority")),
        ("empty path", changed(":path", "")),
        ("path without slash", changed(":path", "x")),
        ("space in the path", changed(":path", "/a b")),
        ("request line in the path", changed(":path", "/ HTTP/1.1\r\nsmuggled: 1\r\n\r\nGET /smuggled")),
        ("space in the method", changed(":method", "GET / HTTP/1.1\r\nx: y")),
        ("user in the authority", changed(":authority", "user@a.example")),
        ("path in the authority", changed(":authority", "a.example/x")),
        ("line end in the authority", changed(":authority", "a.example\r\nsmuggled: 1")),
        ("empty authority", changed(":authority", "")),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a.example:443")]),
    ];
    assert!(rows.len() > 30);
    for (what, fields) in rows {
        let mut client = world.wire().await;
        client.send([preface(), headers(1, true, &fields)].concat()).await;
        let outcome = outcome(&mut client, 1).await;
        let refused = match outcome {
            Outcome::Reset | Outcome::Closed => true,
            // CONNECT is answered with 501, whose header block starts with a literal.
            Outcome::Headers(first) => first == BAD_REQUEST || what == "CONNECT" && first != 0x88,
        };
        assert!(refused, "{what}: {outcome:?}, upstream saw {:#?}", upstream.requests());
        assert!(upstream.requests().is_empty(), "{what}: {:#?}", upstream.requests());
    }
    assert_eq!(upstream.requests().len(), 0);
    world.finish().await;
}

#[tokio::test]
async fn a_http2_body_that_is_not_as_long_as_announced_never_arrives_whole() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let head = |length| {
        let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
        headers(1, false, &[&fields[..], &[("content-length", length)]].concat())
    };
    for (length, body) in [("3", "abcdef"), ("10", "abc"), ("0", "abc")] {
        let mut client = world.wire().await;
        client.send([preface(), head(length), frame(0, 1, 1, body.as_bytes())].concat()).await;
        let outcome = outcome(&mut client, 1).await;
        assert!(!matches!(outcome, Outcome::Headers(0x88)), "{length} {body}: {outcome:?}");
    }
    let mut client = world.wire().await;
    client.send([preface(), head("3"), frame(0, 1, 1, b"abc")].concat()).await;
    assert_eq!(outcome(&mut client, 1).await, Outcome::Headers(0x88), "a body as announced is in order");
    assert_eq!(upstream.requests().len(), 1, "{:#?}", upstream.requests());
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn what_http1_does_not_allow_is_refused_in_http2_too_and_counted() {
    let upstream = Upstream::echo().await;
    let world = World::new().offer("*", &upstream).run().await;
    let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
    let changed = |name: &'static str, value: &'static str| {
        GET.map(|field| if field.0 == name { (name, value) } else { field }).to_vec()
    };
    let rows = [
        ("the same length twice", with(&[("content-length", "0"), ("content-length", "0")])),
        ("another scheme", changed(":scheme", "ftp")),
        ("an asterisk for GET", changed(":path", "*")),
        ("a long method", changed(":method", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG")),
        ("a host with escapes", changed(":authority", "a%2eexample")),
    ];
    let mut refused = 0;
    for (what, fields) in rows {
        let mut client = world.wire().await;
        client.send([preface(), headers(1, true, &fields)].concat()).await;
        let outcome = outcome(&mut client, 1).await;
        assert!(!matches!(outcome, Outcome::Headers(0x88)), "{what}: {outcome:?}");
        refused += u32::from(outcome == Outcome::Headers(BAD_REQUEST));
    }
    assert!(refused >= 4, "only {refused} were answered");
    world.sum_becomes("adit_refusals_total", &[("reason", "bad_request")], refused).await;
    let mut client = world.wire().await;
    client.send([preface(), headers(1, true, &with(&[("x", "1"); 101]))].concat()).await;
    outcome(&mut client, 1).await;
    drop(client);
    world.sum_becomes("adit_refusals_total", &[("reason", "headers_too_large")], 1).await;
    assert!(upstream.requests().is_empty(), "{:#?}", upstream.requests());
    let mut client = world.wire().await;
    client.send([preface(), headers(1, true, &with(&[("cookie", "a=b"); 101]))].concat()).await;
    assert_eq!(outcome(&mut client, 1).await, Outcome::Headers(0x88), "each cookie may have its own field");
    drop(client);
    world.finish().await;
}
