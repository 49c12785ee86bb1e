//! A no is a page that whoever asked can read, with the reason in a field, and it costs the client nothing else.

use adit_testkit::{Reply, Upstream, World};

async fn refused(world: &World, accept: &str) -> Reply {
    let mut client = world.wire().await;
    client.send(format!("GET / HTTP/1.1\r\nhost: nobody.example\r\n{accept}\r\n")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.reason()), (404, Some("no_route")), "{accept:?}");
    assert_eq!(reply.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    reply
}

#[tokio::test]
async fn the_page_has_the_form_the_client_accepts() {
    let world = World::new().run().await;
    for accept in ["", "accept: */*\r\n", "accept: text/plain\r\n", "accept: image/png\r\n"] {
        let reply = refused(&world, accept).await;
        assert_eq!(reply.field("content-type"), Some("text/plain; charset=utf-8"), "{accept:?}");
        assert!(
            reply.text().contains("nobody.example") && reply.text().contains("no_route"),
            "{}",
            reply.text()
        );
        assert!(!reply.text().contains('<'), "{}", reply.text());
    }
    let browser = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    let reply = refused(&world, browser).await;
    assert_eq!(reply.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(reply.text().starts_with("<!doctype html>") && reply.text().contains("<code>no_route</code>"));
    let reply = refused(&world, "accept: application/json\r\n").await;
    assert_eq!(reply.field("content-type"), Some("application/json"));
    let page: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(
        (&page["status"], &page["reason"], &page["fault"]),
        (&404.into(), &"no_route".into(), &"client".into())
    );
    assert!(page["detail"].is_string() && page["next"].is_string(), "{page}");
    world.finish().await;
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_at_the_next_request() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    for _ in 0..3 {
        assert_eq!(client.get("nobody.example", "/").await.status(), 404);
        client.send("HEAD / HTTP/1.1\r\nhost: nobody.example\r\n\r\n").await;
        let reply = client.reply_to("HEAD").await;
        assert_eq!((reply.status(), reply.reason()), (404, Some("no_route")));
        assert_eq!(client.get("a.example", "/").await.text(), "ok");
    }
    let mut client = world.h2().await;
    assert_eq!(client.get("nobody.example", "/").await.headers()["adit-reason"], "no_route");
    assert_eq!(client.get("a.example", "/").await.status(), 200);
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn a_refused_upload_is_answered_before_it_ends_and_never_read_as_a_request() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("POST / HTTP/1.1\r\nhost: nobody.example\r\ncontent-length: 100000\r\n\r\n").await;
    assert_eq!(client.reply().await.status(), 404);
    drop(client.try_send("GET /smuggled HTTP/1.1\r\nhost: a.example\r\n\r\n").await);
    client.finish_sending().await;
    assert_eq!(client.rest().await, b"");
    assert_eq!(upstream.connections(), 0);
    world.finish().await;
}
