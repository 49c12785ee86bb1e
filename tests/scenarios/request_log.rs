//! The request log: one JSON line for each flow, with what an operator asks for and nothing a client should not leak.

use adit_testkit::h2::Fed;
use adit_testkit::{Signal, Upstream, World};
use hyper::Request;
use serde_json::Value;

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line[key].as_str().unwrap_or_else(|| panic!("no {key} in {line}"))
}

/// The fields every line has, in a sound state.
fn check_common(line: &Value) {
    assert!(text(line, "time").ends_with('Z'), "{line}");
    assert_eq!(text(line, "client"), "127.0.0.1");
    assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{line}");
    assert!(line["bytes_in"].is_u64() && line["bytes_out"].is_u64() && line["status"].is_u64(), "{line}");
    assert!(!line.to_string().contains("secret"), "queries and credentials are not logged: {line}");
}

#[tokio::test]
async fn a_completed_request_is_told_whole() {
    let upstream = Upstream::named("hello").await;
    let world = World::new().offer("*.example", &upstream).run().await;
    let mut client = world.wire().await;
    client
        .send(
            "POST /a/b?token=secret HTTP/1.1\r\nhost: A.Example:80\r\nuser-agent: curl/8\r\n\
             authorization: Bearer secret\r\ncontent-length: 4\r\n\r\nbody",
        )
        .await;
    assert_eq!(client.reply().await.status(), 200);
    let request = Request::get("http://b.example/h2?secret").body(Fed::empty()).unwrap();
    let mut client = world.h2().await;
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    drop(client);
    let lines = world.request_log(2).await;
    for line in &lines {
        check_common(line);
        assert_eq!((text(line, "service"), text(line, "route")), ("*.example", "*.example"));
        assert_eq!(text(line, "agent"), world.agent(0).instance().to_string());
        assert_eq!(text(line, "upstream"), upstream.to_string());
        assert!(line["wait_ms"].is_f64() && line["upstream_ms"].is_f64(), "{line}");
        assert!(line["upstream_ms"].as_f64() <= line["duration_ms"].as_f64(), "{line}");
        assert_eq!((line["status"].as_u64(), text(line, "reason")), (Some(200), "done"), "{line}");
    }
    let [first, second] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(
        ["method", "host", "target", "protocol", "user_agent"].map(|key| text(first, key)),
        ["POST", "A.Example:80", "/a/b", "HTTP/1.1", "curl/8"]
    );
    assert_eq!((first["bytes_in"].as_u64(), first["bytes_out"].as_u64()), (Some(4), Some(5)));
    assert_eq!(
        ["method", "host", "target", "protocol"].map(|key| text(second, key)),
        ["GET", "b.example", "/h2", "HTTP/2"]
    );
    assert_eq!(second.get("user_agent"), None);
    world.finish().await;
}

#[tokio::test]
async fn a_refused_request_is_told_with_its_reason() {
    let world = World::new().run().await;
    assert_eq!(world.get("nobody.example", "/x?secret").await.status(), 404);
    let mut client = world.wire().await;
    client.send("GET /secret HTTP/1.1\nhost: a\n\n").await;
    assert_eq!(client.reply().await.status(), 400);
    let lines = world.request_log(2).await;
    lines.iter().for_each(check_common);
    let shown = lines.iter().map(|line| {
        let keys = ["method", "host", "target", "reason"].map(|key| text(line, key).to_owned());
        (line["status"].as_u64().unwrap(), keys.join(" "), line.get("service").cloned())
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            (404, "GET nobody.example /x no_route".to_owned(), None),
            (400, "- - - bad_request".to_owned(), None)
        ]
    );
    assert!(lines.iter().all(|line| line.get("agent").is_none() && line.get("upstream").is_none()));
    assert!(lines[0]["bytes_out"].as_u64().unwrap() > 0, "the page counts");
    world.finish().await;
}

#[tokio::test]
async fn an_upgraded_connection_is_told_when_it_ends_with_the_bytes_of_both_directions() {
    let upstream = Upstream::scripted(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nhello").await;
        wire.take(3).await;
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client
        .send("GET /up HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nabc")
        .await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    assert_eq!(client.rest().await, b"hello");
    drop(client);
    let line = &world.request_log(1).await[0];
    check_common(line);
    assert_eq!(line["status"], 101, "{line}");
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(3), Some(5)), "{line}");
    assert_eq!(text(line, "target"), "/up");
    world.finish().await;
}

#[tokio::test]
async fn a_cut_response_is_told_with_what_had_passed() {
    let cut = Signal::default();
    let upstream = Upstream::scripted({
        let cut = cut.clone();
        move |mut wire| {
            let cut = cut.clone();
            async move {
                wire.head().await;
                wire.send("HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\npart").await;
                cut.given(1).await;
            }
        }
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    cut.give();
    assert_eq!(client.rest().await, b"part");
    let line = &world.request_log(1).await[0];
    check_common(line);
    assert_eq!((line["status"].as_u64(), text(line, "reason")), (Some(200), "upstream_closed"), "{line}");
    assert_eq!(line["bytes_out"], 4, "{line}");
    world.finish().await;
}
