//! Two sessions over an in-memory pipe, with the real driver and paused time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use adit_proto::header::StreamHeader;
use adit_proto::names::HostPattern;
use adit_proto::reason::Reason;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::{Session, Side, StreamError};
use crate::relay::{Meter, Terms, relay};
use crate::scope::Scope;

const TERMS: Terms = Terms { lost: Reason::UpstreamClosed, patience: Some(Duration::from_secs(60)) };

struct NoMeter;

impl Meter for NoMeter {
    fn sent(&self, _bytes: u64) {}
    fn received(&self, _bytes: u64) {}
}

fn header() -> StreamHeader {
    StreamHeader { service: HostPattern::Any, client_addr: None, connect_timeout: Duration::from_secs(10) }
}

fn pair(scope: &Scope, buffer: usize) -> (Session, Session) {
    let (a, b) = tokio::io::duplex(buffer);
    (Session::start(a, Side::Gateway, scope), Session::start(b, Side::Agent, scope))
}

/// Every stream the agent accepts is relayed to an upstream that echoes until its input ends.
fn echo_agent(scope: &Scope, agent: Session) {
    let spawner = scope.clone();
    scope.spawn("agent", async move {
        while let Some((_, stream)) = agent.accept().await {
            stream.confirm();
            let (near, far) = tokio::io::duplex(4096);
            spawner.spawn("upstream", async move {
                let (mut from, mut to) = tokio::io::split(far);
                let mut buffer = [0; 1000];
                while let Ok(n @ 1..) = from.read(&mut buffer).await {
                    to.write_all(&buffer[..n]).await.unwrap();
                }
                to.shutdown().await.unwrap();
            });
            spawner.spawn("relay", async move {
                relay(stream, near, TERMS, &NoMeter).await;
            });
        }
    });
}

#[tokio::test]
async fn megabytes_echo_through_small_pipes_with_a_half_close() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 777);
    echo_agent(&scope, agent);
    let stream = gateway.open(&header()).unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
    let sent = data.clone();
    scope.spawn("writer", async move {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    from.read_to_end(&mut got).await.unwrap();
    assert!(got == data);
}

#[tokio::test]
async fn first_bytes_travel_with_the_open_and_the_confirmation_comes_back() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 4096);
    let mut stream = gateway.open(&header()).unwrap();
    let watch = stream.watch();
    stream.write_all(b"early").await.unwrap();
    assert!(!watch.is_opened());
    let (_, mut accepted) = agent.accept().await.unwrap();
    assert_eq!(accepted.read_chunk().await.unwrap().unwrap(), "early");
    accepted.confirm();
    accepted.write_all(b"answer").await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "answer");
    assert!(watch.is_opened());
}

#[tokio::test]
async fn a_stream_given_up_after_its_half_close_lets_go_of_a_silent_upstream() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 4096);
    for ends_by_session in [false, true] {
        let mut stream = gateway.open(&header()).unwrap();
        let (_, accepted) = agent.accept().await.unwrap();
        let (near, mut far) = tokio::io::duplex(4096);
        let (done, outcome) = tokio::sync::oneshot::channel();
        scope.spawn("relay", async move {
            done.send(relay(accepted, near, TERMS, &NoMeter).await).unwrap();
        });
        stream.shutdown().await.unwrap();
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0, "the half-close has passed");
        if ends_by_session {
            gateway.close(Reason::Draining);
        } else {
            drop(stream);
        }
        let outcome = tokio::time::timeout(Duration::from_secs(5), outcome).await;
        let reason = outcome.expect("the relay waits for the upstream").unwrap().reason;
        assert_eq!(reason, if ends_by_session { Reason::Draining } else { Reason::Cancelled });
    }
}

