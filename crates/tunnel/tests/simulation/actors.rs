//! Who uses the streams: clients that open them, and what answers at the agent's end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::header::StreamHeader;
use adit_proto::names::{HostPattern, ServiceName};
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Meter, Terms, relay};
use adit_tunnel::session::{Session, Stream, StreamError};
use parking_lot::Mutex;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

use crate::ledger::{self, Ended, Way};
use crate::plan::{Abort, Behind, Part, Reading, Writing};
use crate::world::{AGENT, GATEWAY, World, pause};

/// How often a client looks for a session, and how long it does.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 3_000;

/// One stream at one of its ends.
struct Actor {
    world: Arc<World>,
    key: usize,
    side: usize,
    session: Session,
    number: usize,
    stream: Mutex<Stream>,
}

/// A client opens its stream as soon as there is a session, and does what is planned.
pub(crate) async fn client(world: Arc<World>, key: usize) {
    let plan = world.scenario.plans[key].clone();
    pause(plan.start).await;
    // The number travels in a field that nobody else reads here.
    let header = StreamHeader {
        service: ServiceName::Host(HostPattern::Any),
        client_addr: None,
        connect_timeout: Duration::from_millis(key as u64),
    };
    for _ in 0..LOOKS {
        if let Some((number, session)) = world.current()
            && let Ok(stream) = session.open(&header)
        {
            world.flow(key, |flow| flow.session = Some(number));
            world.note(|| format!("client {key} opens stream {} in session {number}", stream.id()));
            world.asked(number, GATEWAY);
            let stream = Mutex::new(stream);
            let actor = Actor { world: Arc::clone(&world), key, side: GATEWAY, session, number, stream };
            actor.act(&plan.client).await;
            break;
        }
        pause(LOOK).await;
    }
    world.flow(key, |flow| flow.is_done[GATEWAY] = true);
}

/// What the agent does with a stream that arrives.
pub(crate) async fn answer(
    world: Arc<World>,
    session: Session,
    number: usize,
    header: StreamHeader,
    stream: Stream,
) {
    let key = usize::try_from(header.connect_timeout.as_millis()).unwrap();
    world.flow(key, |flow| flow.accepted += 1);
    world.note(|| format!("agent accepts stream {} of client {key}", stream.id()));
    match world.scenario.plans[key].behind.clone() {
        Behind::Refused(reason) => {
            world.flow(key, |flow| flow.aborts[AGENT].push(reason));
            stream.reset(reason);
        }
        Behind::Peer(part) => {
            stream.confirm();
            let stream = Mutex::new(stream);
            let actor = Actor { world: Arc::clone(&world), key, side: AGENT, session, number, stream };
            actor.act(&part).await;
        }
        Behind::Echo { pipe, cut } => {
            stream.confirm();
            echo(&world, key, stream, pipe, cut).await;
        }
    }
    world.flow(key, |flow| flow.is_done[AGENT] = true);
}

impl Actor {
    async fn act(self, part: &Part) {
        let both = async { tokio::try_join!(self.write(&part.writing), self.read(&part.reading)) };
        if let Err(abort) = both.await {
            let reason = match abort {
                Abort::Reset(reason) => reason,
                Abort::Drop => Reason::Cancelled,
            };
            self.world.flow(self.key, |flow| flow.aborts[self.side].push(reason));
            self.world.note(|| format!("{} of {} gives up: {abort:?}", self.name(), self.key));
            if let Abort::Reset(reason) = abort {
                self.stream.lock().reset(reason);
            }
        } else if !self.is_whole() {
            // Whatever failed, the rest of the stream goes with its handle.
            self.world.flow(self.key, |flow| flow.aborts[self.side].push(Reason::Cancelled));
        }
        self.world.note(|| format!("{} of {} is done", self.name(), self.key));
    }

