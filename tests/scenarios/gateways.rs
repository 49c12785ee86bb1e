//! Several gateways, and gateways that leave: an agent has a session wherever it can, and lets none go that carries
//! something.

use std::sync::Arc;

use adit_testkit::certificate::self_signed;
use adit_testkit::gateway::Gateway;
use adit_testkit::proto::handshake::{ALPN, Hello};
use adit_testkit::proto::header::StreamHeader;
use adit_testkit::proto::names::{HostPattern, ServiceName};
use adit_testkit::proto::reason::Reason;
use adit_testkit::tunnel::handshake::{Agreement, Credential, read_hello, welcome};
use adit_testkit::tunnel::proof::TokenKey;
use adit_testkit::tunnel::scope::Scope;
use adit_testkit::tunnel::session::{Session, Side};
use adit_testkit::tunnel::tls::exporter;
use adit_testkit::world::TOKEN;
use adit_testkit::{AgentPlan, Upstream, Wire, World, until, within};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::sessions::relay;

/// What an agent's own port says about its readiness.
async fn readiness(world: &World) -> (u16, String) {
    let mut wire = Wire::tcp(world.agent(0).listen_addr().unwrap()).await;
    let reply = wire.get("localhost", "/ready").await;
    (reply.status(), reply.text())
}

async fn becomes_ready(world: &World, status: u16, connected: usize) {
    until(&format!("{connected} of the gateways are connected"), || async {
        let (now, text) = readiness(world).await;
        let lines = text.lines().filter(|line| line.ends_with(": connected")).count();
        if (now, lines) == (status, connected) { Ok(()) } else { Err((now, text)) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_keeps_a_session_to_each_gateway_and_is_ready_while_one_stands() {
    let upstream = Upstream::named("ok").await;
    let mut one = World::new().run().await;
    let mut two = World::new().run().await;
    let plan = AgentPlan::new().offer("a.example", &upstream).and_gateway(two.control());
    one.join(plan).await;
    two.agents_become(1).await;
    assert_eq!(one.get("a.example", "/").await.status(), 200);
    assert_eq!(two.get("a.example", "/").await.status(), 200);
    becomes_ready(&one, 200, 2).await;

    assert_eq!(within("the drain", two.take_gateway().drain()).await, 0);
    becomes_ready(&one, 200, 1).await;
    assert_eq!(one.get("a.example", "/").await.status(), 200);
    let gateway = format!("wss://{}", two.control());
    let samples = one.agent_metrics(0).await;
    assert!(samples.sum("adit_agent_sessions", &[("gateway", &gateway)]) < 0.5);
    assert!(samples.sum("adit_agent_session_up", &[]) > 0.5);
    let drained = [("gateway", gateway.as_str()), ("reason", "draining")];
    assert!(samples.sum("adit_agent_sessions_ended_total", &drained) > 0.5);

    let address = one.control();
    drop(one.take_gateway());
    becomes_ready(&one, 503, 0).await;
    assert!(readiness(&one).await.1.contains(&format!("wss://{address}: connecting")));
}

#[tokio::test]
async fn two_names_of_one_gateway_are_two_sessions_that_leave_each_other_alone() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().run().await;
    let to = (world.control(), Scope::new());
    let second_name = forwarded(&to.1, to.0).await;
    let agent =
        world.start_agent(&AgentPlan::new().offer("a.example", &upstream).and_gateway(second_name)).await;
    world.agents_become(2).await;
    for _ in 0..4 {
        assert_eq!(world.get("a.example", "/").await.status(), 200);
    }
    world.sum_becomes("adit_session_takeovers_total", &[], 0).await;
    within("the drain", agent.drain()).await;
}

#[tokio::test]
async fn a_name_with_several_addresses_is_several_sessions() {
    // In many containers the name has an address of a family that is not there.
    let is_there = |ip: &std::net::IpAddr| std::net::TcpListener::bind((*ip, 0)).is_ok();
    let addresses: std::collections::BTreeSet<_> = tokio::net::lookup_host("localhost:1")
        .await
        .unwrap()
        .map(|address| address.ip())
        .filter(is_there)
        .collect();
    let any = if is_there(&std::net::Ipv6Addr::UNSPECIFIED.into()) { "[::]:0" } else { "0.0.0.0:0" };
    let world = World::new().gateway(|config| config.control.listen = any.parse().unwrap()).run().await;
    let agent = world
        .start_agent(&AgentPlan::new().offer("a.example", "http_status:204").at_each_address_of("localhost"))
        .await;
    world.agents_become(addresses.len()).await;
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    within("the drain", agent.drain()).await;
    world.agents_become(0).await;
}

/// Another address of the same listener.
async fn forwarded(scope: &Scope, to: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let spawner = scope.clone();
    scope.spawn("forwarder", async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = tokio::net::TcpStream::connect(to).await.unwrap();
            let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
                (near.into_split(), far.into_split());
            spawner.spawn("forwarded", async move {
                tokio::join!(relay(&mut from_near, &mut to_far), relay(&mut from_far, &mut to_near));
            });
        }
    });
    addr
}

/// A gateway of the test's own making.
struct Stand {
    listener: TcpListener,
    tls: TlsAcceptor,
    scope: Scope,
}

impl Stand {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: TlsAcceptor::from(self_signed(&[ALPN])), scope: Scope::new() }
    }

    async fn session(&self) -> (Hello, Session) {
        within("an agent", async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let mut io = self.tls.accept(tcp).await.unwrap();
            let exporter = exporter(io.get_ref().1).unwrap();
            let hello = read_hello(&mut io).await.unwrap();
            let credential = Credential::Token(TokenKey::new(TOKEN.as_bytes()));
            let agreement = Agreement { version: 1, release: "test", ..Agreement::default() };
            let welcome = welcome(agreement, &credential, &exporter);
            let (session, beginning) = Session::prepare(Side::Gateway, &welcome);
            beginning.start(io, &self.scope);
            (hello, session)
        })
        .await
    }
}

