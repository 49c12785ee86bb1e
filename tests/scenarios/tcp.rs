//! Connections to a port reach whoever offers it, byte for byte and end for end.

use std::io::ErrorKind;
use std::time::Duration;

use adit_testkit::ports::free;
use adit_testkit::proto::reason::Reason;
use adit_testkit::tcp::Tcp;
use adit_testkit::tunnel::handshake::HandshakeError;
use adit_testkit::world::TOKEN;
use adit_testkit::{AgentPlan, Puppet, Signal, World, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn connect(port: u16) -> TcpStream {
    within("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap()
}

/// Everything until the end.
async fn rest(tcp: &mut TcpStream) -> String {
    let mut read = String::new();
    within("the end", tcp.read_to_string(&mut read)).await.unwrap();
    read
}

/// A world in which one agent offers a port, which is returned.
async fn offering(upstream: &Tcp) -> (World, u16) {
    let port = free();
    (World::new().offer(&format!("tcp:{port}"), upstream).run().await, port)
}

#[tokio::test]
async fn a_connection_reaches_the_upstream_and_both_ends_end() {
    let upstream = Tcp::echo().await;
    let (world, port) = offering(&upstream).await;
    let mut client = connect(port).await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "hello");
    world.finish().await;
}

#[tokio::test]
async fn an_upstream_may_speak_first() {
    let upstream = Tcp::named("220 ready\r\n").await;
    let (world, port) = offering(&upstream).await;
    assert_eq!(rest(&mut connect(port).await).await, "220 ready\r\n");
    world.finish().await;
}

#[tokio::test]
async fn agents_on_one_port_take_turns_and_the_port_is_free_when_the_last_one_has_gone() {
    let (one, two) = (Tcp::named("one").await, Tcp::named("two").await);
    let port = free();
    let name = format!("tcp:{port}");
    let mut world = World::new().offer(&name, &one).run().await;
    world.join(AgentPlan::new().offer(&name, &two)).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(rest(&mut connect(port).await).await);
    }
    answers.sort();
    assert_eq!(answers, ["one", "one", "two", "two"]);

    drop(world.take_agent(0));
    world.agents_become(1).await;
    assert_eq!(rest(&mut connect(port).await).await, "two");
    drop(world.take_agent(1));
    world.agents_become(0).await;
    until("the port is free", || async { TcpListener::bind(("127.0.0.1", port)).await.map(drop) }).await;
    let again = world.join(AgentPlan::new().offer(&name, &one)).await;
    assert_eq!(rest(&mut connect(port).await).await, "one");
    drop(world.take_agent(again));
    world.finish().await;
}

/// A connection that was cut rather than ended.
async fn is_reset(tcp: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    let end = within("the end", tcp.read_to_end(&mut read)).await;
    end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// Refuses a hello with these offers, and says why.
async fn refused(world: &World, offers: &[&str]) -> (Reason, String) {
    match Puppet::greet(world.control(), TOKEN, (9, 1), offers).await {
        Err(HandshakeError::Refused(refused)) => (refused.reason, refused.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn either_side_may_end_its_half_first_and_the_other_half_goes_on() {
    // Reads to the end, then answers with how much that was: only an end that is passed on lets it answer.
    let counts = Tcp::scripted(|mut tcp| async move {
        let mut all = Vec::new();
        tcp.read_to_end(&mut all).await.unwrap();
        tcp.write_all(all.len().to_string().as_bytes()).await.unwrap();
    })
    .await;
    let (world, port) = offering(&counts).await;
    let mut client = connect(port).await;
    client.write_all(&[7; 300_000]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "300000");
    world.finish().await;

    let all = Signal::default();
    let told = all.clone();
    let ends_first = Tcp::scripted(move |mut tcp| {
        let told = told.clone();
        async move {
            tcp.write_all(b"bye").await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut rest = Vec::new();
            tcp.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"still here");
            told.give();
        }
    })
    .await;
    let (world, port) = offering(&ends_first).await;
    let mut client = connect(port).await;
    assert_eq!(rest(&mut client).await, "bye");
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    all.given(1).await;
    world.finish().await;
}

#[tokio::test]
async fn a_reset_by_either_end_is_a_reset_at_the_other() {
    let reset = Signal::default();
    let seen = reset.clone();
    let upstream = Tcp::scripted(move |mut tcp| {
        let seen = seen.clone();
        async move {
            let mut first = [0];
            tcp.read_exact(&mut first).await.unwrap();
            if first[0] == b'r' {
                tcp.set_zero_linger().unwrap();
                return;
            }
            tcp.write_all(b"x").await.unwrap();
            let end = tcp.read_exact(&mut first).await;
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
            seen.give();
        }
    })
    .await;
    let (world, port) = offering(&upstream).await;
    let mut client = connect(port).await;
    client.write_all(b"r").await.unwrap();
    assert!(is_reset(&mut client).await, "the upstream's reset");

    let mut client = connect(port).await;
    client.write_all(b"c").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    reset.given(1).await;
    let log = world.request_log(2).await;
    let reasons: Vec<_> = log.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["upstream_closed", "client_gone"]);
    world.finish().await;
}

#[tokio::test]
async fn a_killed_agent_ends_its_own_connections_and_no_other_and_no_new_one_fails() {
    let echo = Tcp::echo().await;
    let port = free();
    let name = format!("tcp:{port}");
    let mut world = World::new().run().await;
    for _ in 0..2 {
        world.join(AgentPlan::new().offer(&name, &echo)).await;
    }
    // Taken in turns, so that every other one belongs to the agent that dies.
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut client = connect(port).await;
        client.write_all(b"a").await.unwrap();
        within("the echo", client.read_exact(&mut [0])).await.unwrap();
        open.push(client);
    }
    drop(world.take_agent(0));
    for _ in 0..20 {
        let mut client = connect(port).await;
        client.write_all(b"new").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "new");
    }
    let mut cut = 0;
    for mut client in open {
        let mut read = String::new();
        let exchange = async {
            client.write_all(b"b").await?;
            client.shutdown().await?;
            client.read_to_string(&mut read).await
        };
        match within("the end", exchange).await {
            Ok(_) => assert_eq!(read, "b"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                cut += 1;
            }
        }
    }
    assert_eq!(cut, 3);
    world.finish().await;
}

