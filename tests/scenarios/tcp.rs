//! Connections to a port reach whoever offers it, byte for byte and end for end.

use adit_testkit::ports::free;
use adit_testkit::tcp::Tcp;
use adit_testkit::{AgentPlan, World, until, within};
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
