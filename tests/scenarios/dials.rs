//! Services reached by their names, from an agent through the gateway to an agent.

use std::net::SocketAddr;

use adit_testkit::ports::free;
use adit_testkit::proto::reason::Reason;
use adit_testkit::tcp::Tcp;
use adit_testkit::{AgentPlan, Rights, Signal, World, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HOST: &str = "hosts the database";
const DEVELOPER: &str = "develops";
const STRANGER: &str = "is somebody else";

/// Three tokens; one may offer the database, one may reach it.
fn rights() -> Rights {
    Rights::new()
        .token("host", HOST)
        .token("dev", DEVELOPER)
        .token("stranger", STRANGER)
        .service("db")
        .service("hidden")
        .bind("@db", "@host")
        .dial("@db", "@dev")
}

fn local() -> SocketAddr {
    ([127, 0, 0, 1], free()).into()
}

/// A world where `upstream` is offered as the database.
async fn offering(upstream: &Tcp) -> World {
    let mut world = World::new().workers(2).run().await;
    world.publish(&rights().model);
    world.join(AgentPlan::new().token(HOST).offer("@db", upstream)).await;
    world
}

fn developer() -> AgentPlan {
    AgentPlan::new().token(DEVELOPER).dials()
}

#[tokio::test]
async fn a_service_is_reached_by_its_name_and_the_log_says_by_whom() {
    let echo = Tcp::echo().await;
    let mut world = offering(&echo).await;
    let here = local();
    let dialling = world.join(developer().forward_to(here, "DB.")).await;
    let mut client = within("a connection", TcpStream::connect(here)).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut back = String::new();
    within("the end", client.read_to_string(&mut back)).await.unwrap();
    assert_eq!(back, "hello");
    let line = world.request_log(1).await.remove(0);
    let said =
        ["identity", "service", "reason", "client"].map(|key| line[key].as_str().unwrap_or("").to_owned());
    assert_eq!(said, ["dev", "@db", "done", "127.0.0.1"]);
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &5.into()));
    assert_eq!(line["agent"], world.agent(0).instance().to_string());
    let metrics = world.metrics().await;
    assert!((metrics.sum("adit_service_bytes_total", &[("service", "@db")]) - 10.0).abs() < 0.1);
    assert!((metrics.sum("adit_dials_total", &[]) - 1.0).abs() < 0.1);
    drop(world.take_agent(dialling));
    world.finish().await;
}

#[tokio::test]
async fn a_mebibyte_goes_each_way_unchanged_and_each_half_ends_for_itself() {
    // Answers only once it has read everything.
    let reverses = Tcp::scripted(|mut tcp| async move {
        let mut all = Vec::new();
        tcp.read_to_end(&mut all).await.unwrap();
        all.reverse();
        tcp.write_all(&all).await.unwrap();
    })
    .await;
    let mut world = offering(&reverses).await;
    let dialling = world.join(developer()).await;
    let mut stream = within("the dial", world.agent(dialling).dial(&"db".parse().unwrap())).await.unwrap();
    let sent: Vec<u8> =
        (0..1 << 20_u32).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    within("the answer", stream.read_to_end(&mut back)).await.unwrap();
    back.reverse();
    assert!(back == sent, "{} bytes came back", back.len());
    world.finish().await;
}

#[tokio::test]
async fn who_may_not_dial_hears_the_same_whether_the_service_exists_or_not() {
    let echo = Tcp::echo().await;
    let mut world = offering(&echo).await;
    let stranger = world.join(AgentPlan::new().token(STRANGER).dials()).await;
    let mut said = Vec::new();
    for service in ["db", "hidden", "nothing"] {
        let dialled = within("the dial", world.agent(stranger).dial(&service.parse().unwrap())).await;
        let refused = dialled.unwrap_err();
        assert_eq!(refused.reason, Reason::NotPermitted);
        said.push(refused.text.replace(service, "X"));
    }
    assert!(said[0].contains("adit explain dial --identity \"stranger\" --service \"X\""), "{said:#?}");
    assert!(said[0] == said[1] && said[1] == said[2], "{said:#?}");
    // Whoever hosts it knows that it is there, and hears what is missing.
    let host = world.join(AgentPlan::new().token(HOST).dials()).await;
    let refused = world.agent(host).dial(&"db".parse().unwrap()).await.unwrap_err();
    assert!(refused.text.contains("service-policy") && refused.text.contains("@host"), "{}", refused.text);
    world.sum_becomes("adit_refusals_total", &[("reason", "not_permitted")], 4).await;
    world.finish().await;
}

#[tokio::test]
async fn a_service_that_nobody_offers_now_is_no_agent() {
    let echo = Tcp::echo().await;
    let mut world = offering(&echo).await;
    let dialling = world.join(developer()).await;
    drop(world.take_agent(0));
    world.agents_become(1).await;
    let refused = world.agent(dialling).dial(&"db".parse().unwrap()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NoAgent);
    assert!(refused.text.contains("no agent that offers it is connected"), "{}", refused.text);
    world.finish().await;
}

#[tokio::test]
async fn a_dial_goes_on_to_another_endpoint_when_the_first_upstream_refuses() {
    let mut world = World::new().run().await;
    world.publish(&rights().model);
    let nobody = format!("tcp://{}", local());
    let echo = Tcp::echo().await;
    world.join(AgentPlan::new().token(HOST).offer("@db", &nobody)).await;
    world.join(AgentPlan::new().token(HOST).offer("@db", &echo)).await;
    let dialling = world.join(developer()).await;
    for _ in 0..4 {
        let mut stream = world.agent(dialling).dial(&"db".parse().unwrap()).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(within("the answer", stream.read_u8()).await.unwrap(), b'x');
    }
    world.finish().await;
}

#[tokio::test]
async fn what_nobody_takes_is_not_taken_from_the_dialler_either() {
    let go_on = Signal::default();
    let waits = go_on.clone();
    let slow = Tcp::scripted(move |mut tcp| {
        let waits = waits.clone();
        async move {
            waits.given(1).await;
            let mut all = Vec::new();
            tcp.read_to_end(&mut all).await.unwrap();
            tcp.write_all(all.len().to_string().as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut world = offering(&slow).await;
    let dialling = world.join(developer()).await;
    let mut stream = world.agent(dialling).dial(&"db".parse().unwrap()).await.unwrap();
    let chunk = vec![7; 64 << 10];
    let mut sent = 0;
    while let Ok(written) =
        tokio::time::timeout(std::time::Duration::from_millis(500), stream.write(&chunk)).await
    {
        sent += written.unwrap();
        assert!(sent < 512 << 20, "somebody keeps it all");
    }
    go_on.give();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, sent.to_string());
    world.finish().await;
}

#[tokio::test]
async fn an_agent_may_dial_what_it_offers_itself() {
    let mut world = World::new().workers(2).run().await;
    world.publish(&rights().dial("@db", "@host").model);
    let echo = Tcp::echo().await;
    let number = world.join(AgentPlan::new().token(HOST).offer("@db", &echo).dials()).await;
    let mut stream = world.agent(number).dial(&"db".parse().unwrap()).await.unwrap();
    let sent = vec![9; 3 << 20];
    let (mut reads, mut writes) = tokio::io::split(&mut stream);
    let write = async {
        writes.write_all(&sent).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (read, ()) = within("both ways", async { tokio::join!(reads.read_to_end(&mut back), write) }).await;
    read.unwrap();
    assert!(back == sent);
    world.finish().await;
}
