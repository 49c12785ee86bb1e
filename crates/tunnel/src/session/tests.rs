//! Two sessions over an in-memory pipe, with the real driver and paused time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use adit_proto::frame::{self, FrameHeader, HEADER_LEN, Kind};
use adit_proto::header::StreamHeader;
use adit_proto::names::HostPattern;
use adit_proto::reason::Reason;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::{Session, Side, StreamError};
use crate::relay::{Meter, Terms, relay};
use crate::scope::Scope;

mod lanes;

const TERMS: Terms = Terms { lost: Reason::UpstreamClosed, patience: Some(Duration::from_secs(60)) };

struct NoMeter;

impl Meter for NoMeter {
    fn sent(&self, _bytes: u64) {}
    fn received(&self, _bytes: u64) {}
}

fn header() -> StreamHeader {
    StreamHeader {
        service: HostPattern::Any.into(),
        client_addr: None,
        connect_timeout: Duration::from_secs(10),
    }
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
        let outcome = tokio::time::timeout(Duration::from_secs(60), outcome).await;
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
    let outcome = tokio::time::timeout(Duration::from_secs(60), outcome).await;
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
async fn a_drain_ends_when_the_peer_has_seen_it_and_all_it_opened_before_is_answered() {
    let scope = Scope::new();
    let (io, mut peer) = tokio::io::duplex(4096);
    let agent = Session::start(io, Side::Agent, &scope);
    assert_eq!(next(&mut peer).await.0, Kind::Ping);
    let drain = agent.drain(Reason::AgentDraining);
    let meanwhile = async {
        assert_eq!(next(&mut peer).await.0, Kind::Goaway);
        // Opened before the announcement was seen.
        let (mut frames, mut open) = (BytesMut::new(), BytesMut::new());
        header().encode(&mut open);
        frame::put(&mut frames, Kind::Open, 1, &open);
        peer.write_all(&frames).await.unwrap();
        let mut answered = Vec::new();
        while answered.len() < 3 {
            let (kind, payload) = next(&mut peer).await;
            if kind == Kind::Ping {
                let mut pong = BytesMut::new();
                frame::put(&mut pong, Kind::Pong, 0, &payload);
                peer.write_all(&pong).await.unwrap();
            }
            answered.push((kind, payload));
        }
        assert_eq!((answered[0].0, answered[2].0), (Kind::Ping, Kind::Ping));
        assert_eq!(answered[1], (Kind::Reset, Reason::AgentDraining.code().to_be_bytes().to_vec()));
    };
    tokio::join!(drain, meanwhile);
    assert_eq!(agent.end(), None);
}

/// The next frame a raw peer gets.
async fn next(io: &mut DuplexStream) -> (Kind, Vec<u8>) {
    let mut raw = [0; HEADER_LEN];
    io.read_exact(&mut raw).await.unwrap();
    let header = FrameHeader::decode(raw).unwrap();
    let mut payload = vec![0; header.len];
    io.read_exact(&mut payload).await.unwrap();
    (header.kind, payload)
}

#[tokio::test]
async fn a_transport_that_breaks_loses_its_streams_even_when_the_peer_had_announced_its_leaving() {
    for breaks in [false, true] {
        let scope = Scope::new();
        let (io, mut peer) = tokio::io::duplex(4096);
        let gateway = Session::start(Breakable { io, breaks }, Side::Gateway, &scope);
        let mut stream = gateway.open(&header()).unwrap();
        let mut frames = BytesMut::new();
        frame::put(&mut frames, Kind::Goaway, 0, &Reason::AgentDraining.code().to_be_bytes());
        peer.write_all(&frames).await.unwrap();
        drop(peer);
        let error = stream.read_chunk().await.unwrap_err();
        let expected = if breaks { Reason::AgentLost } else { Reason::AgentDraining };
        assert_eq!(StreamError::find(&error).unwrap().reason, expected);
        assert_eq!(gateway.closed().await, Reason::AgentDraining);
    }
}

/// A pipe whose end may be an error.
struct Breakable {
    io: DuplexStream,
    breaks: bool,
}

impl AsyncRead for Breakable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let has_ended = buf.filled().len() == before;
        Poll::Ready(if self.breaks && has_ended {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(())
        })
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
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
