//! Who may offer what, and what happens to what is open when the rules change.

use std::io::ErrorKind;
use std::sync::Arc;

use adit_testkit::control::model::Verb;
use adit_testkit::ports::free;
use adit_testkit::proto::reason::Reason;
use adit_testkit::tcp::Tcp;
use adit_testkit::tunnel::handshake::HandshakeError;
use adit_testkit::{AgentPlan, Puppet, Rights, Signal, Upstream, World, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HOST: &str = "hosts things";
const OTHER: &str = "is somebody else";

/// `host` may offer the service, which a host name and a port lead to.
fn rights(port: u16) -> Rights {
    Rights::new()
        .token("host", HOST)
        .token("other", OTHER)
        .service("app")
        .bind("@app", "@host")
        .dial("@app", "@public")
        .route(&["app.example", &port.to_string()], "app")
}

/// What a hello with these offers is told.
async fn refusal(world: &World, token: &str, offers: &[&str]) -> (Reason, String) {
    match Puppet::greet(world.control(), token, (9, 1), offers).await {
        Err(HandshakeError::Refused(refused)) => (refused.reason, refused.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn another_identity_cannot_take_a_host_port_or_service_and_hears_which_policy_is_missing() {
    let world = World::new().run().await;
    let port = free();
    world.publish(&rights(port).model);
    for offer in ["app.example", &format!("tcp:{port}"), "@app"] {
        let (reason, text) = refusal(&world, OTHER, &[offer]).await;
        assert_eq!(reason, Reason::NotPermitted, "{offer}: {text}");
        assert!(text.contains("no Bind policy lets token other offer service app"), "{offer}: {text}");
    }
    for gone in ["@app", "@gone"] {
        let (_, text) = refusal(&world, OTHER, &[gone]).await;
        let name = gone.trim_start_matches('@');
        let create = format!("or, if there is no such service: adit edge create service \"{name}\"");
        assert!(text.contains(&create), "whether there is one is not told: {text}");
    }
    let (_, text) = refusal(&world, OTHER, &["@app", "b.example", "@c"]).await;
    assert!(text.contains("@app: ") && text.contains("2 other offers"), "{text}");
    drop(Puppet::greet(world.control(), HOST, (1, 1), &["app.example"]).await.unwrap());
    world.finish().await;
}

#[tokio::test]
async fn a_session_stands_with_the_offers_that_are_permitted_and_gets_the_others_when_they_are() {
    let upstream = Upstream::named("here").await;
    let mut world = World::new().run().await;
    let rights = rights(free()).service("late").route(&["late.example"], "late").dial("@late", "@public");
    world.publish(&rights.model);
    let plan = AgentPlan::new().token(HOST).offer("app.example", &upstream).offer("late.example", &upstream);
    world.join(plan).await;
    assert_eq!(world.get("app.example", "/").await.text(), "here");
    assert_eq!(world.get("late.example", "/").await.status(), 503);
    assert!(world.log().iter().any(|line| line.contains("does not take an offer")), "{:#?}", world.log());
    world.publish(&rights.bind("@late", "@host").model);
    until("the other offer is taken", || async {
        let status = world.get("late.example", "/").await.status();
        if status == 200 { Ok(()) } else { Err(status) }
    })
    .await;
    world.sum_becomes("adit_offers_denied_total", &[("reason", "not_permitted")], 1).await;
    world.finish().await;
}

#[tokio::test]
async fn a_routed_service_is_for_the_public_only_where_a_policy_says_so() {
    let upstream = Upstream::named("here").await;
    let mut world = World::new().run().await;
    let port = free();
    world.publish(&rights(port).without(Verb::Dial).model);
    world.join(AgentPlan::new().token(HOST).offer("@app", &upstream)).await;
    let refused = world.get("app.example", "/").await;
    assert_eq!((refused.status(), refused.reason()), (403, Some("not_permitted")));
    assert!(!refused.text().contains("@app"), "the public hears no names: {}", refused.text());
    world.publish(&rights(port).model);
    assert_eq!(world.get("app.example", "/").await.text(), "here");
    world.finish().await;
}

#[tokio::test]
async fn a_port_is_there_as_long_as_its_route_and_leads_to_its_service() {
    let echo = Tcp::echo().await;
    let mut world = World::new().run().await;
    let port = free();
    world.publish(&rights(port).model);
    let connect = || TcpStream::connect(("127.0.0.1", port));
    until("the port of the route is there", || async { connect().await.map(drop) }).await;
    world.join(AgentPlan::new().token(HOST).offer("@app", &echo)).await;
    let mut client = connect().await.unwrap();
    client.write_all(b"x").await.unwrap();
    assert_eq!(within("the answer", client.read_u8()).await.unwrap(), b'x');
    drop(client);
    world.publish(&Rights::new().token("host", HOST).service("app").bind("@app", "@host").model);
    until("the port is gone", || async { connect().await.err().ok_or("it is there") }).await;
    world.finish().await;
}

/// Something of everything that is open to one service.
struct Open {
    dial: adit_testkit::tunnel::session::Stream,
    tcp: TcpStream,
    download: adit_testkit::Wire,
    /// What stands behind the service.
    _echo: Tcp,
}

async fn everything(world: &mut World, port: u16) -> Open {
    let echo = Tcp::scripted(|mut tcp| async move {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = tcp.read(&mut buffer).await {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n";
            let answer: &[u8] = if buffer[..n].starts_with(b"GET") { head } else { &buffer[..n] };
            if tcp.write_all(answer).await.is_err() {
                return;
            }
        }
    })
    .await;
    world.publish(&rights(port).dial("@app", "@other").model);
    world.join(AgentPlan::new().token(HOST).offer("@app", format!("tcp://{}", echo.addr))).await;
    let dialling = world.join(AgentPlan::new().token(OTHER).dials()).await;
    let mut dial = world.agent(dialling).dial(&"app".parse().unwrap()).await.unwrap();
    dial.write_all(b"a").await.unwrap();
    assert_eq!(within("the dial", dial.read_u8()).await.unwrap(), b'a');
    let connect = || TcpStream::connect(("127.0.0.1", port));
    let mut tcp = until("the port of the route is there", || async { connect().await }).await;
    tcp.write_all(b"b").await.unwrap();
    assert_eq!(within("the connection", tcp.read_u8()).await.unwrap(), b'b');
    let mut download = world.wire().await;
    download.send("GET /events HTTP/1.1\r\nhost: app.example\r\n\r\n").await;
    assert_eq!(within("the head", download.head()).await.unwrap().status(), 200);
    assert_eq!(within("an event", download.chunk()).await.unwrap(), b"hi");
    Open { dial, tcp, download, _echo: echo }
}

impl Open {
    /// All of it ends, with the reason.
    async fn ends_revoked(mut self, world: &World) {
        let ended = async {
            let error = self.dial.read_u8().await.unwrap_err();
            assert_eq!(self.dial.watch().end(), Some(Reason::Revoked), "{error}");
            let error = self.tcp.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            self.download.ended().await;
        };
        within("the end of what is open", ended).await;
        let lines = world.request_log(3).await;
        let revoked = lines.iter().filter(|line| line["reason"] == "revoked").count();
        assert_eq!(revoked, 3, "{lines:#?}");
    }
}

#[tokio::test]
async fn what_no_policy_permits_any_more_ends() {
    let port = free();
    let mut world = World::new().workers(2).run().await;
    let open = everything(&mut world, port).await;
    world.publish(&rights(port).without(Verb::Dial).model);
    open.ends_revoked(&world).await;
    assert_eq!(world.get("app.example", "/").await.status(), 403);
    world.agents_become(2).await;
    world.finish().await;
}

#[tokio::test]
async fn without_the_route_that_led_there_what_came_by_it_ends_and_a_dial_goes_on() {
    let port = free();
    for elsewhere in [false, true] {
        let mut world = World::new().workers(2).run().await;
        let mut open = everything(&mut world, port).await;
        let mut model = rights(port).dial("@app", "@other").service("hidden").model;
        if elsewhere {
            for route in model.routes.values_mut() {
                Arc::make_mut(route).service = "hidden".parse().unwrap();
            }
        } else {
            model.routes.clear();
        }
        world.publish(&model);
        let ended = async {
            assert_eq!(open.tcp.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            open.download.ended().await;
        };
        within("the end of what is open", ended).await;
        open.dial.write_all(b"c").await.unwrap();
        assert_eq!(within("the dial", open.dial.read_u8()).await.unwrap(), b'c');
        let lines = world.request_log(2).await;
        assert!(lines.iter().all(|line| line["reason"] == "revoked"), "{lines:#?}");
        drop(open);
        world.finish().await;
    }
}

#[tokio::test]
async fn with_its_service_everything_that_is_open_to_it_ends() {
    let port = free();
    let mut world = World::new().workers(2).run().await;
    let open = everything(&mut world, port).await;
    world.publish(&Rights::new().token("host", HOST).token("other", OTHER).model);
    open.ends_revoked(&world).await;
    // Who offered nothing else is out too, and who only dials stays.
    world.agents_become(1).await;
    world.finish().await;
}

#[tokio::test]
async fn who_may_not_offer_it_any_more_carries_nothing_of_it() {
    let port = free();
    let mut world = World::new().workers(2).run().await;
    let open = everything(&mut world, port).await;
    world.publish(&rights(port).dial("@app", "@other").without(Verb::Bind).model);
    open.ends_revoked(&world).await;
    world.agents_become(1).await;
    world.finish().await;
}

#[tokio::test]
async fn a_token_that_is_disabled_or_gone_is_out_with_its_session_and_what_it_has_open() {
    let port = free();
    for disabled in [true, false] {
        let mut world = World::new().workers(2).run().await;
        let open = everything(&mut world, port).await;
        let rights = rights(port).dial("@app", "@other");
        let model = if disabled {
            rights.disable("host").model
        } else {
            let mut model = rights.model;
            model.tokens.remove("host");
            model.secrets.remove("host");
            model
        };
        world.publish(&model);
        open.ends_revoked(&world).await;
        world.agents_become(1).await;
        let (reason, _) = refusal(&world, HOST, &["@app"]).await;
        assert_eq!(reason, Reason::Unauthorized);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_token_has_two_secrets_while_it_is_rotated_and_one_that_was_taken_back_ends_its_session() {
    let world = World::new().run().await;
    let (old, new) = ("the old one", "the new one");
    let rights = Rights::new().service("app").bind("@app", "@host").token("host", old);
    world.publish(&rights.clone().secret("host", new, None).model);
    let with_old = Puppet::greet(world.control(), old, (1, 1), &["@app"]).await.unwrap();
    let with_new = Puppet::greet(world.control(), new, (2, 1), &["@app"]).await.unwrap();
    // The window of the old one is over.
    let mut model = rights.secret("host", new, None).model;
    Arc::make_mut(model.secrets.get_mut("host").unwrap())[0].not_after = Some(1);
    world.publish(&model);
    let reason = within("the end", with_old.session.closed()).await;
    assert_eq!(reason, Reason::Revoked);
    assert_eq!(with_new.session.end(), None);
    assert_eq!(refusal(&world, old, &["@app"]).await.0, Reason::Unauthorized);
    drop(with_new);
    world.finish().await;
}

#[tokio::test]
async fn a_request_without_an_answer_yet_is_told_that_its_right_was_taken_back() {
    let asked = Signal::default();
    let told = asked.clone();
    let silent = Upstream::scripted(move |mut wire| {
        let told = told.clone();
        async move {
            drop(wire.head().await);
            told.give();
            // Never answers; ends with its client.
            wire.ended().await;
        }
    })
    .await;
    let mut world = World::new().run().await;
    let port = free();
    world.publish(&rights(port).model);
    world.join(AgentPlan::new().token(HOST).offer("app.example", &silent)).await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await;
    asked.given(1).await;
    world.publish(&rights(port).without(Verb::Dial).model);
    let reply = within("the answer", client.reply()).await;
    assert_eq!((reply.status(), reply.reason()), (403, Some("revoked")));
    world.finish().await;
}