/// One request through a session, to its end.
async fn ask(session: &Session) -> String {
    let header = StreamHeader {
        service: ServiceName::Host(HostPattern::Any),
        client_addr: None,
        connect_timeout: std::time::Duration::from_secs(5),
    };
    let mut stream = session.open(&header).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    within("the answer", tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn an_agent_opens_another_session_while_its_gateway_leaves_and_finishes_the_old_one() {
    let stand = Arc::new(Stand::new().await);
    let world = World::new().run().await;
    let plan = AgentPlan::new().offer("*", "http_status:204").by_way_of(stand.listener.local_addr().unwrap());
    let agent = world.start_agent(&plan).await;
    let (first, old) = stand.session().await;
    assert!(ask(&old).await.starts_with("HTTP/1.1 204"));
    old.announce(Reason::Draining);
    let (second, new) = stand.session().await;
    assert_eq!((second.instance, second.generation), (first.instance, first.generation + 1));
    assert!(ask(&old).await.starts_with("HTTP/1.1 204"), "the old one is served until it ends");
    assert!(ask(&new).await.starts_with("HTTP/1.1 204"));
    assert_eq!(old.end(), None);
    old.close(Reason::Draining);
    assert!(ask(&new).await.starts_with("HTTP/1.1 204"));
    let (cut, reason) = tokio::join!(within("the drain", agent.drain()), new.closed());
    assert_eq!((cut, reason), (0, Reason::AgentDraining));
}

#[tokio::test]
async fn a_draining_gateway_takes_no_agent_in_and_its_agents_are_back_as_soon_as_another_answers() {
    let upstream = Upstream::named("ok").await;
    let mut world = World::new().offer("a.example", &upstream).run().await;
    let go = adit_testkit::Signal::default();
    let slow = {
        let go = go.clone();
        Upstream::scripted(move |mut wire| {
            let go = go.clone();
            async move {
                wire.head().await;
                go.given(1).await;
                wire.send("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await;
            }
        })
        .await
    };
    world.join(AgentPlan::new().offer("slow.example", &slow)).await;
    let mut open = world.wire().await;
    open.send("GET / HTTP/1.1\r\nhost: slow.example\r\n\r\n").await;
    until("the request has arrived", || async {
        if slow.connections() == 1 { Ok(()) } else { Err(slow.connections()) }
    })
    .await;
    let gateway: Gateway = world.take_gateway();
    let drain = gateway.drain();
    let meanwhile = async {
        until("an agent is told to look elsewhere", || async {
            let samples = world.agent_metrics(0).await;
            let told = samples.sum("adit_agent_connects_total", &[("result", "draining")]);
            if told > 0.5 { Ok(()) } else { Err(samples.series_of("adit_agent_connects_total")) }
        })
        .await;
        go.give();
        assert_eq!(open.reply().await.text(), "ok", "what had begun is finished");
    };
    let (cut, ()) = tokio::join!(within("the drain", drain), meanwhile);
    assert_eq!(cut, 0);
    world.restart_gateway().await;
    world.agents_become(2).await;
    assert_eq!(world.get("a.example", "/").await.status(), 200);
}
