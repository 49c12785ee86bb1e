//! The admin interface over the wire: what each endpoint does, who may ask, and that every no has one form.

use adit_testkit::certificate::credulous;
use adit_testkit::ports::free;
use adit_testkit::tcp::Tcp;
use adit_testkit::world::local_token;
use adit_testkit::{AgentPlan, Reply, Wire, World, within};
use serde_json::{Value, json};

pub(super) const ADMIN: &str = "authorization: Bearer the-secret-of-an-administrator\r\n";

pub(super) async fn world() -> World {
    let mut token = local_token("ops", "the-secret-of-an-administrator");
    token.token.admin = true;
    World::new().gateway(|config| config.tokens.push(token)).run().await
}

pub(super) async fn send(world: &World, head: &str, body: &str) -> Reply {
    let mut wire = Wire::tls(world.control(), &credulous(&[b"http/1.1"])).await;
    wire.send(format!("{head}connection: close\r\n\r\n{body}")).await;
    wire.reply().await
}

/// Creates a resource of which only the name is said, with the token that every world has.
pub(super) async fn create(world: &World, kind: &str, name: &str) -> u16 {
    let body = json!({ "kind": kind, "name": name }).to_string();
    let head = format!(
        "POST /v1/{kind}s HTTP/1.1\r\nhost: localhost\r\n{}content-type: application/json\r\ncontent-length: {}\r\n",
        World::bearer(),
        body.len()
    );
    send(world, &head, &body).await.status()
}

/// Asks as an administrator, with further header fields.
pub(super) async fn ask_with(world: &World, line: &str, fields: &str, body: &Value) -> Reply {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let typed = if body.is_null() {
        String::new()
    } else {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", text.len())
    };
    send(world, &format!("{line} HTTP/1.1\r\nhost: localhost\r\n{ADMIN}{typed}{fields}"), &text).await
}

pub(super) async fn ask(world: &World, line: &str, body: Value) -> (u16, Value) {
    let reply = ask_with(world, line, "", &body).await;
    let text = reply.text();
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    (reply.status(), body)
}

/// The code of a no, which has the one form.
pub(super) fn code(body: &Value) -> &str {
    let error = body["error"].as_object().unwrap_or_else(|| panic!("{body}"));
    let keys: Vec<_> = error.keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "fault", "message", "next"], "{body}");
    assert!(error.values().all(|it| it.as_str().is_some_and(|it| !it.is_empty())), "{body}");
    body["error"]["code"].as_str().unwrap()
}

#[tokio::test]
async fn a_resource_is_created_shown_replaced_and_deleted() {
    let world = world().await;
    let reply =
        ask_with(&world, "POST /v1/identities", "", &json!({ "name": "Alice", "attributes": ["dev"] })).await;
    let item: Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!((reply.status(), reply.field("location")), (201, Some("/v1/identities/Alice")));
    let tag = reply.field("etag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", item["revision"]));
    assert_eq!(
        (&item["kind"], &item["name"], &item["attributes"]),
        (&json!("identity"), &json!("Alice"), &json!(["dev"]))
    );
    assert_eq!(
        (&item["enrolled"], &item["online"], &item["credentials"]),
        (&json!(false), &json!(false), &json!([]))
    );
    assert!(item["created_at"].as_str().unwrap().ends_with('Z'), "{item}");
    assert_eq!(ask(&world, "GET /v1/identities/alice", Value::Null).await, (200, item.clone()));
    let known =
        ask_with(&world, "GET /v1/identities/alice", &format!("if-none-match: {tag}\r\n"), &Value::Null)
            .await;
    assert_eq!((known.status(), known.text().as_str()), (304, ""));

    // What was read can be written back.
    let mut changed = item;
    changed["admin"] = json!(true);
    let put = |fields: String, body: Value| {
        let world = &world;
        async move { ask_with(world, "PUT /v1/identities/alice", &fields, &body).await }
    };
    let reply = put(format!("if-match: {tag}\r\n"), changed.clone()).await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    let late = put(format!("if-match: {tag}\r\n"), changed.clone()).await;
    assert_eq!(
        (late.status(), code(&serde_json::from_str(&late.text()).unwrap())),
        (412, "changed_meanwhile")
    );
    assert_eq!(put("if-none-match: *\r\n".to_owned(), changed.clone()).await.status(), 412);
    assert_eq!(put("if-match: nonsense\r\n".to_owned(), changed).await.status(), 400);
    let (status, body) = ask(&world, "PUT /v1/identities/alice", json!({ "name": "bob" })).await;
    assert_eq!((status, code(&body)), (422, "name_mismatch"));
    let (status, _) = ask(&world, "PUT /v1/identities/bob", json!({ "name": "bob" })).await;
    assert_eq!(status, 201, "PUT creates");
    assert_eq!(ask(&world, "DELETE /v1/identities/bob", Value::Null).await, (204, Value::Null));
    let (status, body) = ask(&world, "DELETE /v1/identities/bob", Value::Null).await;
    assert_eq!((status, code(&body)), (404, "not_found"));
    world.finish().await;
}

