//! Who connected is told to upstreams, and heard from balancers, by a PROXY header; and from nobody else.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use adit_testkit::gateway::config::TcpServices;
use adit_testkit::ports::free;
use adit_testkit::proto::proxy_header::{Ends, Version};
use adit_testkit::tcp::Tcp;
use adit_testkit::world::Plan;
use adit_testkit::{Upstream, Wire, World, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CLIENT: &str = "203.0.113.9:4444";
const PUBLIC: &str = "198.51.100.1:443";

/// What a balancer in front says about a client.
fn told(version: Version) -> Vec<u8> {
    let mut header = Vec::new();
    Ends { source: CLIENT.parse().unwrap(), destination: PUBLIC.parse().unwrap() }
        .encode(version, &mut header);
    header
}

/// An echo behind a port, with these settings of the gateway's TCP services.
async fn echo(plan: Plan, change: impl FnOnce(&mut TcpServices)) -> (World, u16, Tcp) {
    let (echo, port) = (Tcp::echo().await, free());
    let plan = plan.gateway(|config| change(config.tcp.as_mut().unwrap()));
    (plan.offer(&format!("tcp:{port}"), &echo).run().await, port, echo)
}

/// A gateway that believes this machine.
fn believing() -> Plan {
    World::new().gateway(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
}

async fn connect(port: u16) -> TcpStream {
    within("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap()
}

/// Sends this and the end, and returns what comes back.
async fn exchange(port: u16, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut client = connect(port).await;
    client.write_all(sent).await?;
    client.shutdown().await?;
    let mut back = Vec::new();
    within("the end", client.read_to_end(&mut back)).await.map(|_| back)
}

#[tokio::test]
async fn an_upstream_is_told_who_connected_before_the_clients_first_byte() {
    for version in [Version::V1, Version::V2] {
        let (world, port, _echo) = echo(World::new(), |tcp| tcp.proxy_protocol = Some(version)).await;
        let mut client = connect(port).await;
        let mut expected = Vec::new();
        let destination: SocketAddr = ([127, 0, 0, 1], port).into();
        Ends { source: client.local_addr().unwrap(), destination }.encode(version, &mut expected);
        // Even a client that says nothing.
        let mut back = vec![0; expected.len()];
        within("the header", client.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, expected);
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        back.clear();
        within("the end", client.read_to_end(&mut back)).await.unwrap();
        assert_eq!(back, b"hello");
        let line = world.request_log(1).await.remove(0);
        assert_eq!(line["bytes_in"], 5, "the header is not the client's");
        world.finish().await;
    }
}

#[tokio::test]
async fn a_trusted_balancer_is_believed_and_its_header_goes_no_further() {
    let settings = |tcp: &mut TcpServices| tcp.lb_proxy_protocol = true;
    let (world, port, _echo) = echo(believing(), settings).await;
    for (number, version) in [(1, Version::V1), (2, Version::V2)] {
        assert_eq!(exchange(port, &[&told(version)[..], b"hello"].concat()).await.unwrap(), b"hello");
        let line = world.request_log(number).await.remove(number - 1);
        assert_eq!((&line["client"], &line["bytes_in"]), (&"203.0.113.9".into(), &5.into()));
    }
    // Byte by byte, and in front of nothing: the balancer's own check.
    let mut client = connect(port).await;
    client.set_nodelay(true).unwrap();
    for byte in [&told(Version::V1)[..], b"x"].concat() {
        client.write_all(&[byte]).await.unwrap();
    }
    within("the echo", client.read_exact(&mut [0])).await.unwrap();
    drop(client);
    assert_eq!(exchange(port, b"PROXY UNKNOWN\r\n").await.unwrap(), b"");
    world.finish().await;
}

#[tokio::test]
async fn what_a_balancer_says_is_said_again_and_decided_by() {
    let both = |tcp: &mut TcpServices| {
        (tcp.lb_proxy_protocol, tcp.proxy_protocol) = (true, Some(Version::V1));
    };
    let (world, port, _echo) = echo(believing(), both).await;
    assert_eq!(exchange(port, &told(Version::V2)).await.unwrap(), told(Version::V1));
    world.finish().await;

    let plan = believing().gateway(|config| config.allow = vec!["203.0.113.0/24".parse().unwrap()]);
    let (world, port, _echo) = echo(plan, both).await;
    assert!(exchange(port, &told(Version::V1)).await.is_ok());
    let other = b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\nhello";
    assert_eq!(exchange(port, other).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    world.sum_becomes("adit_refusals_total", &[("reason", "address_denied")], 1).await;
    world.finish().await;
}

#[tokio::test]
async fn forged_missing_cut_and_slow_headers_end_the_connection() {
    let settings = |tcp: &mut TcpServices| tcp.lb_proxy_protocol = true;
    let (world, port, _echo) = echo(World::new(), settings).await;
    let forged = exchange(port, &told(Version::V1)).await;
    assert_eq!(forged.unwrap_err().kind(), ErrorKind::ConnectionReset);
    world.sum_becomes("adit_refusals_total", &[("reason", "address_denied")], 1).await;
    world.finish().await;

    let plan = believing().limits(|limits| limits.header_timeout = Duration::from_millis(200));
    let (world, port, _echo) = echo(plan, settings).await;
    for (missing, count) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], 1),
        (&[b'P'; 4000], 2),
        (b"PROXY TCP4 1.2.3.4 x y z\r\n", 3),
    ] {
        assert!(exchange(port, missing).await.is_err());
        world.sum_becomes("adit_refusals_total", &[("reason", "bad_request")], count).await;
    }
    let mut slow = connect(port).await;
    slow.write_all(b"PROXY TCP4 1.2.3.4 ").await.unwrap();
    let end = within("the end", slow.read(&mut [0])).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    world.sum_becomes("adit_refusals_total", &[("reason", "request_timeout")], 1).await;
    assert!(exchange(port, &told(Version::V2)[..20]).await.is_err(), "cut");
    world.finish().await;
}

#[tokio::test]
async fn http_listeners_hear_from_balancers_as_well() {
    let upstream = Upstream::named("ok").await;
    let world = believing()
        .gateway(|config| config.http.iter_mut().for_each(|listener| listener.lb_proxy_protocol = true))
        .offer("a.example", &upstream)
        .run()
        .await;
    let mut wire = Wire::tcp(world.http()).await;
    wire.send(told(Version::V2)).await;
    let reply = wire.get("a.example", "/").await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"));
    assert_eq!(upstream.requests()[0].head.field("x-forwarded-for"), Some("203.0.113.9"));
    let mut bare = TcpStream::connect(world.http()).await.unwrap();
    bare.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await.unwrap();
    assert!(within("the end", bare.read(&mut [0])).await.is_err());
    drop(wire);
    world.finish().await;
}