#[tokio::test]
async fn first_bytes_reach_the_next_endpoint_when_the_first_cannot_connect() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let echo = Tcp::echo().await;
    let port = free();
    let name = format!("tcp:{port}");
    let mut world = World::new().run().await;
    world.join(AgentPlan::new().offer(&name, format!("tcp://{closed}"))).await;
    world.join(AgentPlan::new().offer(&name, &echo)).await;
    for _ in 0..4 {
        let mut client = connect(port).await;
        client.write_all(b"first bytes").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "first bytes");
    }
    drop(world.take_agent(1));
    world.agents_become(1).await;
    assert!(is_reset(&mut connect(port).await).await);
    world.sum_becomes("adit_refusals_total", &[("reason", "upstream_refused")], 1).await;
    world.finish().await;
}

#[tokio::test]
async fn sixty_four_mebibytes_arrive_as_they_were_sent_and_are_counted_while_they_move() {
    const PIECE: usize = 1 << 20;
    let go = Signal::default();
    let gate = go.clone();
    let upstream = Tcp::scripted(move |mut tcp| {
        let gate = gate.clone();
        async move {
            for number in 0..64_u8 {
                if number == 32 {
                    gate.given(1).await;
                }
                tcp.write_all(&vec![number; PIECE]).await.unwrap();
            }
        }
    })
    .await;
    let (world, port) = offering(&upstream).await;
    let mut client = connect(port).await;
    let mut piece = vec![0; PIECE];
    for number in 0..64 {
        if number == 32 {
            let name = format!("tcp:{port}");
            let labels = [("service", name.as_str()), ("direction", "out")];
            world.sum_becomes("adit_service_bytes_total", &labels, 32 << 20).await;
            let samples = world.metrics().await;
            let port = port.to_string();
            let by_port = |name: &str| samples.sum(name, &[("port", port.as_str())]);
            assert!((by_port("tcp_dataplane_connections_gauge") - 1.0).abs() < 0.1);
            assert!((by_port("tcp_dataplane_connections_total") - 1.0).abs() < 0.1);
            go.give();
        }
        within("a piece", client.read_exact(&mut piece)).await.unwrap();
        assert!(piece.iter().all(|&byte| byte == number), "piece {number}");
    }
    assert_eq!(rest(&mut client).await, "");
    drop(client);
    let line = world.request_log(1).await.remove(0);
    assert_eq!((&line["bytes_out"], &line["protocol"]), (&(64 << 20).into(), &"TCP".into()));
    world.finish().await;
}

#[tokio::test]
async fn a_port_that_cannot_be_had_refuses_the_agent_and_says_why() {
    let world =
        World::new().gateway(|config| config.tcp.as_mut().unwrap().ports = vec![20_000..=32_767]).run().await;
    let taken = std::net::TcpListener::bind(("127.0.0.1", free())).unwrap();
    let in_use = taken.local_addr().unwrap().port();
    let control = world.control().port();
    for (port, told) in [
        (in_use, "another process"),
        (control, "one of the gateway's own"),
        (80, "not among those that this gateway allows"),
    ] {
        let (reason, message) = refused(&world, &[&format!("tcp:{port}")]).await;
        assert_eq!(reason, Reason::PortUnavailable);
        assert!(message.contains(told), "{message}");
    }
    // Whoever is refused holds nothing.
    let fine = free();
    let (reason, _) = refused(&world, &[&format!("tcp:{fine}"), &format!("tcp:{in_use}")]).await;
    assert_eq!(reason, Reason::PortUnavailable);
    drop(std::net::TcpListener::bind(("127.0.0.1", fine)).unwrap());
    world.finish().await;

    let world = World::new().gateway(|config| config.tcp = None).run().await;
    let (reason, message) = refused(&world, &["tcp:20000"]).await;
    assert_eq!(reason, Reason::PortUnavailable);
    assert!(message.contains("takes no TCP services"), "{message}");
    world.finish().await;
}