fn remarks(of: &Value) -> Vec<&str> {
    of["remarks"].as_array().into_iter().flatten().map(|it| it.as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_route_from_a_port_that_nothing_listens_on_says_so_and_explain_does() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (in_use, free) = (taken.local_addr().unwrap().port(), free());
    let mut world = world().await;
    ask(&world, "POST /v1/services", json!({ "name": "db" })).await;
    let route = |name: &str, port: u16| json!({ "name": name, "ports": [port], "service": "db" });

    let (status, fine) = ask(&world, "POST /v1/routes", route("fine", free)).await;
    assert_eq!((status, remarks(&fine).len()), (201, 0), "{fine}");
    let (status, item) = ask(&world, "POST /v1/routes", route("used", in_use)).await;
    assert_eq!(status, 201);
    assert!(remarks(&item)[0].contains("another process on the gateway's machine uses it"), "{item}");
    let explained = async |world: &World, port: u16| {
        let line = format!("GET /v1/explain?verb=Dial&identity=public&to=gateway:{port}");
        ask(world, &line, Value::Null).await.1.to_string()
    };
    assert!(explained(&world, in_use).await.contains("nothing listens there"));
    assert!(!explained(&world, free).await.contains("nothing listens there"));
    let control = explained(&world, world.control().port()).await;
    assert!(control.contains("it is the control port") && !control.contains("create route"), "{control}");

    world.reload(|config| config.tcp = None).unwrap();
    let (_, item) = ask(&world, "GET /v1/routes/fine", Value::Null).await;
    assert!(remarks(&item)[0].contains("add `tcp:` to gateway.yaml"), "{item}");
    let planned = json!({ "kind": "route", "name": "later", "ports": [25_432], "service": "db" });
    let batch = json!({ "resources": [planned], "dry_run": true });
    let (status, planned) = ask(&world, "POST /v1/apply", batch).await;
    assert_eq!(status, 200);
    assert!(remarks(&planned)[0].starts_with("route later: port 25432 is not served: "), "{planned}");
    let (status, back) = ask(&world, "PUT /v1/routes/fine", item).await;
    assert_eq!((status, remarks(&back).len()), (200, 1), "what was read can be written back: {back}");
    world.finish().await;
}

#[tokio::test]
async fn lists_have_pages_that_stay_stable_while_things_change() {
    let world = world().await;
    let services: Vec<_> =
        (0..25).map(|i| json!({ "kind": "service", "name": format!("s{i:02}") })).collect();
    let (status, applied) = ask(&world, "POST /v1/apply", json!({ "resources": services })).await;
    assert_eq!((status, applied["changes"].as_array().unwrap().len()), (200, 25));
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = ask(&world, "GET /v1/services?limit=10", Value::Null).await;
    assert_eq!((names(&first).len(), &first["next"]), (10, &json!("s09")));
    ask(&world, "DELETE /v1/services/s09", Value::Null).await;
    ask(&world, "POST /v1/services", json!({ "name": "s00a" })).await;
    let (_, second) = ask(&world, "GET /v1/services?limit=10&after=s09", Value::Null).await;
    assert_eq!(names(&second).first().unwrap(), "s10");
    let (_, last) = ask(&world, "GET /v1/services?limit=10&after=s19", Value::Null).await;
    assert_eq!((names(&last).len(), &last["next"]), (5, &Value::Null));
    let (_, some) = ask(&world, "GET /v1/services?filter=name~S1", Value::Null).await;
    assert_eq!(names(&some).len(), 10);
    for bad in
        ["limit=0", "limit=1001", "limit=x", "colour=red", "filter=colour", "after=a%20b", "limit=1&limit=2"]
    {
        let (status, body) = ask(&world, &format!("GET /v1/services?{bad}"), Value::Null).await;
        assert_eq!(status, 400, "{bad}");
        code(&body);
    }
    world.finish().await;
}

#[tokio::test]
async fn every_no_has_one_form_and_the_right_status() {
    let world = world().await;
    for (line, body, status, word) in [
        ("GET /v1/nothing", Value::Null, 404, "not_found"),
        ("GET /v1", Value::Null, 404, "not_found"),
        ("GET /v1/services/none", Value::Null, 404, "not_found"),
        ("DELETE /v1/services", Value::Null, 405, "method_not_allowed"),
        ("POST /v1/services", json!({ "name": "a", "colour": "red" }), 422, "invalid"),
        ("POST /v1/services", json!({ "name": "a b" }), 422, "invalid"),
        ("POST /v1/services", json!({ "name": "a", "kind": "route" }), 422, "invalid"),
        ("POST /v1/services", json!([1]), 422, "invalid"),
        (
            "POST /v1/configs",
            json!({ "name": "a", "type": "host.v1", "data": ["tcp", "a", 1] }),
            422,
            "invalid",
        ),
        ("POST /v1/tokens", json!({ "name": "a", "limits": [] }), 422, "invalid"),
        ("POST /v1/apply", json!([[], true]), 422, "invalid"),
        ("PUT /v1/services/a", json!({ "name": "b" }), 422, "name_mismatch"),
        ("POST /v1/services", json!({ "name": "a", "configs": ["none"] }), 422, "missing_reference"),
        ("GET /v1/services/%ff", Value::Null, 400, "bad_path"),
        ("GET /v1/services/a%20b", Value::Null, 400, "bad_name"),
        ("POST /v1/backup", Value::Null, 409, "no_state"),
        ("POST /-/reload", Value::Null, 409, "no_file"),
    ] {
        let (got, said) = ask(&world, line, body).await;
        assert_eq!((got, code(&said)), (status, word), "{line}");
    }
    let allow = ask_with(&world, "PATCH /v1/services", "", &Value::Null).await;
    assert!(allow.field("allow").is_some_and(|it| it.contains("POST") && it.contains("GET")), "{allow:?}");
    let raw = |fields: &'static str, body: String| {
        let world = &world;
        async move {
            let length = body.len();
            let head = format!(
                "POST /v1/services HTTP/1.1\r\nhost: a\r\n{ADMIN}{fields}content-length: {length}\r\n"
            );
            let reply = send(world, &head, &body).await;
            (reply.status(), code(&serde_json::from_str(&reply.text()).unwrap()).to_owned())
        }
    };
    let json = "content-type: application/json\r\n";
    assert_eq!(raw(json, "{".to_owned()).await, (400, "bad_json".to_owned()));
    assert_eq!(raw(json, "[".repeat(10_000)).await, (400, "bad_json".to_owned()), "depth is bounded");
    assert_eq!(raw("content-type: text/plain\r\n", "{}".to_owned()).await.0, 415);
    assert_eq!(raw("", "{}".to_owned()).await.0, 415);
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(1024 * 1024));
    assert_eq!(raw(json, large).await, (413, "too_large".to_owned()));
    world.finish().await;
}

