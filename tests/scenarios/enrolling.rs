//! From a one-time token to a session, over the control port: enrollment, its race, and renewal.

use std::sync::Arc;

use adit_testkit::agent::enroll::{EnrollError, enroll};
use adit_testkit::agent::renew::Renewal;
use adit_testkit::certificate::credulous;
use adit_testkit::control::authority::fingerprint;
use adit_testkit::tcp::Tcp;
use adit_testkit::tunnel::identity::{IdentityFile, LiveIdentity};
use adit_testkit::tunnel::proxy::Egress;
use adit_testkit::world::local_token;
use adit_testkit::{AgentPlan, Wire, World, within};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ADMIN: &str = "the-secret-of-an-administrator";

async fn world() -> World {
    let mut token = local_token("ops", ADMIN);
    token.token.admin = true;
    World::new().gateway(|config| config.tokens.push(token)).run().await
}

async fn ask(world: &World, line: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut wire = Wire::tls(world.control(), &credulous(&[b"http/1.1"])).await;
    wire.send(format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ADMIN}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let reply = wire.reply().await;
    (reply.status(), serde_json::from_str(&reply.text()).unwrap_or_default())
}

async fn create(world: &World, kind: &str, body: Value) {
    let (status, said) = ask(world, &format!("POST /v1/{kind}"), &body).await;
    assert_eq!(status, 201, "{said}");
}

async fn token(world: &World, identity: &str) -> String {
    let (status, said) = ask(world, &format!("POST /v1/identities/{identity}/enrollments"), &json!({})).await;
    assert_eq!(status, 200, "{said}");
    said["jwt"].as_str().unwrap().to_owned()
}

async fn enrolled(world: &World, identity: &str) -> IdentityFile {
    create(world, "identities", json!({ "name": identity })).await;
    within("enrolling", Box::pin(enroll(&token(world, identity).await, &Egress::direct()))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_uses_of_one_token_at_once_one_gets_an_identity() {
    let world = world().await;
    create(&world, "identities", json!({ "name": "laptop" })).await;
    let token = token(&world, "laptop").await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let token = token.clone();
        all.spawn(async move { enroll(&token, &Egress::direct()).await });
    }
    let (given, refused): (Vec<_>, Vec<_>) =
        within("all of them", all.join_all()).await.into_iter().partition(Result::is_ok);
    assert_eq!(given.len(), 1, "{refused:?}");
    for error in refused {
        assert!(matches!(error, Err(EnrollError::Refused { .. } | EnrollError::Call { .. })), "{error:?}");
    }
    let (_, identity) = ask(&world, "GET /v1/identities/laptop", &Value::Null).await;
    let serials: Vec<&str> =
        identity["credentials"].as_array().unwrap().iter().map(|it| it["serial"].as_str().unwrap()).collect();
    assert_eq!(serials, [given[0].as_ref().unwrap().leaf().serial.as_str()]);
    world.finish().await;
}

#[tokio::test]
async fn a_token_for_one_gateway_is_not_shown_to_another() {
    let (world, other) = (world().await, world().await);
    create(&world, "identities", json!({ "name": "laptop" })).await;
    let genuine = token(&world, "laptop").await;
    // As somebody would who wants it: the same token, with another address in it.
    let mut parts: Vec<String> = genuine.split('.').map(str::to_owned).collect();
    let mut claims = claims(&genuine);
    claims["iss"] = json!(format!("https://localhost:{}", other.control().port()));
    parts[1] = BASE64.encode(claims.to_string());
    let error = enroll(&parts.join("."), &Egress::direct()).await.unwrap_err();
    assert!(matches!(error, EnrollError::Another { .. }), "{error}");
    // Altered, and sent to the right one.
    claims["iss"] = json!(format!("https://localhost:{}", world.control().port()));
    claims["sub"] = json!("admin");
    parts[1] = BASE64.encode(claims.to_string());
    let error = enroll(&parts.join("."), &Egress::direct()).await.unwrap_err().to_string();
    assert!(error.contains("signature is wrong"), "{error}");
    assert!(enroll(&genuine, &Egress::direct()).await.is_ok(), "it was not used up");
    world.finish().await;
    other.finish().await;
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&BASE64.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn an_enrolled_agent_serves_and_a_renewed_certificate_drops_no_stream() {
    let mut world = world().await;
    for name in ["host", "client"] {
        create(&world, "identities", json!({ "name": name, "attributes": [name] })).await;
    }
    create(&world, "services", json!({ "name": "db" })).await;
    for (name, verb) in [("host", "Bind"), ("client", "Dial")] {
        let roles = json!({ "name": verb, "type": verb, "service_roles": ["@db"], "identity_roles": [format!("#{name}")] });
        create(&world, "service-policies", roles).await;
    }
    let mut live = Vec::new();
    for name in ["host", "client"] {
        let token = token(&world, name).await;
        let file = enroll(&token, &Egress::direct()).await.unwrap();
        let roots: Vec<_> = file.roots().iter().map(|root| json!(fingerprint(root))).collect();
        assert_eq!(roots, [claims(&token)["ca"].clone()]);
        live.push(LiveIdentity::new(file).unwrap());
    }
    let echo = Tcp::echo().await;
    world.join(AgentPlan::new().identity(&live[0]).offer("@db", &echo)).await;
    let client = world.join(AgentPlan::new().identity(&live[1]).dials()).await;
    let mut stream = world.agent(client).dial(&"db".parse().unwrap()).await.unwrap();
    let before = live[1].file().leaf().serial.clone();
    for identity in &live {
        let renewal = Renewal::new(Arc::clone(identity), Egress::direct(), Vec::new());
        within("a renewal", renewal.renew()).await.unwrap();
    }
    let after = live[1].file().leaf().serial.clone();
    assert_ne!(before, after);
    for byte in 0..9_u8 {
        stream.write_all(&[byte]).await.unwrap();
        assert_eq!(within("the answer", stream.read_u8()).await.unwrap(), byte);
    }
    // The new one opens the next session.
    let next = world.join(AgentPlan::new().identity(&live[1]).dials()).await;
    let mut other = world.agent(next).dial(&"db".parse().unwrap()).await.unwrap();
    other.write_all(b"x").await.unwrap();
    assert_eq!(within("the answer", other.read_u8()).await.unwrap(), b'x');
    // It rests on the old one, and is taken back with it.
    let (status, said) =
        ask(&world, &format!("DELETE /v1/identities/client/credentials/{before}"), &Value::Null).await;
    assert_eq!((status, &said["serials"], &said["remaining"]), (200, &json!([before, after]), &json!([])));
    within("the end of the stream", other.read_u8()).await.unwrap_err();
    drop((stream, other));
    world.finish().await;
}

#[tokio::test]
async fn an_identity_that_is_gone_renews_nothing() {
    let world = world().await;
    let live = LiveIdentity::new(Box::pin(enrolled(&world, "laptop")).await).unwrap();
    let (status, said) = ask(&world, "DELETE /v1/identities/laptop", &Value::Null).await;
    assert!(matches!(status, 200 | 204), "{said}");
    let renewal = Renewal::new(Arc::clone(&live), Egress::direct(), Vec::new());
    let before = live.file().leaf().clone();
    assert!(within("a refusal", renewal.renew()).await.is_err());
    assert_eq!(*live.file().leaf(), before);
    create(&world, "identities", json!({ "name": "laptop" })).await;
    assert!(within("a refusal", renewal.renew()).await.is_err(), "the name alone opens nothing");
    world.finish().await;
}