#[tokio::test]
async fn a_returning_agent_keeps_its_port_open_all_the_while() {
    let world = World::new().run().await;
    let port = free();
    let name = format!("tcp:{port}");
    let old = Puppet::greet(world.control(), TOKEN, (1, 1), &[&name]).await.unwrap();
    let new = Puppet::greet(world.control(), TOKEN, (1, 2), &[&name]).await.unwrap();
    old.session.closed().await;
    let mut client = connect(port).await;
    client.write_all(b"hello").await.unwrap();
    let (header, mut stream) = within("the stream", new.session.accept()).await.unwrap();
    assert_eq!(header.client_addr, Some(client.local_addr().unwrap()));
    stream.confirm();
    assert_eq!(within("the bytes", stream.read_chunk()).await.unwrap().unwrap(), "hello");
    drop((stream, client));
    drop(new);
    world.agents_become(0).await;
    assert_eq!(
        TcpStream::connect(("127.0.0.1", port)).await.unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    world.finish().await;
}

#[tokio::test]
async fn addresses_that_are_not_allowed_are_cut_before_anything_reaches_the_agent() {
    let world =
        World::new().gateway(|config| config.allow = vec!["192.0.2.0/24".parse().unwrap()]).run().await;
    let port = free();
    let agent = Puppet::greet(world.control(), TOKEN, (1, 1), &[&format!("tcp:{port}")]).await.unwrap();
    assert!(is_reset(&mut connect(port).await).await);
    world.sum_becomes("adit_refusals_total", &[("reason", "address_denied")], 1).await;
    assert_eq!(agent.session.streams(), 0);
    drop(agent);
    world.finish().await;
}

#[tokio::test]
async fn drains_give_open_connections_their_time_and_cut_the_rest_with_a_reset() {
    let echo = Tcp::echo().await;
    for is_gateway in [true, false] {
        let port = free();
        let name = format!("tcp:{port}");
        let mut world =
            World::new().gateway(|config| config.drain_timeout = Duration::from_secs(5)).run().await;
        let plan = AgentPlan::new().offer(&name, &echo).drain_timeout(Duration::from_secs(5));
        world.join(plan).await;
        let (mut polite, mut endless) = (connect(port).await, connect(port).await);
        for client in [&mut polite, &mut endless] {
            client.write_all(b"a").await.unwrap();
            within("the echo", client.read_exact(&mut [0])).await.unwrap();
        }
        let drain = async {
            if is_gateway { world.take_gateway().drain().await } else { world.take_agent(0).drain().await }
        };
        let meanwhile = async {
            until("no new connection is taken", || async {
                match TcpStream::connect(("127.0.0.1", port)).await {
                    Err(_refused) => Ok(()),
                    Ok(tcp) => Err(tcp),
                }
            })
            .await;
            polite.write_all(b"b").await.unwrap();
            polite.shutdown().await.unwrap();
            assert_eq!(rest(&mut polite).await, "b");
        };
        let (cut, ()) = tokio::join!(within("the drain", drain), meanwhile);
        assert_eq!(cut, 1, "gateway: {is_gateway}");
        assert!(is_reset(&mut endless).await);
    }
}

#[tokio::test]
async fn a_client_that_resets_while_its_upstream_is_connected_lets_go_at_once_and_one_that_waits_is_served() {
    let port = free();
    // Nothing but the reset ends it while the test waits.
    let world = World::new().limits(|limits| limits.connect_timeout = Duration::from_secs(600)).run().await;
    let agent = Puppet::greet(world.control(), TOKEN, (1, 1), &[&format!("tcp:{port}")]).await.unwrap();
    let (mut waits, mut leaves) = (connect(port).await, connect(port).await);
    // All it has to say, and its end: it waits for an answer.
    waits.write_all(b"question").await.unwrap();
    waits.shutdown().await.unwrap();
    leaves.write_all(b"hello").await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let (_, mut stream) = within("a stream", agent.session.accept()).await.unwrap();
        let mut first = [0; 1];
        within("the early bytes", stream.read_exact(&mut first)).await.unwrap();
        streams.push((first[0], stream));
    }
    world.sum_becomes("adit_flows", &[], 2).await;
    leaves.set_zero_linger().unwrap();
    drop(leaves);
    world.sum_becomes("adit_flows", &[], 1).await;
    let line = world.request_log(1).await.remove(0);
    assert_eq!(line["reason"], "client_gone");
    assert!(line["agent"].is_string(), "who was asked is known: {line}");
    streams.sort_by_key(|(first, _)| *first);
    let (left, mut stays) = {
        let mut streams = streams.into_iter().map(|(_, stream)| stream);
        (streams.next().unwrap(), streams.next().unwrap())
    };
    within("the agent hears of it", left.gone()).await;
    stays.confirm();
    let mut rest_of_it = String::new();
    within("the question", stays.read_to_string(&mut rest_of_it)).await.unwrap();
    assert_eq!(rest_of_it, "uestion");
    stays.write_all(b"answer").await.unwrap();
    stays.shutdown().await.unwrap();
    assert_eq!(rest(&mut waits).await, "answer");
    drop((agent, left, stays));
    world.finish().await;
}

