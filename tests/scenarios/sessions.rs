//! Sessions: who may open one, by which transport, and what happens when the same agent is there twice.

use adit_testkit::agent::config::Transport;
use adit_testkit::certificate::{credulous, self_signed};
use adit_testkit::proto::reason::Reason;
use adit_testkit::proxy::{Manner, Proxy};
use adit_testkit::tunnel::handshake::HandshakeError;
use adit_testkit::tunnel::scope::Scope;
use adit_testkit::world::{TOKEN, local_token};
use adit_testkit::{AgentPlan, Puppet, Upstream, Wire, World, until, within};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const OTHER_TOKEN: &str = "another token";
const CANARY: &str = "canary-not-the-token";

fn refusal(outcome: Result<Puppet, HandshakeError>) -> (Reason, String) {
    match outcome {
        Err(HandshakeError::Refused(refused)) => (refused.reason, refused.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn every_transport_carries_sessions() {
    let upstream = Upstream::answering(|request| adit_testkit::Answer::text(&request.content.bytes)).await;
    for (transport, label) in [
        (Transport::Auto, "tls"),
        (Transport::Tls, "tls"),
        (Transport::WebSocket, "websocket"),
        (Transport::Quic, "quic"),
    ] {
        let mut world = World::new().run().await;
        world.join(AgentPlan::new().offer("a.example", &upstream).transport(transport)).await;
        assert!(world.log().iter().any(|line| line.contains(label) && line.contains("session opened")));
        let body = vec![b'x'; 1 << 20];
        let mut client = world.wire().await;
        for _ in 0..3 {
            let reply = client.post("a.example", "/", &body).await;
            assert!(reply.content.bytes == body, "{transport:?}: {reply:?}");
        }
        world
            .sum_becomes("http_controlplane_requests_total", &[("code", "101"), ("path", "/connect")], 1)
            .await;
        world.finish().await;
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_counted_and_never_logged() {
    let world = World::new().run().await;
    for transport in [Transport::Tls, Transport::WebSocket, Transport::Quic] {
        let plan = AgentPlan::new().offer("a.example", "http_status:204").token(CANARY).transport(transport);
        let agent = world.start_agent(&plan).await;
        let text = within("the refusal", agent.refused()).await;
        assert!(text.contains("token"), "{text}");
        drop(agent);
    }
    assert_eq!(
        world.ask_control("GET", "/status", &format!("authorization: Bearer {CANARY}\r\n")).await.status(),
        401
    );
    let samples = world.metrics().await;
    assert!(samples.sum("adit_auth_failures_total", &[("reason", "unauthorized")]) > 2.5);
    assert!(samples.sum("http_controlplane_requests_total", &[("code", "401"), ("path", "/connect")]) > 1.5);
    assert!(samples.sum("http_controlplane_connected_gauge", &[]) < 0.5);
    let log = world.log();
    assert!(log.iter().any(|line| line.contains("unauthorized")), "{log:#?}");
    let leaks: Vec<_> = log.iter().filter(|line| line.contains(CANARY) || line.contains(TOKEN)).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    world.finish().await;
}

#[tokio::test]
async fn an_address_that_has_guessed_too_often_hears_no_more_and_the_right_token_is_let_in_all_the_same() {
    let world = World::new().limits(|limits| limits.max_auth_failures = 3).run().await;
    for guess in 0..3 {
        let reply = world.ask_control("GET", "/status", &format!("authorization: Bearer {guess}\r\n")).await;
        assert_eq!(reply.status(), 401);
    }
    let reply = world.ask_control("GET", "/metrics", "authorization: Bearer 3\r\n").await;
    assert_eq!((reply.status(), reply.reason()), (429, Some("rate_limited")));
    let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "what is left of the minute: {wait}");
    let reply = world.ask_control("GET", "/metrics", "").await;
    assert_eq!(
        (reply.status(), reply.reason()),
        (401, Some("unauthorized")),
        "who shows nothing guesses nothing"
    );
    assert!(reply.field("www-authenticate").is_some());
    let (reason, _) = refusal(Puppet::greet(world.control(), CANARY, (1, 1), &["a.example"]).await);
    assert_eq!(reason, Reason::RateLimited);
    assert_eq!(world.ask_control("GET", "/metrics", &World::bearer()).await.status(), 200);
    Puppet::greet(world.control(), TOKEN, (1, 1), &["a.example"]).await.unwrap();
    assert_eq!(world.ask_control("GET", "/healthz", "").await.status(), 200, "what is open stays open");
}

#[tokio::test]
async fn guesses_by_session_count_like_any_other() {
    let world = World::new().limits(|limits| limits.max_auth_failures = 3).run().await;
    for _ in 0..3 {
        let (reason, _) = refusal(Puppet::greet(world.control(), CANARY, (1, 1), &["a.example"]).await);
        assert_eq!(reason, Reason::Unauthorized);
    }
    let (reason, _) = refusal(Puppet::greet(world.control(), CANARY, (1, 1), &["a.example"]).await);
    assert_eq!(reason, Reason::RateLimited);
}

#[tokio::test]
async fn a_man_in_the_middle_who_ends_tls_gets_no_session_whichever_transport() {
    let mut world = World::new().run().await;
    let middle = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = middle.local_addr().unwrap();
    let (control, scope) = (world.control(), Scope::new());
    let tasks = scope.clone();
    scope.spawn("man in the middle", async move {
        loop {
            let Ok((tcp, _)) = middle.accept().await else { return };
            tasks.spawn("relay", async move {
                let Ok(agent) = TlsAcceptor::from(self_signed(&[b"adit/1", b"http/1.1"])).accept(tcp).await
                else {
                    return;
                };
                let alpn = agent.get_ref().1.alpn_protocol().map(<[u8]>::to_vec).unwrap_or_default();
                let gateway = Wire::tls(control, &credulous(&[&alpn])).await.into_io();
                let (mut from_agent, mut to_agent) = tokio::io::split(agent);
                let (mut from_gateway, mut to_gateway) = tokio::io::split(gateway);
                tokio::select! {
                    () = relay(&mut from_agent, &mut to_gateway) => {}
                    () = relay(&mut from_gateway, &mut to_agent) => {}
                }
            });
        }
    });
    for transport in [Transport::Tls, Transport::WebSocket] {
        let plan =
            AgentPlan::new().offer("a.example", "http_status:204").transport(transport).by_way_of(address);
        let agent = world.start_agent(&plan).await;
        let text = within("the refusal", agent.refused()).await;
        assert!(text.contains("token"), "{text}");
        drop(agent);
    }
    world.agents_become(0).await;
    assert_eq!(world.get("a.example", "/").await.reason(), Some("no_route"));
    // The same plan without him works, so it was him.
    world.join(AgentPlan::new().offer("a.example", "http_status:204")).await;
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    scope.cancel();
    world.finish().await;
}

pub(crate) async fn relay<R, W>(from: &mut R, to: &mut W)
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..n]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}

#[tokio::test]
async fn an_agent_that_comes_again_takes_over_at_once_and_its_old_session_ends_as_replaced() {
    let world = World::new().run().await;
    let old = Puppet::greet(world.control(), TOKEN, (1, 1), &["a.example"]).await.unwrap();
    world.agents_become(1).await;
    let new = Puppet::greet(world.control(), TOKEN, (1, 2), &["a.example"]).await.unwrap();
    assert_eq!(within("the old session's end", old.session.closed()).await, Reason::Replaced);
    world.sum_becomes("adit_session_takeovers_total", &[], 1).await;
    world.sum_becomes("adit_sessions_ended_total", &[("reason", "replaced")], 1).await;
    world.sum_becomes("http_controlplane_connected_gauge", &[], 1).await;
    // Requests go to the new one.
    let session = new.session.clone();
    new.spawn(async move {
        while let Some((_, stream)) = session.accept().await {
            stream.reset(Reason::UpstreamRefused);
        }
    });
    assert_eq!(world.get("a.example", "/").await.reason(), Some("upstream_refused"));
    drop((old, new));
    world.finish().await;
}

#[tokio::test]
async fn an_older_session_of_the_same_agent_and_another_tokens_are_refused() {
    let world =
        World::new().gateway(|config| config.tokens.push(local_token("other", OTHER_TOKEN))).run().await;
    let standing = Puppet::greet(world.control(), TOKEN, (1, 5), &["a.example"]).await.unwrap();
    world.agents_become(1).await;
    for generation in [4, 5] {
        let (reason, _) =
            refusal(Puppet::greet(world.control(), TOKEN, (1, generation), &["a.example"]).await);
        assert_eq!(reason, Reason::Replaced, "{generation}");
    }
    let (reason, text) = refusal(Puppet::greet(world.control(), OTHER_TOKEN, (1, 6), &["a.example"]).await);
    assert_eq!(reason, Reason::Unauthorized, "{text}");
    assert_eq!(standing.session.end(), None, "the session that stood goes on standing");
    let other = Puppet::greet(world.control(), OTHER_TOKEN, (2, 1), &["b.example"]).await.unwrap();
    world.agents_become(2).await;
    drop((standing, other));
    world.agents_become(0).await;
    world.finish().await;
}

#[tokio::test]
async fn an_agent_is_back_by_itself_after_its_gateway_was_started_again() {
    for transport in [Transport::Tls, Transport::WebSocket, Transport::Quic] {
        let upstream = Upstream::named("ok").await;
        let mut world = World::new().run().await;
        world.join(AgentPlan::new().offer("a.example", &upstream).transport(transport)).await;
        assert_eq!(world.get("a.example", "/").await.status(), 200);
        world.restart_gateway().await;
        world.agents_become(1).await;
        assert_eq!(world.get("a.example", "/").await.status(), 200);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_loses_its_session_and_harms_no_other() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64], b"\x00\x00\x00\x04\x00\x00\x00\x01"]
    {
        let mut peer = Wire::tls(world.control(), &credulous(&[b"adit/1"])).await;
        peer.send(garbage).await;
        peer.finish_sending().await;
        assert!(peer.rest().await.len() < 256);
    }
    assert_eq!(world.get("a.example", "/").await.status(), 200);
    world.agents_become(1).await;
    world.finish().await;
}

#[tokio::test]
async fn an_agent_that_comes_back_resumes_tls_and_proves_itself_all_the_same() {
    let proxy = Proxy::start(Manner::Connects).await;
    let mut world = World::new().run().await;
    for transport in [Transport::Tls, Transport::WebSocket] {
        let label = if transport == Transport::Tls { "tls" } else { "websocket" };
        let plan = AgentPlan::new()
            .offer("a.example", "http_status:204")
            .transport(transport)
            .through(&proxy.url("http", ""));
        let agent = world.join(plan).await;
        world.sum_becomes("adit_sessions", &[("transport", label)], 1).await;
        proxy.cut();
        let series = |tls| [("transport", label), ("tls", tls)];
        world.sum_becomes("adit_session_handshakes_total", &series("resumed"), 1).await;
        world.sum_becomes("adit_session_handshakes_total", &series("full"), 1).await;
        let dials = world.agent_metrics(agent).await;
        assert!(dials.sum("adit_agent_dials_total", &series("resumed")) > 0.5, "{label}");
        until("requests are carried again", || async {
            let reply = world.get("a.example", "/").await;
            if reply.status() == 204 { Ok(()) } else { Err(reply) }
        })
        .await;
        drop(world.take_agent(agent));
        world.agents_become(0).await;
    }
    world.finish().await;
}

#[tokio::test]
async fn a_ticket_of_one_gateway_opens_nothing_at_another_and_a_resumed_caller_needs_the_token() {
    let (one, another) = (World::new().run().await, World::new().run().await);
    let tls = credulous(&[b"adit/1"]);
    for (world, generation, handshake) in [(&one, 1, "full"), (&one, 2, "resumed"), (&another, 3, "full")] {
        let hosts = &["a.example"];
        let puppet = Puppet::greet_again(&tls, world.control(), TOKEN, (1, generation), hosts).await.unwrap();
        assert_eq!(puppet.handshake, handshake, "{generation}");
        // The tickets come with the first bytes of the session.
        within("the first round trip", async {
            while puppet.session.rtt().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    Puppet::greet_again(&tls, one.control(), TOKEN, (2, 1), &["b.example"]).await.unwrap();
    let guess = Puppet::greet_again(&tls, one.control(), OTHER_TOKEN, (3, 1), &["c.example"]).await;
    assert_eq!(refusal(guess).0, Reason::Unauthorized);
}