#[tokio::test]
async fn who_has_no_right_reads_and_changes_nothing() {
    let world = world().await;
    let plain = |line: &str, fields: &str| {
        let head = format!("{line} HTTP/1.1\r\nhost: a\r\n{fields}");
        let world = &world;
        async move { send(world, &head, "").await }
    };
    for line in ["GET /v1/services", "POST /v1/services", "GET /v1/nothing", "GET /v1/openapi.json"] {
        for fields in ["", "authorization: Bearer wrong\r\n", "authorization: Basic eDp5\r\n"] {
            let reply = plain(line, fields).await;
            assert_eq!(
                (reply.status(), reply.field("cache-control")),
                (401, Some("no-store")),
                "{line} {fields}"
            );
            assert!(reply.field("www-authenticate").is_some());
            assert_eq!(code(&serde_json::from_str(&reply.text()).unwrap()), "unauthorized");
        }
        // A token of agents is known, and has no right here.
        let reply = plain(line, &World::bearer()).await;
        assert_eq!((reply.status(), code(&serde_json::from_str(&reply.text()).unwrap())), (403, "not_admin"));
    }
    let who = plain("GET /v1/whoami", &World::bearer()).await;
    let who: Value = serde_json::from_str(&who.text()).unwrap();
    assert_eq!(who, json!({ "name": "token:default", "admin": false, "metrics": true }));
    assert_eq!(
        ask(&world, "GET /v1/whoami", Value::Null).await.1,
        json!({ "name": "token:ops", "admin": true, "metrics": true })
    );
    world.sum_becomes("adit_auth_failures_total", &[("reason", "unauthorized")], 8).await;
    // The body of somebody who is refused is not waited for.
    let mut wire = Wire::tls(world.control(), &credulous(&[b"http/1.1"])).await;
    wire.send("POST /v1/apply HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await;
    assert_eq!(wire.reply().await.status(), 401);
    world.finish().await;
}

#[tokio::test]
async fn a_token_is_created_used_rotated_and_revoked() {
    let world = world().await;
    let (status, created) = ask(&world, "POST /v1/tokens", json!({ "name": "ci", "admin": true })).await;
    let secret = created["token"].as_str().unwrap().to_owned();
    assert_eq!((status, secret.len()), (201, 40));
    let (_, shown) = ask(&world, "GET /v1/tokens/ci", Value::Null).await;
    assert_eq!(shown.get("token"), None, "it is told once");
    let status_for = |secret: &str| {
        let head = format!("GET /v1/whoami HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {secret}\r\n");
        let world = &world;
        async move { send(world, &head, "").await.status() }
    };
    assert_eq!(status_for(&secret).await, 200);
    let (status, rotated) = ask(&world, "POST /v1/tokens/ci/rotate", json!({ "window_seconds": 600 })).await;
    let second = rotated["token"].as_str().unwrap().to_owned();
    assert!(status == 200 && rotated["old_until"].is_string(), "{rotated}");
    assert_eq!(
        (status_for(&secret).await, status_for(&second).await),
        (200, 200),
        "both are good in the window"
    );
    let (_, rotated) = ask(&world, "POST /v1/tokens/ci/rotate", json!({ "window_seconds": 0 })).await;
    let third = rotated["token"].as_str().unwrap().to_owned();
    assert_eq!(
        (status_for(&secret).await, status_for(&second).await, status_for(&third).await),
        (401, 401, 200)
    );
    assert_eq!(ask(&world, "DELETE /v1/tokens/ci/secrets", Value::Null).await.0, 204);
    assert_eq!(status_for(&third).await, 401);
    let (_, rotated) = ask(&world, "POST /v1/tokens/ci/rotate", Value::Null).await;
    let fourth = rotated["token"].as_str().unwrap().to_owned();
    ask(&world, "PUT /v1/tokens/ci", json!({ "name": "ci", "admin": true, "disabled": true })).await;
    assert_eq!(status_for(&fourth).await, 401, "a disabled token opens nothing");
    let (_, log) = ask(&world, "GET /v1/audit", Value::Null).await;
    for secret in [secret, second, third, fourth] {
        assert!(!log.to_string().contains(&secret) && !world.log().concat().contains(&secret));
    }
    world.finish().await;
}

#[tokio::test]
async fn apply_says_what_it_changes_and_export_is_what_it_takes() {
    let world = world().await;
    let resources = json!([
        { "kind": "service-policy", "name": "p", "type": "Dial", "service_roles": ["@web"], "identity_roles": ["@alice"] },
        { "kind": "service", "name": "web" },
        { "kind": "identity", "name": "alice" },
    ]);
    let (_, dry) = ask(&world, "POST /v1/apply", json!({ "resources": resources, "dry_run": true })).await;
    let actions = |answer: &Value| -> Vec<String> {
        answer["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["action"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(actions(&dry), ["create"; 3]);
    assert_eq!(ask(&world, "GET /v1/export", Value::Null).await.1["resources"], json!([]));
    let (_, done) = ask(&world, "POST /v1/apply", json!({ "resources": resources })).await;
    assert_eq!(actions(&done), ["create"; 3]);
    let (_, export) = ask(&world, "GET /v1/export", Value::Null).await;
    let again = json!({ "resources": export["resources"], "prune": true });
    assert_eq!(actions(&ask(&world, "POST /v1/apply", again).await.1), ["none"; 3]);
    let (status, body) = ask(&world, "DELETE /v1/services/web", Value::Null).await;
    assert_eq!((status, code(&body)), (409, "in_use"));
    let (status, forced) = ask(&world, "DELETE /v1/services/web?force=true", Value::Null).await;
    assert_eq!((status, actions(&forced)), (200, vec!["delete".to_owned(), "delete".to_owned()]));
    assert_eq!(
        (&forced["changes"][1]["kind"], &forced["changes"][1]["name"]),
        (&json!("service-policy"), &json!("p")),
        "what went along is told"
    );
    for unlisted in [json!({ "prune": true }), json!({ "prune": true, "resources": null })] {
        let (status, refused) = ask(&world, "POST /v1/apply", unlisted).await;
        assert_eq!((status, code(&refused)), (422, "invalid"), "{refused}");
    }
    assert_eq!(ask(&world, "GET /v1/export", Value::Null).await.1["resources"].as_array().unwrap().len(), 1);
    let fewer = json!({ "resources": [{ "kind": "service", "name": "web" }], "prune": true });
    let (_, pruned) = ask(&world, "POST /v1/apply", fewer).await;
    assert_eq!(actions(&pruned), ["create", "delete"]);
    world.sum_becomes("adit_changes_total", &[("action", "create"), ("result", "done")], 4).await;
    world.sum_becomes("adit_changes_total", &[("result", "in_use")], 1).await;
    world.sum_becomes("adit_resources", &[], 1).await;
    world.sum_becomes("adit_store_up", &[], 1).await;
    // Three created, two deleted by force, one created and one deleted at the end.
    world.sum_becomes("adit_audit_records", &[], 7).await;
    world.sum_becomes("adit_admin_requests_total", &[("endpoint", "/v1/apply"), ("code", "200")], 4).await;
    world.finish().await;
}

#[tokio::test]
async fn the_audit_log_is_paged_filtered_and_exported_as_lines() {
    let world = world().await;
    for name in ["a", "b", "c"] {
        ask(&world, "POST /v1/services", json!({ "name": name })).await;
    }
    ask(&world, "DELETE /v1/services/b", Value::Null).await;
    let (_, page) = ask(&world, "GET /v1/audit?limit=3", Value::Null).await;
    let items = page["items"].as_array().unwrap();
    assert_eq!((items.len(), &page["next"], &page["dropped"]), (3, &json!(2), &json!(0)));
    assert_eq!(
        (&items[0]["actor"], &items[0]["action"], &items[0]["name"]),
        (&json!("token:ops"), &json!("create"), &json!("a"))
    );
    assert!(items[0]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    let (_, rest) = ask(&world, "GET /v1/audit?after=2", Value::Null).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    let (_, about) =
        ask(&world, "GET /v1/audit?name=B&kind=service&actor=token:ops&order=desc", Value::Null).await;
    let actions: Vec<_> = about["items"].as_array().unwrap().iter().map(|it| it["action"].clone()).collect();
    assert_eq!(actions, ["delete", "create"]);
    let lines = ask_with(&world, "GET /v1/audit", "accept: application/x-ndjson\r\n", &Value::Null).await;
    assert_eq!(lines.field("content-type"), Some("application/x-ndjson"));
    let lines = lines.text();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[3]["seq"]), (4, &json!(3)));
    world.finish().await;
}

#[tokio::test]
async fn a_watch_tells_changes_resumes_and_ends_with_the_right_and_with_the_gateway() {
    let world = world().await;
    let (_, created) = ask(&world, "POST /v1/tokens", json!({ "name": "viewer", "admin": true })).await;
    let secret = created["token"].as_str().unwrap();
    let watch = |fields: &str, query: &str| {
        let head = format!(
            "GET /v1/watch{query} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {secret}\r\n{fields}\r\n"
        );
        let control = world.control();
        async move {
            let mut wire = Wire::tls(control, &credulous(&[b"http/1.1"])).await;
            wire.send(head).await;
            wire
        }
    };
    let holds = async |wire: &mut Wire, text: &str| {
        within("what is told", async {
            while !String::from_utf8_lossy(wire.waiting()).contains(text) {
                assert_ne!(
                    wire.fill().await,
                    0,
                    "it ended before {text}: {:?}",
                    String::from_utf8_lossy(wire.waiting())
                );
            }
        })
        .await;
    };
    let mut first = watch("", "").await;
    holds(&mut first, "text/event-stream").await;
    holds(&mut first, ": changes from here on").await;
    ask(&world, "POST /v1/services", json!({ "name": "web" })).await;
    holds(&mut first, "event: create\nid: 2\ndata: {").await;
    ask(&world, "DELETE /v1/services/web", Value::Null).await;
    holds(&mut first, "event: delete\nid: 3\ndata: {").await;
    let mut resumed = watch("last-event-id: 2\r\n", "?since=1").await;
    holds(&mut resumed, "event: delete\nid: 3").await;
    assert!(!String::from_utf8_lossy(resumed.waiting()).contains("event: create"));
    let mut unknown = watch("", "?since=99").await;
    holds(&mut unknown, "410 Gone").await;
    // Its right goes: both end.
    ask(&world, "DELETE /v1/tokens/viewer", Value::Null).await;
    within("the end of the watch", first.ended()).await;
    within("the end of the other", resumed.ended()).await;
    world.finish().await;
}

#[tokio::test]
async fn identities_are_invited_and_their_resources_survive_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().to_owned();
    let mut token = local_token("ops", "the-secret-of-an-administrator");
    token.token.admin = true;
    let mut world = World::new()
        .gateway(|config| {
            config.tokens.push(token);
            config.state.directory = Some(directory);
        })
        .run()
        .await;
    ask(&world, "POST /v1/identities", json!({ "name": "alice" })).await;
    let (status, invited) =
        ask(&world, "POST /v1/identities/alice/enrollments", json!({ "ttl_seconds": 60 })).await;
    assert_eq!((status, invited["jwt"].as_str().unwrap().split('.').count()), (200, 3), "{invited}");
    let (status, _) = ask(&world, "POST /v1/identities/none/enrollments", Value::Null).await;
    assert_eq!(status, 404);
    let forged = json!({ "token": "a.b.c", "csr": "" });
    let (status, body) = ask(&world, "POST /v1/enroll", forged).await;
    assert_eq!((status, code(&body)), (401, "enrollment_refused"));
    let (status, body) = ask(&world, "POST /v1/renew", json!({ "csr": "" })).await;
    assert_eq!((status, code(&body)), (401, "unauthorized"));
    let backup = ask_with(&world, "POST /v1/backup", "accept: application/*\r\n", &Value::Null).await;
    assert_eq!((backup.status(), backup.field("content-type")), (200, Some("application/vnd.sqlite3")));
    let (_, log) = ask(&world, "GET /v1/audit?order=desc&limit=1", Value::Null).await;
    let record = &log["items"][0];
    assert_eq!((&record["action"], &record["actor"]), (&json!("backup"), &json!("token:ops")));
    assert!(record["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
    assert!(record["at"].as_str().unwrap().ends_with('Z') && record.get("kind").is_none(), "{record}");
    let (_, before) = ask(&world, "GET /v1/info", Value::Null).await;
    assert_eq!((&before["state"], &before["state_current"]), (&json!("directory"), &json!(true)));
    world.restart_gateway().await;
    let (_, after) = ask(&world, "GET /v1/info", Value::Null).await;
    assert_eq!((&after["revision"], &after["trust_domain"]), (&before["revision"], &before["trust_domain"]));
    assert_eq!(ask(&world, "GET /v1/identities/alice", Value::Null).await.0, 200);
    world.finish().await;
}

#[tokio::test]
async fn the_description_is_served_and_names_every_endpoint() {
    let world = world().await;
    let (status, document) = ask(&world, "GET /v1/openapi.json", Value::Null).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    assert!(document["paths"].as_object().unwrap().len() > 25);
    assert_eq!(document, adit_gateway::api::openapi());
    world.finish().await;
}

#[tokio::test]
async fn administrators_who_change_the_same_thing_at_once_overwrite_nothing_of_each_other() {
    const ADMINS: usize = 4;
    const TIMES: usize = 5;
    let world = world().await;
    ask(&world, "POST /v1/identities", json!({ "name": "alice", "attributes": ["z"] })).await;
    let all_have_read = tokio::sync::Barrier::new(ADMINS);
    // Each adds attributes of its own to what is there, and begins again when somebody else was faster.
    let administrator = async |number: usize| {
        let mut late = 0;
        for time in 0..TIMES {
            for attempt in 0.. {
                let read = ask_with(&world, "GET /v1/identities/alice", "", &Value::Null).await;
                let mut alice: Value = serde_json::from_str(&read.text()).unwrap();
                alice["attributes"].as_array_mut().unwrap().push(json!(format!("a{number}-{time}")));
                if attempt == 0 {
                    within("the others", all_have_read.wait()).await;
                }
                let only_this = format!("if-match: {}\r\n", read.field("etag").unwrap());
                let put = ask_with(&world, "PUT /v1/identities/alice", &only_this, &alice).await;
                match put.status() {
                    200 => break,
                    412 => late += 1,
                    other => panic!("{other}: {}", put.text()),
                }
            }
        }
        late
    };
    let (a, b, c, d) = tokio::join!(administrator(0), administrator(1), administrator(2), administrator(3));
    // Of those who have read the same, one is first.
    assert!(a + b + c + d >= (ADMINS - 1) * TIMES, "{a}, {b}, {c} and {d} times late");
    let (_, alice) = ask(&world, "GET /v1/identities/alice", Value::Null).await;
    let mut there: Vec<&str> =
        alice["attributes"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    there.sort_unstable();
    let mut all: Vec<String> =
        (0..ADMINS).flat_map(|number| (0..TIMES).map(move |time| format!("a{number}-{time}"))).collect();
    all.push("z".to_owned());
    all.sort_unstable();
    assert_eq!(there, all);
    world.finish().await;
}

#[tokio::test]
async fn a_service_and_a_token_shown_alone_tell_who_may_and_who_does() {
    let mut world = world().await;
    let policy = |name: &str, verb: &str, services: &str, identities: &str| {
        json!({
            "name": name, "type": verb, "service_roles": [services], "identity_roles": [identities],
        })
    };
    let (status, shop) =
        ask(&world, "POST /v1/tokens", json!({ "name": "shop", "limits": { "services": [] } })).await;
    assert_eq!((status, &shop["sessions"]), (201, &json!([])), "{shop}");
    for (kind, document) in [
        ("services", json!({ "name": "web", "attributes": ["internal"] })),
        ("services", json!({ "name": "other" })),
        ("service-policies", policy("web.bind", "Bind", "@web", "@shop")),
        ("service-policies", policy("internal.dial", "Dial", "#internal", "#dev")),
        ("service-policies", policy("other.dial", "Dial", "@other", "#dev")),
    ] {
        let (status, said) = ask(&world, &format!("POST /v1/{kind}"), document).await;
        assert_eq!(status, 201, "{said}");
    }
    let echo = Tcp::echo().await;
    world.join(AgentPlan::new().token(shop["token"].as_str().unwrap()).offer("@web", &echo)).await;

    let (_, web) = ask(&world, "GET /v1/services/web", Value::Null).await;
    assert_eq!(
        (&web["dial_policies"][0]["name"], &web["dial_policies"][0]["identity_roles"][0]),
        (&json!("internal.dial"), &json!("#dev")),
        "{web}"
    );
    assert_eq!(web["dial_policies"].as_array().unwrap().len(), 1, "{web}");
    assert_eq!(web["bind_policies"][0]["name"], "web.bind");
    assert_eq!(
        (&web["endpoints"][0]["identity"], &web["endpoints"][0]["service"]),
        (&json!("shop"), &json!("web"))
    );
    let (_, token) = ask(&world, "GET /v1/tokens/shop", Value::Null).await;
    let session = &token["sessions"][0];
    assert_eq!(
        (&session["offers"][0]["service"], &session["offers"][0]["upstream"]),
        (&json!("@web"), &web["endpoints"][0]["upstream"]),
        "{token}"
    );
    assert!(session["since"].as_str().unwrap().ends_with('Z'), "{session}");

    let (_, other) = ask(&world, "GET /v1/services/other", Value::Null).await;
    assert_eq!((&other["bind_policies"], &other["endpoints"]), (&json!([]), &json!([])), "{other}");
    // What was read can be written back; lists leave it out.
    assert_eq!(ask(&world, "PUT /v1/services/web", web).await.0, 200);
    assert_eq!(ask(&world, "PUT /v1/tokens/shop", token).await.0, 200);
    let (_, page) = ask(&world, "GET /v1/services", Value::Null).await;
    assert!(page["items"][0].get("endpoints").is_none(), "{page}");
    world.finish().await;
}
