//! What the admin interface does not take, from whom it takes no more, and what is done together or not at all.

use adit_testkit::certificate::credulous;
use adit_testkit::world::local_token;
use adit_testkit::{Wire, World};
use serde_json::{Value, json};

use super::admin::{ADMIN, ask, ask_with, code, send, world};

async fn raw(world: &World, line: &str, fields: &str, body: &str) -> (u16, Value, String) {
    let head = format!(
        "{line} HTTP/1.1\r\nhost: a\r\n{fields}content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let reply = send(world, &head, body).await;
    let said = serde_json::from_str(&reply.text()).unwrap_or(Value::Null);
    (reply.status(), said, format!("{reply:?}"))
}

#[tokio::test]
async fn a_key_that_stands_twice_is_refused_at_every_depth_and_named() {
    let world = world().await;
    for (line, body, key) in [
        ("POST /v1/services", r#"{"name":"a","name":"b"}"#, "name"),
        ("POST /v1/services", r#"{"name":"a","n\u0061me":"b"}"#, "name"),
        ("POST /v1/apply", r#"{"resources":[{"kind":"service","name":"a","kind":"identity"}]}"#, "kind"),
        (
            "POST /v1/configs",
            r#"{"name":"a","type":"host.v1","data":{"protocol":"tcp","address":"a","port":1,"port":2}}"#,
            "port",
        ),
        ("POST /v1/enroll", r#"{"token":"a","csr":"","token":"b"}"#, "token"),
    ] {
        let (status, said, _) = raw(&world, line, ADMIN, body).await;
        assert_eq!((status, code(&said)), (400, "duplicate_key"), "{body}");
        assert!(said["error"]["message"].as_str().unwrap().contains(&format!("`{key}`")), "{said}");
    }
    let (_, none) = ask(&world, "GET /v1/export", Value::Null).await;
    assert_eq!(none["resources"], json!([]));
    world.finish().await;
}

#[tokio::test]
async fn a_packed_document_two_credentials_and_an_accept_that_excludes_the_answer_are_refused() {
    let world = world().await;
    let packed = format!("{ADMIN}content-encoding: gzip\r\n");
    let (status, said, reply) = raw(&world, "POST /v1/services", &packed, r#"{"name":"a"}"#).await;
    assert_eq!((status, code(&said)), (415, "unsupported_media_type"));
    assert!(reply.to_ascii_lowercase().contains("accept-encoding: identity"), "{reply}");
    let plain = format!("{ADMIN}content-encoding: identity\r\n");
    assert_eq!(raw(&world, "POST /v1/services", &plain, r#"{"name":"a"}"#).await.0, 201);

    let twice = format!("{ADMIN}{ADMIN}");
    let (status, said, _) = raw(&world, "GET /v1/services", &twice, "").await;
    assert_eq!((status, code(&said)), (400, "bad_header"));
    for path in ["/status", "/metrics"] {
        let other = format!("{}authorization: Bearer wrong\r\n", World::bearer());
        let reply = world.ask_control("GET", path, &other).await;
        assert_eq!((reply.status(), reply.reason()), (400, Some("bad_request")), "{path}");
    }

    for (line, accept, status) in [
        ("GET /v1/services", "*/*", 200),
        ("GET /v1/services", "application/*", 200),
        ("GET /v1/services", "application/json;q=0.5, text/html", 200),
        ("GET /v1/services", "text/html", 406),
        ("GET /v1/services", "application/json;q=0, */*", 406),
        ("GET /v1/services/none", "*/*", 404),
        ("GET /v1/audit", "application/x-ndjson", 200),
        ("GET /v1/watch", "application/json", 406),
        ("DELETE /v1/services/a", "text/html", 204),
    ] {
        let reply = ask_with(&world, line, &format!("accept: {accept}\r\n"), &Value::Null).await;
        assert_eq!(reply.status(), status, "{line} {accept}");
        if status == 406 {
            assert_eq!(code(&serde_json::from_str(&reply.text()).unwrap()), "not_acceptable");
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn wrong_one_time_tokens_are_limited_by_address_and_the_right_one_is_taken_all_the_same() {
    let mut token = local_token("ops", "the-secret-of-an-administrator");
    token.token.admin = true;
    let plan = World::new().gateway(|config| {
        config.tokens.push(token);
        config.limits.max_auth_failures = 3;
    });
    let world = plan.run().await;
    let wrong = r#"{"token":"a.b.c","csr":""}"#;
    for _ in 0..3 {
        let (status, said, _) = raw(&world, "POST /v1/enroll", "", wrong).await;
        assert_eq!((status, code(&said)), (401, "enrollment_refused"));
    }
    for (line, fields) in [("POST /v1/enroll", ""), ("GET /v1/services", "authorization: Bearer wrong\r\n")] {
        let (status, said, reply) = raw(&world, line, fields, wrong).await;
        assert_eq!((status, code(&said)), (429, "rate_limited"), "{line}");
        let reply = reply.to_ascii_lowercase();
        let (_, wait) = reply.split_once("retry-after: ").unwrap();
        let wait: String = wait.chars().take_while(char::is_ascii_digit).collect();
        assert!((1..=60).contains(&wait.parse::<u64>().unwrap()), "{reply}");
    }
    let (status, said, reply) = raw(&world, "GET /v1/services", "", "").await;
    assert_eq!((status, code(&said)), (401, "unauthorized"), "who shows nothing guesses nothing");
    assert!(reply.to_ascii_lowercase().contains("www-authenticate: bearer"), "{reply}");
    world.sum_becomes("adit_auth_failures_total", &[("reason", "unauthorized")], 3).await;
    world.sum_becomes("adit_auth_failures_total", &[("reason", "rate_limited")], 2).await;
    let (status, _) = ask(&world, "POST /v1/identities", json!({ "name": "laptop" })).await;
    assert_eq!(status, 201, "an administrator at the same address works on");
    let (_, invited) = ask(&world, "POST /v1/identities/laptop/enrollments", Value::Null).await;
    let jwt = invited["jwt"].as_str().unwrap();
    let egress = adit_testkit::tunnel::proxy::Egress::direct();
    let enrolled = Box::pin(adit_testkit::agent::enroll::enroll(jwt, &egress)).await;
    assert!(enrolled.is_ok(), "who has the right one is let in: {enrolled:?}");
    let (_, log) = ask(&world, "GET /v1/audit?actor=identity:laptop", Value::Null).await;
    let record = &log["items"][0];
    assert_eq!(record["action"], "enroll");
    assert!(record["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
    assert!(record["after"]["not_after"].as_str().unwrap().ends_with('Z'), "{record}");
    world.finish().await;
}

#[tokio::test]
async fn several_are_deleted_together_or_not_at_all() {
    let world = world().await;
    let services: Vec<_> = ["a", "b", "c"].map(|name| json!({ "kind": "service", "name": name })).into();
    ask(&world, "POST /v1/apply", json!({ "resources": services })).await;
    let gone = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({ "kind": "service", "name": name })).collect()
    };
    let (status, said) = ask(&world, "POST /v1/apply", json!({ "delete": gone(&["a", "none", "b"]) })).await;
    assert_eq!((status, code(&said)), (404, "not_found"));
    let (_, all) = ask(&world, "GET /v1/services", Value::Null).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 3, "nothing happened");
    let rest = json!({ "delete": gone(&["a", "none", "b"]), "ignore_missing": true });
    let (status, done) = ask(&world, "POST /v1/apply", rest).await;
    assert_eq!((status, done["changes"].as_array().unwrap().len()), (200, 2), "{done}");
    let (status, said) =
        ask(&world, "POST /v1/apply", json!({ "delete": [{ "kind": "service", "name": "c", "x": 1 }] }))
            .await;
    assert_eq!((status, code(&said)), (422, "invalid"));
    world.finish().await;
}

#[tokio::test]
async fn a_route_from_a_port_of_the_gateway_itself_is_refused() {
    let world = world().await;
    ask(&world, "POST /v1/services", json!({ "name": "web" })).await;
    for port in [world.control().port(), world.http().port()] {
        let route = json!({ "kind": "route", "name": "r", "ports": [port], "service": "web" });
        let (status, said) = ask(&world, "POST /v1/routes", route.clone()).await;
        assert_eq!((status, code(&said)), (409, "claimed"));
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("port {port}, which is the gateway's own")), "{message}");
        let (status, _) =
            ask(&world, "POST /v1/apply", json!({ "resources": [route], "dry_run": true })).await;
        assert_eq!(status, 409, "a dry run says so too");
    }
    world.finish().await;
}

#[tokio::test]
async fn who_still_sends_what_is_refused_by_its_head_reads_why_and_can_go_on() {
    let world = world().await;
    let body = vec![b'x'; 40_000];
    let head = |fields: &str| {
        let length = body.len();
        format!(
            "POST /v1/services HTTP/1.1\r\nhost: a\r\n{fields}content-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut wire = Wire::tls(world.control(), &credulous(&[b"http/1.1"])).await;
    for round in 0..3 {
        wire.send(head(ADMIN)).await;
        // What comes in answer to this half, if anything, is on its way now.
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), wire.fill()).await;
        assert!(early.is_err(), "{round}: it was answered while it was sent");
        wire.send(&body).await;
        assert_eq!(wire.reply().await.status(), 415, "{round}: on the same connection");
    }
    // Who has shown nothing is sent away, with an answer.
    let mut wire = Wire::tls(world.control(), &credulous(&[b"http/1.1"])).await;
    wire.send(head("")).await;
    wire.send(&body).await;
    assert_eq!(wire.reply().await.status(), 401);
    wire.ended().await;
    // Who waits for a word before it sends is not asked to send.
    let mut wire = Wire::tls(world.control(), &credulous(&[b"http/1.1"])).await;
    wire.send(head("expect: 100-continue\r\n")).await;
    assert_eq!(wire.reply().await.status(), 401);
    world.finish().await;
}