#[tokio::test]
async fn a_stream_given_up_while_its_upstream_takes_nothing_lets_go_of_it() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 4096);
    let mut stream = gateway.open(&header()).unwrap();
    let (_, accepted) = agent.accept().await.unwrap();
    // Nobody reads the far end.
    let (near, _far) = tokio::io::duplex(64);
    let (done, outcome) = tokio::sync::oneshot::channel();
    scope.spawn("relay", async move {
        done.send(relay(accepted, near, TERMS, &NoMeter).await).unwrap();
    });
    stream.write_all(&[0; 4096]).await.unwrap();
    drop(stream);
    let outcome = tokio::time::timeout(Duration::from_secs(5), outcome).await;
    let reason = outcome.expect("the relay waits for the upstream").unwrap().reason;
    assert_eq!(reason, Reason::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_relay_ends_when_nothing_moves() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 4096);
    let mut stream = gateway.open(&header()).unwrap();
    let (_, accepted) = agent.accept().await.unwrap();
    let (near, mut far) = tokio::io::duplex(4096);
    let (done, outcome) = tokio::sync::oneshot::channel();
    scope.spawn("relay", async move {
        done.send(relay(accepted, near, TERMS, &NoMeter).await).unwrap();
    });
    stream.shutdown().await.unwrap();
    let started = tokio::time::Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        far.write_all(b"x").await.unwrap();
    }
    assert_eq!(outcome.await.unwrap().reason, Reason::IdleTimeout);
    assert!(started.elapsed() > Duration::from_secs(300) && started.elapsed() < Duration::from_secs(400));
}

#[tokio::test]
async fn a_reset_reaches_the_other_end_as_its_reason() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 4096);
    let mut stream = gateway.open(&header()).unwrap();
    let (_, accepted) = agent.accept().await.unwrap();
    accepted.reset(Reason::UpstreamRefused);
    let error = stream.read_chunk().await.unwrap_err();
    assert_eq!(StreamError::find(&error), Some(StreamError { reason: Reason::UpstreamRefused }));
    assert_eq!(stream.watch().end(), Some(Reason::UpstreamRefused));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_and_its_streams_end() {
    let scope = Scope::new();
    let (io, _held_but_mute) = tokio::io::duplex(4096);
    let gateway = Session::start(io, Side::Gateway, &scope);
    let mut stream = gateway.open(&header()).unwrap();
    let error = stream.read_chunk().await.unwrap_err();
    assert_eq!(StreamError::find(&error).unwrap().reason, Reason::SessionTimeout);
    assert_eq!(gateway.closed().await, Reason::SessionTimeout);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_stays_up_for_a_day_by_probing() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 4096);
    tokio::select! {
        reason = gateway.closed() => panic!("the gateway gave up: {reason}"),
        reason = agent.closed() => panic!("the agent gave up: {reason}"),
        () = tokio::time::sleep(Duration::from_secs(86_400)) => {}
    }
}

/// Counts what is written.
struct Counted(DuplexStream, Arc<AtomicU64>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_sends_next_to_nothing() {
    let scope = Scope::new();
    let (a, b) = tokio::io::duplex(4096);
    let written = Arc::new(AtomicU64::new(0));
    let _gateway = Session::start(Counted(a, Arc::clone(&written)), Side::Gateway, &scope);
    let _agent = Session::start(Counted(b, Arc::clone(&written)), Side::Agent, &scope);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    // One probe in ten seconds and its answer, 16 bytes each, and the two that measure the round trip.
    let written = written.load(Ordering::Relaxed);
    assert!(written <= 364 * 2 * 16, "{written} bytes in an hour");
}

#[tokio::test]
async fn a_drain_lets_open_streams_finish_and_takes_no_new_ones() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 4096);
    let mut stream = gateway.open(&header()).unwrap();
    let (_, mut accepted) = agent.accept().await.unwrap();
    let drained = tokio::join!(agent.drain(Reason::AgentDraining), async {
        gateway.draining().await;
        assert_eq!(gateway.open(&header()).unwrap_err(), Reason::AgentDraining);
        accepted.write_all(b"last").await.unwrap();
        accepted.shutdown().await.unwrap();
        assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "last");
        drop(stream);
        drop(accepted);
    });
    assert_eq!(drained, ((), ()));
}

#[tokio::test]
async fn closing_tells_the_other_side_and_ends_the_driver() {
    let scope = Scope::new();
    let (gateway, agent) = pair(&scope, 4096);
    gateway.close(Reason::Draining);
    assert_eq!(agent.closed().await, Reason::Draining);
    assert_eq!(scope.drain(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn a_cancelled_scope_leaves_no_stream_waiting() {
    let scope = Scope::new();
    let (gateway, _agent) = pair(&scope, 4096);
    let mut stream = gateway.open(&header()).unwrap();
    scope.cancel();
    assert!(stream.read_chunk().await.is_err());
}
