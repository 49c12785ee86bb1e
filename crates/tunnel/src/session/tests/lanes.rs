//! Sessions over more than one connection.

use std::time::Duration;

use adit_proto::limits;
use adit_proto::reason::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::{Session, Side, echo_agent, header};
use crate::scope::Scope;
use crate::stream::Stream;

/// A connection that can be cut or go silent.
struct Link {
    scope: Scope,
}

impl Link {
    /// What one end writes the other reads, while the link stands.
    fn new() -> (Self, DuplexStream, DuplexStream) {
        let ((near, a), (b, far)) = (tokio::io::duplex(1 << 16), tokio::io::duplex(1 << 16));
        let scope = Scope::new();
        let ((mut a_in, mut a_out), (mut b_in, mut b_out)) = (tokio::io::split(a), tokio::io::split(b));
        scope.spawn("link", async move {
            tokio::select! {
                () = pass(&mut a_in, &mut b_out) => {}
                () = pass(&mut b_in, &mut a_out) => {}
            }
        });
        (Self { scope }, near, far)
    }

    fn cut(&self) {
        self.scope.cancel();
    }
}

async fn pass(from: &mut ReadHalf<DuplexStream>, to: &mut WriteHalf<DuplexStream>) {
    let mut buffer = vec![0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// A gateway's and an agent's session over two links; the agent echoes.
fn two_lanes(scope: &Scope) -> (Session, Session, [Link; 2]) {
    let (first, near, far) = Link::new();
    let gateway = Session::start(near, Side::Gateway, scope);
    let agent = Session::start(far, Side::Agent, scope);
    let (second, near, far) = Link::new();
    gateway.add_lane(&[]).unwrap().start(near, scope);
    agent.add_lane(&[]).unwrap().start(far, scope);
    echo_agent(scope, agent.clone());
    (gateway, agent, [first, second])
}

/// Opens a stream on the first lane and one on the second, which is chosen because the first has much to write.
async fn one_on_each(gateway: &Session) -> (Stream, Stream) {
    let mut first = gateway.open(&header()).unwrap();
    let window = usize::try_from(limits::INITIAL_WINDOW).unwrap();
    tokio::task::unconstrained(first.write_all(&vec![7; window / 2])).await.unwrap();
    let mut second = gateway.open(&header()).unwrap();
    assert!(echoes(&mut second).await && first.read_chunk().await.is_ok());
    (first, second)
}

async fn echoes(stream: &mut Stream) -> bool {
    stream.write_all(b"ping").await.is_ok() && matches!(stream.read_chunk().await, Ok(Some(_)))
}

#[tokio::test(start_paused = true)]
async fn a_lost_lane_takes_only_its_own_streams_along() {
    let scope = Scope::new();
    let (gateway, agent, [first, _second]) = two_lanes(&scope);
    let (mut lost, mut kept) = one_on_each(&gateway).await;
    assert_eq!((gateway.lanes(), agent.lanes()), (2, 2));
    first.cut();
    while lost.read_chunk().await.is_ok() {}
    assert_eq!(lost.watch().end(), Some(Reason::AgentLost));
    gateway.lanes_below(2).await;
    assert!(echoes(&mut kept).await, "the other lane goes on");
    assert_eq!(gateway.end(), None, "and so does the session");
    assert!(echoes(&mut gateway.open(&header()).unwrap()).await, "which takes new streams");
    scope.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_session_ends_with_its_last_lane() {
    let scope = Scope::new();
    let (gateway, agent, [first, second]) = two_lanes(&scope);
    first.cut();
    gateway.lanes_below(2).await;
    assert_eq!(gateway.end(), None);
    second.cut();
    assert_eq!(gateway.closed().await, Reason::AgentLost);
    assert_eq!(agent.closed().await, Reason::AgentLost);
    assert!(gateway.add_lane(&[]).is_err(), "what has ended stays so");
}

#[tokio::test(start_paused = true)]
async fn a_close_and_a_drain_concern_every_lane() {
    let scope = Scope::new();
    let (gateway, agent, _links) = two_lanes(&scope);
    let (first, second) = one_on_each(&gateway).await;
    let mut draining = std::pin::pin!(agent.drain(Reason::AgentDraining));
    assert!(futures_util::poll!(draining.as_mut()).is_pending());
    assert_eq!(gateway.draining().await, Reason::AgentDraining);
    assert_eq!(gateway.open(&header()).err(), Some(Reason::AgentDraining));
    assert!(gateway.add_lane(&[]).is_err());
    drop(first);
    agent.lanes_below(3).await;
    assert!(futures_util::poll!(draining.as_mut()).is_pending(), "a stream of the other lane is still open");
    drop(second);
    draining.await;
    agent.close(Reason::AgentDraining);
    assert_eq!(gateway.closed().await, Reason::AgentDraining);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_answers_nothing_is_passed_by_and_given_up() {
    let scope = Scope::new();
    let (gateway, _agent, links) = two_lanes(&scope);
    // The first link goes on taking bytes and passes none on.
    let (silent, near, _far) = Link::new();
    let gateway_alone = Session::start(near, Side::Gateway, &scope);
    let (_second, near, far) = Link::new();
    gateway_alone.add_lane(&[]).unwrap().start(near, &scope);
    echo_agent(&scope, Session::start(far, Side::Agent, &scope));
    let started = Instant::now();
    let mut stuck = gateway_alone.open(&header()).unwrap();
    // One second without an answer makes a lane suspect.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut passed_by = gateway_alone.open(&header()).unwrap();
    assert!(echoes(&mut passed_by).await, "a new stream takes the lane that answers");
    while stuck.read_chunk().await.is_ok() {}
    assert!(started.elapsed() <= Duration::from_secs(5), "a dead lane is known in time");
    assert_eq!(gateway_alone.end(), None);
    drop((silent, links, gateway));
    scope.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_gone_is_known_on_every_lane_soon_after_the_first() {
    let scope = Scope::new();
    // Both links take bytes and pass none on.
    let (first, near, _far) = Link::new();
    let gateway = Session::start(near, Side::Gateway, &scope);
    let (second, near, _far) = Link::new();
    gateway.add_lane(&[]).unwrap().start(near, &scope);
    let started = Instant::now();
    let _waiting = gateway.open(&header()).unwrap();
    assert_eq!(gateway.closed().await, Reason::SessionTimeout);
    assert!(started.elapsed() <= Duration::from_secs(6), "{:?}", started.elapsed());
    drop((first, second));
}
