//! Agents that come with a certificate: who they are, and when it does not count any more.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_testkit::agent::config::Transport;
use adit_testkit::tcp::Tcp;
use adit_testkit::tunnel::identity::LiveIdentity;
use adit_testkit::{AgentPlan, Rights, Upstream, World, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `host` may offer what `client` may dial.
fn rights() -> Rights {
    Rights::new()
        .identity("host")
        .identity("client")
        .service("db")
        .bind("@db", "@host")
        .dial("@db", "@client")
}

/// Why an agent with this certificate is refused.
async fn refusal(world: &World, identity: &Arc<LiveIdentity>) -> String {
    let agent = world.start_agent(&AgentPlan::new().identity(identity).dials()).await;
    let text = within("the refusal", agent.refused()).await;
    drop(agent);
    text
}

#[tokio::test]
async fn identities_host_and_dial_by_every_transport_and_are_named_in_the_status() {
    for transport in [Transport::Tls, Transport::WebSocket, Transport::Quic] {
        let mut world = World::new().workers(2).run().await;
        let ((host, of_host), (client, of_client)) =
            (world.certify("host", now()), world.certify("Client.", now()));
        world.publish(&rights().holds("host", of_host).holds("client", of_client).model);
        let echo = Tcp::echo().await;
        world.join(AgentPlan::new().identity(&host).transport(transport).offer("@db", &echo)).await;
        let dialling = world.join(AgentPlan::new().identity(&client).transport(transport).dials()).await;
        // Several at once, so that there are further lanes, some by resumed connections.
        let mut streams = Vec::new();
        for _ in 0..8 {
            streams.push(world.agent(dialling).dial(&"db".parse().unwrap()).await.unwrap());
        }
        for stream in &mut streams {
            stream.write_all(b"x").await.unwrap();
            assert_eq!(within("the answer", stream.read_u8()).await.unwrap(), b'x');
        }
        let status = world.ask_control("GET", "/status", &World::bearer()).await.text();
        assert!(status.contains(r#""identity":"host","identityKind":"certificate""#), "{status}");
        drop(streams);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_certificate_counts_as_long_as_it_is_listed_and_its_identity_is_the_same() {
    let world = World::new().run().await;
    let (client, credential) = world.certify("client", now());
    let rights = rights();
    world.publish(&rights.clone().holds("client", credential.clone()).model);
    let agent = world.start_agent(&AgentPlan::new().identity(&client).dials()).await;
    world.knows(&agent).await;
    drop(agent);
    let listed = rights.clone().holds("client", credential);
    for (what, model) in [
        ("created anew, with nothing listed", rights.clone().model),
        ("disabled", listed.clone().disable("client").model),
        ("deleted", Rights::new().service("db").model),
    ] {
        world.publish(&model);
        let text = refusal(&world, &client).await;
        assert!(text.contains("opens nothing"), "{what}: {text}");
    }
    world.publish(&listed.model);
    let agent = world.start_agent(&AgentPlan::new().identity(&client).dials()).await;
    world.knows(&agent).await;
    drop(agent);
    world.finish().await;
}

#[tokio::test]
async fn an_expired_certificate_and_one_of_another_gateway_open_nothing() {
    let world = World::new().run().await;
    let other = World::new().run().await;
    let (expired, of_expired) = world.certify("client", now() - 7200);
    let (foreign, of_foreign) = other.certify_towards(&world, "client", now());
    world.publish(&rights().holds("client", of_expired).holds("client", of_foreign).model);
    for (identity, what) in [(&expired, "expired"), (&foreign, "foreign")] {
        let before = other.log().iter().filter(|line| line.contains("cannot open a session")).count();
        let agent = world.start_agent(&AgentPlan::new().identity(identity).dials()).await;
        until(&format!("the {what} certificate was tried"), || async {
            // The world that came last hears what is logged.
            let lines = other.log();
            let tried = lines.iter().filter(|line| line.contains("cannot open a session")).count();
            if tried > before { Ok(()) } else { Err(lines) }
        })
        .await;
        assert_eq!(world.metrics().await.sum("http_controlplane_connected_gauge", &[]), 0.0, "{what}");
        drop(agent);
    }
    let lines = other.log();
    // The other authority has the same name, and another key.
    for alert in ["CertificateExpired", "DecryptError"] {
        let is_it = |line: &String| line.contains("cannot open a session") && line.contains(alert);
        assert!(lines.iter().any(is_it), "{lines:#?}");
    }
    world.sum_becomes("adit_flows", &[], 0).await;
}

#[tokio::test]
async fn a_revoked_identity_is_out_with_everything_it_carries() {
    let mut world = World::new().workers(2).run().await;
    let ((host, of_host), (client, of_client)) =
        (world.certify("host", now()), world.certify("client", now()));
    let rights = rights().holds("host", of_host).route(&["db.example"], "db").dial("@db", "@public");
    world.publish(&rights.clone().holds("client", of_client).model);
    let upstream = Upstream::named("here").await;
    world.join(AgentPlan::new().identity(&host).offer("@db", format!("tcp://{}", upstream.addr()))).await;
    let dialling = world.join(AgentPlan::new().identity(&client).dials()).await;
    let mut stream = world.agent(dialling).dial(&"db".parse().unwrap()).await.unwrap();
    assert_eq!(world.get("db.example", "/").await.text(), "here");
    // Its certificate is not listed any more.
    world.publish(&rights.model);
    let ended = within("the end of the dial", stream.read_u8()).await;
    assert!(ended.is_err());
    world.agents_become(1).await;
    assert_eq!(world.get("db.example", "/").await.text(), "here", "nobody else is touched");
    world.sum_becomes("adit_revocations_total", &[("kind", "session")], 1).await;
    drop(stream);
    world.finish().await;
}

#[tokio::test]
async fn a_lane_cannot_be_added_by_another_identity() {
    use adit_testkit::proto::handshake::{Hello, Offer, PROOF_LEN, capabilities};
    use adit_testkit::proto::names::InstanceId;
    use adit_testkit::proto::reason::Reason;
    use adit_testkit::tunnel::handshake::{Credential, HandshakeError, greet};
    use adit_testkit::tunnel::tls::session_client_with;
    use adit_testkit::tunnel::transport::{Dialled, Framing, Route, dial};

    let world = World::new().run().await;
    let ((host, of_host), (client, of_client)) =
        (world.certify("host", now()), world.certify("client", now()));
    world.publish(&rights().holds("host", of_host).holds("client", of_client).model);
    let say = async |identity: &Arc<LiveIdentity>, capabilities: u64| {
        let tls = session_client_with(identity, Framing::Bare.alpn()).unwrap();
        let (addr, reached) = (world.control(), false.into());
        let host = addr.ip().to_string();
        let route = Route { host: &host, port: addr.port(), address: None, proxy: None };
        let patience = std::time::Duration::from_secs(60);
        let Dialled { mut io, exporter, .. } =
            dial(route, &tls, Framing::Bare, patience, &reached).await.unwrap();
        let offer = Offer { service: "@db".parse().unwrap(), upstream: "x".to_owned() };
        let hello = Hello {
            versions: (1, 1),
            capabilities,
            instance: InstanceId::from_bytes([7; 16]),
            generation: 1,
            release: "test".to_owned(),
            hostname: "test".to_owned(),
            offers: if capabilities == 0 { vec![offer] } else { Vec::new() },
            proof: [0; PROOF_LEN],
        };
        (within("the handshake", greet(&mut io, hello, &Credential::Certificate, &exporter)).await, io)
    };
    let (first, _session) = say(&host, 0).await;
    first.unwrap();
    let (stolen, _) = say(&client, capabilities::LANES).await;
    assert!(matches!(stolen, Err(HandshakeError::Refused(refused)) if refused.reason == Reason::Replaced));
    let (own, _lane) = say(&host, capabilities::LANES).await;
    own.unwrap();
    drop(_session);
    drop(_lane);
    world.agents_become(0).await;
    world.finish().await;
}

#[expect(clippy::too_many_lines, reason = "one conversation, held twice")]
#[tokio::test]
async fn a_revoked_certificate_opens_neither_a_session_nor_a_lane_where_tls_is_resumed_by_tcp_or_quic() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use adit_testkit::proto::handshake::{Hello, Offer, PROOF_LEN, capabilities};
    use adit_testkit::proto::names::InstanceId;
    use adit_testkit::proto::reason::Reason;
    use adit_testkit::tunnel::handshake::{Credential, HandshakeError, greet};
    use adit_testkit::tunnel::scope::Scope;
    use adit_testkit::tunnel::session::{Session, Side};
    use adit_testkit::tunnel::tls::session_client_with;
    use adit_testkit::tunnel::transport::{Dialled, Framing, Route, dial, dial_quic};
    use tokio_rustls::rustls::client::ResolvesClientCert;
    use tokio_rustls::rustls::sign::CertifiedKey;
    use tokio_rustls::rustls::{ClientConfig, SignatureScheme};

    /// Counts how often a certificate is asked for: never where TLS is resumed.
    #[derive(Debug)]
    struct Shows(Arc<LiveIdentity>, Arc<AtomicUsize>);

    impl ResolvesClientCert for Shows {
        fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            ResolvesClientCert::resolve(&*self.0, hints, schemes)
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    for is_quic in [false, true] {
        let world = World::new().run().await;
        let ((kept, of_kept), (lost, of_lost)) = (world.certify("host", now()), world.certify("host", now()));
        let rights = rights().holds("host", of_kept);
        world.publish(&rights.clone().holds("host", of_lost).model);
        let shown = Arc::new(AtomicUsize::new(0));
        let clients = [&kept, &lost].map(|identity| {
            let mut config =
                ClientConfig::clone(&session_client_with(identity, Framing::Bare.alpn()).unwrap());
            config.client_auth_cert_resolver = Arc::new(Shows(Arc::clone(identity), Arc::clone(&shown)));
            Arc::new(config)
        });
        let scope = Scope::new();
        let mut generation = 0;
        // Whether TLS was resumed, and the session or why there is none.
        let mut say = async |client: usize, instance: u8, capabilities: u64| {
            generation += 1;
            let (addr, patience) = (world.control(), std::time::Duration::from_secs(60));
            let host = addr.ip().to_string();
            let route = Route { host: &host, port: addr.port(), address: None, proxy: None };
            let reached = false.into();
            let dialled = if is_quic {
                dial_quic(route, &clients[client], patience).await
            } else {
                dial(route, &clients[client], Framing::Bare, patience, &reached).await
            };
            let Dialled { mut io, exporter, .. } = dialled.unwrap();
            let is_resumed = shown.swap(0, Ordering::Relaxed) == 0;
            let offer = Offer { service: "@db".parse().unwrap(), upstream: "x".to_owned() };
            let hello = Hello {
                versions: (1, 1),
                capabilities: capabilities | capabilities::CERTIFICATE,
                instance: InstanceId::from_bytes([instance; 16]),
                generation: if capabilities == 0 { generation } else { 1 },
                release: "test".to_owned(),
                hostname: "test".to_owned(),
                offers: if capabilities == 0 { vec![offer] } else { Vec::new() },
                proof: [0; PROOF_LEN],
            };
            let greeted =
                within("the handshake", greet(&mut io, hello, &Credential::Certificate, &exporter)).await;
            let refused = match greeted {
                Ok(_welcome) => None,
                Err(HandshakeError::Refused(refused)) => Some(refused.reason),
                Err(other) => panic!("{other}"),
            };
            let session = Session::start(io, Side::Agent, &scope);
            if refused.is_none() && capabilities == 0 {
                // The tickets come with the first bytes of the session.
                within("the first round trip", async {
                    while session.rtt().is_none() {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
            }
            (is_resumed, refused, session)
        };
        let (is_resumed, refused, _standing) = say(0, 1, 0).await;
        assert_eq!((is_resumed, refused), (false, None));
        let (is_resumed, refused, first) = say(1, 2, 0).await;
        assert_eq!((is_resumed, refused), (false, None));
        let (is_resumed, refused, second) = say(1, 3, 0).await;
        assert_eq!((is_resumed, refused), (true, None), "quic: {is_quic}");
        let (is_resumed, refused, _lane) = say(1, 1, capabilities::LANES).await;
        assert_eq!((is_resumed, refused), (true, None), "a lane of the same identity");

        world.publish(&rights.model);
        for session in [first, second] {
            assert_eq!(within("the end of the session", session.closed()).await, Reason::Revoked);
        }
        for (instance, capabilities) in [(4, 0), (1, capabilities::LANES)] {
            let (is_resumed, refused, _ended) = say(1, instance, capabilities).await;
            assert_eq!((is_resumed, refused), (true, Some(Reason::Unauthorized)), "quic: {is_quic}");
        }
        let (_, refused, _another) = say(0, 5, 0).await;
        assert_eq!(refused, None, "the other certificate of the same identity");
        scope.cancel();
    }
}