#[tokio::test]
async fn a_client_that_resets_while_its_agent_is_awaited_lets_go_at_once() {
    let port = free();
    let name = format!("tcp:{port}");
    let world = World::new().limits(|limits| limits.agent_wait = Duration::from_secs(600)).run().await;
    let agent = Puppet::greet(world.control(), TOKEN, (1, 1), &[&name]).await.unwrap();
    let mut client = connect(port).await;
    client.write_all(b"hello").await.unwrap();
    let (_, stream) = within("a stream", agent.session.accept()).await.unwrap();
    // It takes no more streams, and its port stays while its session does.
    stream.reset(Reason::AgentDraining);
    agent.session.announce(Reason::AgentDraining);
    world.sum_becomes("adit_flows", &[], 1).await;
    client.set_zero_linger().unwrap();
    drop(client);
    world.sum_becomes("adit_flows", &[], 0).await;
    drop((agent, stream));
    world.finish().await;
}

#[tokio::test]
async fn one_source_has_so_many_connections_and_a_balancer_in_front_speaks_for_its_clients() {
    let echo = Tcp::echo().await;
    let port = free();
    let mut world = World::new()
        .limits(|limits| limits.max_connections_per_source = Some(2))
        .offer(&format!("tcp:{port}"), &echo)
        .offer("a.example", "http_status:204")
        .run()
        .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = connect(port).await;
        client.write_all(b"a").await.unwrap();
        within("the echo", client.read_exact(&mut [0])).await.unwrap();
        held.push(client);
    }
    assert!(is_reset(&mut connect(port).await).await);
    // A listener for requests counts the same address.
    let mut wire = TcpStream::connect(world.http()).await.unwrap();
    assert!(is_reset(&mut wire).await);
    world.sum_becomes("adit_refusals_total", &[("reason", "overloaded")], 2).await;
    drop(held);
    until("its places are free again", || async {
        let mut client = connect(port).await;
        client.write_all(b"a").await.unwrap();
        client.read_exact(&mut [0]).await
    })
    .await;
    // Who is trusted to speak for others is not counted; those it speaks for are.
    world
        .reload(|config| {
            config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            config.tcp.as_mut().unwrap().lb_proxy_protocol = true;
        })
        .unwrap();
    let by_balancer = async |from: &str| {
        let mut client = connect(port).await;
        client.write_all(format!("PROXY TCP4 {from} 192.0.2.1 1000 80\r\na").as_bytes()).await.unwrap();
        let echoed = within("the echo", client.read_exact(&mut [0])).await.is_ok();
        (client, echoed)
    };
    let mut held = Vec::new();
    for (from, is_taken) in
        [("192.0.2.7", true), ("192.0.2.7", true), ("192.0.2.7", false), ("192.0.2.8", true)]
    {
        let (client, echoed) = by_balancer(from).await;
        assert_eq!(echoed, is_taken, "{from}");
        held.push(client);
    }
    drop(held);
    world.finish().await;
}

#[tokio::test]
async fn ports_where_nobody_is_take_nothing_of_the_connections_that_there_may_be() {
    let echo = Tcp::echo().await;
    let ports = [free(), free(), free()];
    let mut plan =
        World::new().limits(|limits| limits.max_connections = 1).offer("a.example", "http_status:204");
    for port in ports {
        plan = plan.offer(&format!("tcp:{port}"), &echo);
    }
    let world = plan.run().await;
    for port in ports {
        let mut client = connect(port).await;
        client.write_all(b"a").await.unwrap();
        within("the echo", client.read_exact(&mut [0])).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "");
    }
    assert_eq!(world.get("a.example", "/").await.status(), 204);
    world.finish().await;
}