    const fn name(&self) -> &'static str {
        ["client", "agent's end"][self.side]
    }

    fn is_whole(&self) -> bool {
        self.world.flow(self.key, |flow| {
            flow.ways[self.side].wrote == Some(Ended::InOrder)
                && flow.ways[1 - self.side].got == Some(Ended::InOrder)
        })
    }

    fn out<T>(&self, f: impl FnOnce(&mut Way) -> T) -> T {
        self.world.flow(self.key, |flow| f(&mut flow.ways[self.side]))
    }

    fn back<T>(&self, f: impl FnOnce(&mut Way) -> T) -> T {
        self.world.flow(self.key, |flow| f(&mut flow.ways[1 - self.side]))
    }

    /// The number whose bytes this direction carries: what an upstream sends back are the client's own bytes.
    fn pattern(&self, direction: usize) -> usize {
        match self.world.scenario.plans[self.key].behind {
            Behind::Echo { .. } => self.key * 2,
            _ => self.key * 2 + direction,
        }
    }

    fn failed(&self, error: &io::Error) -> Ended {
        let reason = StreamError::find(error).map_or(Reason::Unknown, |end| end.reason);
        Ended::Failed(reason, self.session.end())
    }

    async fn write(&self, plan: &Writing) -> Result<(), Abort> {
        let pattern = self.pattern(self.side);
        let (mut written, mut since_pause) = (0, 0);
        while written < plan.total {
            let left = usize::try_from(plan.total - written).unwrap_or(usize::MAX);
            let bytes = ledger::bytes(pattern, written, plan.chunk.min(left));
            // Counted before the write: its reader may be quicker than this task.
            let wrote = poll_fn(|cx| {
                let polled = Pin::new(&mut *self.stream.lock()).poll_write(cx, bytes);
                if let std::task::Poll::Ready(Ok(n)) = &polled {
                    self.out(|way| way.written += *n as u64);
                }
                polled
            })
            .await;
            match wrote {
                Ok(n) => {
                    assert!(n > 0 && n <= bytes.len(), "a write of {} took {n}", bytes.len());
                    written += n as u64;
                    since_pause += n as u64;
                    self.world.asked(self.number, self.side);
                }
                Err(error) => {
                    let ended = self.failed(&error);
                    self.world.note(|| format!("{} of {} cannot write: {ended:?}", self.name(), self.key));
                    self.out(|way| way.wrote = Some(ended));
                    return Ok(());
                }
            }
            if let Some((every, time)) = plan.pause
                && since_pause >= every
            {
                since_pause = 0;
                pause(time).await;
            }
        }
        if let Some(abort) = plan.abort {
            return Err(abort);
        }
        self.out(|way| way.wrote = Some(Ended::InOrder));
        let end = poll_fn(|cx| Pin::new(&mut *self.stream.lock()).poll_shutdown(cx)).await;
        end.unwrap();
        Ok(())
    }

    async fn read(&self, plan: &Reading) -> Result<(), Abort> {
        let pattern = self.pattern(1 - self.side);
        let (mut got, mut since_pause, mut stall) = (0_u64, 0, plan.stall);
        let mut buffer = vec![0; plan.piece.unwrap_or(0)];
        loop {
            if let Some((at, time)) = stall
                && got >= at
            {
                stall = None;
                pause(time).await;
            }
            if let Some((at, abort)) = plan.abort
                && got >= at
            {
                return Err(abort);
            }
            self.back(|way| way.has_begun_to_read = true);
            let n = match self.take(pattern, got, &mut buffer).await {
                Ok(n) => n,
                Err(error) => {
                    let ended = self.failed(&error);
                    self.world.note(|| format!("{} of {} cannot read: {ended:?}", self.name(), self.key));
                    self.back(|way| way.got = Some(ended));
                    return Ok(());
                }
            };
            if n == 0 {
                self.back(|way| way.got = Some(Ended::InOrder));
                return Ok(());
            }
            got += n;
            since_pause += n;
            self.back(|way| way.read += n);
            if let Some((every, time)) = plan.pause
                && since_pause >= every
            {
                since_pause = 0;
                pause(time).await;
            }
        }
    }

    /// Reads once and checks what came.
    async fn take(&self, pattern: usize, offset: u64, buffer: &mut [u8]) -> io::Result<u64> {
        let check = |got: &[u8]| {
            let is_right = ledger::is_right(pattern, offset, got);
            assert!(is_right, "{} of {} got wrong bytes at {offset}", self.name(), self.key);
            got.len() as u64
        };
        if buffer.is_empty() {
            let chunk = poll_fn(|cx| self.stream.lock().poll_read_chunk(cx)).await?;
            return Ok(chunk.map_or(0, |chunk| check(&chunk)));
        }
        let mut buf = ReadBuf::new(buffer);
        poll_fn(|cx| Pin::new(&mut *self.stream.lock()).poll_read(cx, &mut buf)).await?;
        Ok(check(buf.filled()))
    }
}

struct NoMeter;

impl Meter for NoMeter {
    fn sent(&self, _bytes: u64) {}
    fn received(&self, _bytes: u64) {}
}

/// The agent's relay, and an upstream that sends back what it gets.
async fn echo(world: &Arc<World>, key: usize, stream: Stream, pipe: usize, cut: Option<u64>) {
    let (near, far) = tokio::io::duplex(pipe);
    let terms = Terms { lost: Reason::UpstreamClosed, patience: Some(Duration::from_secs(60)) };
    let upstream = async {
        let (mut from, mut to) = tokio::io::split(far);
        let (mut buffer, mut passed) = (vec![0; 5_000], 0_u64);
        while cut.is_none_or(|cut| passed < cut) {
            world.flow(key, |flow| flow.ways[0].has_begun_to_read = true);
            let Ok(n @ 1..) = from.read(&mut buffer).await else { break };
            assert!(ledger::is_right(key * 2, passed, &buffer[..n]), "the upstream of {key} got wrong bytes");
            passed += n as u64;
            world.flow(key, |flow| {
                flow.ways[0].read += n as u64;
                flow.ways[1].written += n as u64;
            });
            if to.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
        world.flow(key, |flow| flow.ways[1].wrote = Some(Ended::InOrder));
        drop(to.shutdown().await);
    };
    let relayed = async {
        let outcome = relay(stream, near, terms, &NoMeter).await;
        world.note(|| format!("relay of {key} is done: {outcome:?}"));
        world.flow(key, |flow| match outcome.reason {
            // An upstream that leaves early leaves bytes in the pipe.
            Reason::Done if cut.is_some() && flow.ways[0].read < flow.ways[0].written => {}
            Reason::Done => flow.ways[0].got = Some(Ended::InOrder),
            reason => flow.aborts[AGENT].push(reason),
        });
    };
    tokio::join!(upstream, relayed);
}
