//! The guard under the HTTP library, from the client's end of a pipe, with paused time.

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::pin;

use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;

const GET: &str = "GET /ok HTTP/1.1\r\nHost: a\r\n\r\n";
const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";

/// Says that the response is done when the library has dropped it.
struct Reported<B> {
    body: B,
    handle: GuardHandle,
}

impl<B> Drop for Reported<B> {
    fn drop(&mut self) {
        self.handle.request_done();
    }
}

impl<B: Body<Error = Infallible> + Unpin> Body for Reported<B> {
    type Data = B::Data;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

std::thread_local! {
    static ABORTED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Abort for DuplexStream {
    fn abort(&self) {
        ABORTED.set(ABORTED.get() + 1);
    }
}

/// A response with the request's body beside it, which nobody reads.
struct Unread<B> {
    body: B,
    _request: Incoming,
}

impl<B: Body<Error = Infallible> + Unpin> Body for Unread<B> {
    type Data = B::Data;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

/// A body of parts, each of which takes this long.
struct Slow {
    parts: usize,
    part: Bytes,
    pace: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Slow {
    fn new(parts: usize, size: usize, pace: Duration) -> Self {
        Self { parts, part: vec![b'.'; size].into(), pace, sleep: Box::pin(sleep(pace)) }
    }
}

impl Body for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.parts == 0 {
            return Poll::Ready(None);
        }
        ready!(self.sleep.as_mut().poll(cx));
        let next = Instant::now() + self.pace;
        self.sleep.as_mut().reset(next);
        self.parts -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.part.clone()))))
    }
}

/// The end of a response and what it says about the body of the request.
async fn describe(body: Incoming) -> String {
    let error = match body.collect().await {
        Ok(body) => return String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error,
    };
    let inner = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let refusal = inner.and_then(|inner| inner.get_ref()).and_then(|inner| inner.downcast_ref::<Refusal>());
    match (refusal, inner) {
        (Some(refusal), _) => format!("refused: {refusal}"),
        (None, Some(inner)) => format!("failed: {:?}", inner.kind()),
        (None, None) => format!("failed: {error}"),
    }
}

/// What the other side of the client saw.
#[derive(Default)]
struct Log {
    called: Mutex<Vec<String>>,
    refused: Mutex<Vec<Refusal>>,
    dropped: Mutex<usize>,
}

struct CountDrop(Arc<Log>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        *self.0.dropped.lock() += 1;
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn serve(
    mut request: Request<Incoming>,
    handle: GuardHandle,
    log: Arc<Log>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    log.called.lock().push(path.clone());
    let guard = CountDrop(Arc::clone(&log));
    let reported =
        |text: String| Reported { body: Full::new(Bytes::from(text)), handle: handle.clone() }.boxed();
    let response = match path.as_str() {
        "/slow" => {
            sleep(Duration::from_secs(5)).await;
            Response::new(reported("slow".to_owned()))
        }
        "/stream-late" => {
            sleep(Duration::from_secs(99)).await;
            Response::new(reported("late".to_owned()))
        }
        "/echo" => Response::new(reported(describe(request.into_body()).await)),
        "/deaf" => Response::new(reported("deaf".to_owned())),
        "/stream" => {
            let body = Slow::new(3, 5, Duration::from_secs(2));
            Response::new(Reported { body, handle: handle.clone() }.boxed())
        }
        "/large" => {
            let body = Slow::new(4, 100_000, Duration::from_millis(1));
            Response::new(Reported { body, handle: handle.clone() }.boxed())
        }
        "/unread" | "/unread-events" => {
            let pace = Duration::from_secs(if path == "/unread" { 1000 } else { 50 });
            let body = Unread { body: Slow::new(4, 5, pace), _request: request.into_body() };
            Response::new(Reported { body, handle: handle.clone() }.boxed())
        }
        "/hints" => {
            assert!(handle.inject(Bytes::from_static(INTERIM.as_bytes())));
            sleep(Duration::from_secs(1)).await;
            Response::new(reported("hinted".to_owned()))
        }
        "/hints-at-once" => {
            while handle.inject(Bytes::from_static(INTERIM.as_bytes())) {}
            Response::new(reported("hinted".to_owned()))
        }
        "/ws" => {
            sleep(Duration::from_secs(1)).await;
            handle.upgraded();
            let upgrade = hyper::upgrade::on(&mut request);
            upgraded_echo(upgrade, guard);
            let body = Reported { body: Empty::new(), handle: handle.clone() }.boxed();
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            return Ok(response);
        }
        _ => Response::new(reported("ok".to_owned())),
    };
    Ok(response)
}

std::thread_local! {
    static TASKS: std::cell::RefCell<JoinSet<()>> = std::cell::RefCell::new(JoinSet::new());
}

/// The other protocol: everything comes back.
fn upgraded_echo(upgrade: hyper::upgrade::OnUpgrade, guard: CountDrop) {
    TASKS.with_borrow_mut(|tasks| {
        tasks.spawn(async move {
            let mut io = TokioIo::new(upgrade.await.expect("the upgrade comes"));
            let mut buf = [0; 64];
            while let Ok(count @ 1..) = io.read(&mut buf).await {
                io.write_all(&buf[..count]).await.expect("the client reads");
            }
            drop(guard);
        })
    });
}

struct World {
    client: DuplexStream,
    log: Arc<Log>,
    connection: JoinSet<hyper::Result<()>>,
    /// Tells the connection to finish what it carries.
    leave: Arc<Notify>,
    handle: GuardHandle,
}

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

fn answer(refusal: Refusal) -> Bytes {
    format!("HTTP/1.1 {} -\r\nConnection: close\r\n\r\n{refusal}", refusal.reason.status()).into()
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        limits: Limits::default(),
        header_timeout: HEADER_TIMEOUT,
        idle_timeout: IDLE_TIMEOUT,
        stall_timeout: STALL_TIMEOUT,
        answer,
    })
}

/// A guard without a library on it.
fn bare(pipe: usize) -> (DuplexStream, Guard<DuplexStream>, GuardHandle) {
    let (client, server) = tokio::io::duplex(pipe);
    let (guard, handle) = Guard::new(server, settings(), Box::new(|_| {}));
    (client, guard, handle)
}

fn world() -> World {
    let (client, server) = tokio::io::duplex(16 * 1024);
    let log = Arc::new(Log::default());
    let refused = Arc::clone(&log);
    let on_refusal = Box::new(move |refusal: &Refusal| refused.refused.lock().push(*refusal));
    let (guard, handle) = Guard::new(server, settings(), on_refusal);
    let calls = Arc::clone(&log);
    let mut connection = JoinSet::new();
    let leave = Arc::new(Notify::new());
    let leaving = Arc::clone(&leave);
    let watched = handle.clone();
    connection.spawn(async move {
        let of_service = handle.clone();
        let service = service_fn(move |request| serve(request, of_service.clone(), Arc::clone(&calls)));
        let library = hyper::server::conn::http1::Builder::new();
        rest::serve(&library, guard, &handle, service, leaving.notified()).await
    });
    World { client, log, connection, leave, handle: watched }
}

impl World {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).await.expect("the connection is open");
    }

    /// Everything up to the end of the stream.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        self.client.read_to_end(&mut bytes).await.expect("no reset");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything up to and with this text.
    async fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let mut byte = [0];
            let read = timeout(Duration::from_secs(100), self.client.read_exact(&mut byte)).await;
            read.unwrap_or_else(|_| panic!("nothing behind {text:?}"))
                .unwrap_or_else(|_| panic!("end: {text:?}"));
            text.push(char::from(byte[0]));
        }
        text
    }

    fn called(&self) -> Vec<String> {
        self.log.called.lock().clone()
    }

    fn refused(&self) -> Vec<u16> {
        self.log.refused.lock().iter().map(|refusal| refusal.reason.status()).collect()
    }

    async fn ended(&mut self) -> hyper::Result<()> {
        let ended = timeout(Duration::from_secs(200), self.connection.join_next()).await;
        ended.expect("the connection ends").expect("there is one").expect("no panic")
    }
}

#[tokio::test(start_paused = true)]
async fn requests_pass_one_by_one_and_pipelined() {
    let mut world = world();
    for _ in 0..3 {
        world.send(GET).await;
        world.until("\r\n\r\nok").await;
    }
    world.send(GET.repeat(20)).await;
    for _ in 0..20 {
        world.until("\r\n\r\nok").await;
    }
    assert_eq!(world.called().len(), 23);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_idle_comes_to_rest_and_is_served_behind_it() {
    let mut world = world();
    for rests in 0..3 {
        assert_eq!(world.handle.rests(), rests);
        world.send(GET).await;
        world.until("\r\n\r\nok").await;
        sleep(Duration::from_secs(1)).await;
    }
    // In pieces, larger than what is looked at first, and one behind the other.
    let long =
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nX: {}\r\nContent-Length: 4\r\n\r\n", "x".repeat(3000));
    for piece in ["GET /o", "k HTTP/1.1\r\n", "Host: a\r\n\r\n", &long, "hi", "ho", GET] {
        world.send(piece).await;
        sleep(Duration::from_secs(1)).await;
    }
    world.until("\r\n\r\nok").await;
    world.until("\r\n\r\nhiho").await;
    world.until("\r\n\r\nok").await;
    world.send(WEBSOCKET).await;
    world.until("\r\n\r\n").await;
    world.send("over the wire").await;
    world.until("over the wire").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_a_request_does_not_rest() {
    let mut world = world();
    for path in ["/slow", "/stream"] {
        world.send(GET.replace("/ok", path)).await;
        sleep(Duration::from_secs(4)).await;
        world.send(GET).await;
        world.until("\r\n\r\nok").await;
    }
    assert_eq!(world.handle.rests(), 0);
}

#[tokio::test(start_paused = true)]
async fn at_rest_a_connection_ends_when_its_client_leaves_when_it_is_idle_for_too_long_and_when_it_is_told_to()
 {
    for (end, within) in [("client", 0), ("idle", 30), ("told", 0)] {
        let mut world = world();
        world.send(GET).await;
        world.until("\r\n\r\nok").await;
        let answered = Instant::now();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.handle.rests(), 1);
        match end {
            "client" => world.client.shutdown().await.expect("it is open"),
            "told" => world.leave.notify_one(),
            _ => {}
        }
        world.ended().await.expect("a proper end");
        let took = answered.elapsed();
        assert!(took.as_secs() <= within.max(1), "{end}: {took:?}");
        assert_eq!(world.rest().await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_in_single_bytes_passes() {
    let mut world = world();
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nT: u\r\n\r\n";
    for byte in [post, post].concat().bytes() {
        world.send([byte]).await;
        tokio::task::yield_now().await;
    }
    world.until("\r\n\r\nhi").await;
    world.until("\r\n\r\nhi").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_many_reads_arrives_whole() {
    let mut world = world();
    let body = "0123456789abcdef".repeat(20_000);
    let request =
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}{GET}", body.len());
    world.send(request).await;
    let echoed = world.until("\r\n\r\nok").await;
    assert!(echoed.contains(&body));
}

#[tokio::test(start_paused = true)]
async fn two_framings_are_refused_before_the_service_is_called() {
    let mut world = world();
    world
        .send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    assert!(world.rest().await.starts_with("HTTP/1.1 400 "));
    world.ended().await.expect("a quiet end");
    assert_eq!((world.called().len(), world.refused()), (0, vec![400]));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_waits_for_the_responses_before_it() {
    for good in ["/slow", "/stream", "/ok"] {
        let mut world = world();
        world.send(format!("GET {good} HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\nHost: a\n\n")).await;
        let all = world.rest().await;
        let (first, second) = (all.find("HTTP/1.1 200 "), all.find("HTTP/1.1 400 "));
        assert!(first.is_some() && first < second, "{good}: {all}");
        assert!(all.ends_with("LF instead of CRLF."), "{good}: {all}");
        assert!(good != "/stream" || all.contains("0\r\n\r\nHTTP/1.1 400"), "{all}");
        world.ended().await.expect("a quiet end");
        assert_eq!((world.called().len(), world.refused()), (1, vec![400]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_waits_for_a_client_that_reads_slowly() {
    let mut world = world();
    world.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n").await;
    let mut all = Vec::new();
    let mut part = [0; 8192];
    loop {
        sleep(Duration::from_secs(3)).await;
        match world.client.read(&mut part).await.expect("no reset") {
            0 => break,
            count => all.extend_from_slice(&part[..count]),
        }
    }
    let all = String::from_utf8_lossy(&all).into_owned();
    assert_eq!(all.matches('.').count(), 400_003, "the body and three dots elsewhere");
    assert!(all.contains("\r\n0\r\n\r\nHTTP/1.1 400 "));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_behind_a_close() {
    let mut world = world();
    world.send("GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nnonsense\r\n\r\n").await;
    assert!(world.rest().await.ends_with("\r\n\r\nslow"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_answered_with_408() {
    let mut world = world();
    let start = Instant::now();
    for byte in "GET / HT".bytes() {
        world.send([byte]).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert!(world.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(start.elapsed().as_secs(), HEADER_TIMEOUT.as_secs());
    assert_eq!(world.refused(), [408]);
    world.ended().await.expect("a quiet end");
}

#[tokio::test(start_paused = true)]
async fn a_slow_second_head_is_answered_with_408() {
    let mut world = world();
    world.send(GET).await;
    world.until("\r\n\r\nok").await;
    sleep(Duration::from_secs(25)).await;
    let start = Instant::now();
    world.send("G").await;
    assert!(world.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(start.elapsed().as_secs(), HEADER_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_without_a_word() {
    let mut first = world();
    let start = Instant::now();
    assert_eq!(first.rest().await, "");
    assert_eq!(start.elapsed().as_secs(), IDLE_TIMEOUT.as_secs());
    first.ended().await.expect("a quiet end");

    let mut later = world();
    for _ in 0..3 {
        later.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        later.until("\r\n\r\nslow").await;
        sleep(Duration::from_secs(25)).await;
    }
    let start = Instant::now();
    assert_eq!(later.rest().await, "");
    assert_eq!(start.elapsed().as_secs(), IDLE_TIMEOUT.as_secs() - 25);
    assert!(later.refused().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_request_has_to_come_sooner_than_later_ones() {
    let (mut client, server) = tokio::io::duplex(1024);
    let settings = Settings { idle_timeout: Duration::from_secs(1000), ..*settings() };
    let (mut guard, handle) = Guard::new(server, Arc::new(settings), Box::new(|_| {}));
    let start = Instant::now();
    let mut buf = [0; 64];
    assert_eq!(guard.read(&mut buf).await.unwrap(), 0);
    assert_eq!(start.elapsed(), FIRST_REQUEST);

    let (mut second, server) = tokio::io::duplex(1024);
    (guard, _) = Guard::new(server, Arc::new(settings), Box::new(|_| {}));
    drop((handle, client));
    second.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(guard.read(&mut buf).await.unwrap(), GET.len());
    assert!(timeout(Duration::from_secs(900), guard.read(&mut buf)).await.is_err());
    client = second;
    client.shutdown().await.unwrap();
    assert_eq!(guard.read(&mut buf).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_behind_a_body_that_nobody_reads_is_noticed() {
    for head in ["Content-Length: 9000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n800000\r\n"] {
        let mut world = world();
        world.send(format!("POST /unread HTTP/1.1\r\nHost: a\r\n{head}")).await;
        let piece = vec![b'x'; 4096];
        while timeout(Duration::from_secs(1), world.client.write_all(&piece)).await.is_ok() {}
        (world.client, _) = tokio::io::duplex(1);
        let start = Instant::now();
        assert!(world.ended().await.is_err());
        assert!(start.elapsed() <= STALL_TIMEOUT, "{:?}", start.elapsed());
        assert_eq!(*world.log.dropped.lock(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_does_not_end_a_response_that_goes_on() {
    let mut world = world();
    world.send("POST /unread-events HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n").await;
    let piece = vec![b'x'; 4096];
    while timeout(Duration::from_secs(1), world.client.write_all(&piece)).await.is_ok() {}
    world.until("0\r\n\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_response_that_waits_with_another_request_behind_it_is_not_limited() {
    let mut world = world();
    world.send(["GET /stream-late HTTP/1.1\r\nHost: a\r\n\r\n", GET].concat()).await;
    world.until("late").await;
    world.until("\r\n\r\nok").await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_http10_would_take_for_that_of_the_response_is_a_reset() {
    const OLD: &str = "GET / HTTP/1.0\r\n\r\n";
    for (request, is_cut, is_done, resets) in [
        (OLD, true, true, 1),
        (OLD, false, false, 1),
        (OLD, false, true, 0),
        (GET, true, true, 0),
        (GET, false, false, 0),
    ] {
        for shuts_down in [false, true] {
            let (mut client, mut guard, handle) = bare(1024);
            client.write_all(request.as_bytes()).await.unwrap();
            let mut buf = [0; 64];
            assert_eq!(guard.read(&mut buf).await.unwrap(), request.len());
            if is_cut {
                handle.cut();
            }
            if is_done {
                handle.request_done();
            }
            if shuts_down {
                guard.shutdown().await.unwrap();
            }
            ABORTED.set(0);
            drop(guard);
            assert_eq!(ABORTED.get(), resets, "{request:?} {is_cut} {is_done} {shuts_down}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_known_whether_a_body_is_still_to_come() {
    let (mut client, mut guard, handle) = bare(1024);
    let mut buf = [0; 64];
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n").await.unwrap();
    assert!(guard.read(&mut buf).await.unwrap() > 0);
    assert_eq!(handle.request(), 1);
    assert!(handle.is_body_open(1));
    client.write_all(b"hi").await.unwrap();
    assert_eq!(guard.read(&mut buf).await.unwrap(), 2);
    assert!(!handle.is_body_open(1));
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_request_behind_is_not_that_of_the_one_being_answered() {
    let (mut client, mut guard, handle) = bare(1024);
    let mut buf = [0; 256];
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345";
    client.write_all([GET, post].concat().as_bytes()).await.unwrap();
    assert_eq!(guard.read(&mut buf).await.unwrap(), GET.len() + post.len());
    let first = handle.request();
    assert!(!handle.is_body_open(first));
    handle.request_done();
    assert!(handle.is_body_open(handle.request()));
    assert!(!handle.is_body_open(first));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_begun_is_answered_before_the_connection_leaves() {
    for (before, pause) in [(0, 0), (1, 0), (2, 0), (1, 1)] {
        let mut world = world();
        for _ in 0..before {
            world.send(GET).await;
            world.until("\r\n\r\nok").await;
        }
        sleep(Duration::from_secs(pause)).await;
        world.send("GET /o").await;
        sleep(Duration::from_secs(1)).await;
        world.leave.notify_one();
        sleep(Duration::from_secs(1)).await;
        world.send(&GET["GET /o".len()..]).await;
        let answer = world.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{before} {pause}: {answer:?}");
        assert!(answer.ends_with("\r\n\r\nok"), "{before} {pause}: {answer:?}");
        world.ended().await.expect("a proper end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_gone_on_with_does_not_keep_a_connection_that_is_to_leave() {
    let mut world = world();
    world.send(GET).await;
    world.until("\r\n\r\nok").await;
    world.send("GET /o").await;
    sleep(Duration::from_secs(1)).await;
    world.leave.notify_one();
    let start = Instant::now();
    assert_eq!(world.rest().await, "");
    assert!((2..4).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());

    let mut gone = self::world();
    gone.send("GET /o").await;
    sleep(Duration::from_secs(1)).await;
    gone.leave.notify_one();
    gone.client.shutdown().await.expect("it is open");
    assert_eq!(gone.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_long_response_is_not_idleness() {
    let mut world = world();
    for _ in 0..20 {
        world.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        world.until("\r\n\r\nslow").await;
    }
    assert_eq!(world.called().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_chunk_fails_the_body() {
    let mut world = world();
    world.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
    sleep(Duration::from_secs(1)).await;
    world.send("2\nhi\r\n0\r\n\r\nGET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let all = world.rest().await;
    assert!(all.ends_with("refused: A line ends with LF instead of CRLF."), "{all}");
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1);
    assert_eq!(world.called(), ["/echo"]);
    assert!(world.refused().is_empty(), "the service answers this one");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_fails() {
    let mut world = world();
    world.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhi").await;
    let start = Instant::now();
    sleep(Duration::from_secs(50)).await;
    world.send("!").await;
    let all = world.rest().await;
    assert!(all.ends_with("failed: TimedOut"), "{all}");
    assert_eq!(start.elapsed().as_secs(), 50 + STALL_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_dropped() {
    let mut world = world();
    world.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let start = Instant::now();
    assert!(world.ended().await.is_err());
    assert_eq!(start.elapsed().as_secs(), STALL_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_early_response_reaches_a_client_that_still_sends() {
    let mut world = world();
    world.send("POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\nhi").await;
    world.until("\r\n\r\ndeaf").await;
    world.send(vec![b'x'; 80_000]).await;
    assert_eq!(world.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_client_ends_the_request_in_flight() {
    let mut world = world();
    world.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    world.until(".....").await;
    world.client.shutdown().await.expect("it is open");
    let start = Instant::now();
    assert!(world.ended().await.is_err());
    assert_eq!(start.elapsed().as_secs(), 0);
    assert_eq!(*world.log.dropped.lock(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_other_protocol_passes_whenever_it_starts() {
    for (behind, later) in [("GET / early\0", ""), ("", "\x01late\r\n"), ("early", "late")] {
        let mut world = world();
        world.send([WEBSOCKET, behind].concat()).await;
        let head = world.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        world.send(later).await;
        world.until(&[behind, later].concat()).await;
        sleep(Duration::from_secs(1000)).await;
        world.send("still").await;
        world.until("still").await;
        world.client.shutdown().await.expect("it is open");
        assert_eq!(world.rest().await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_101_what_follows_is_http() {
    let mut declined = world();
    let request = WEBSOCKET.replace("/ws", "/slow");
    declined.send([&request, GET, &request, "\u{1}frame\r\n"].concat()).await;
    declined.until("\r\n\r\nslow").await;
    declined.until("\r\n\r\nok").await;
    declined.until("\r\n\r\nslow").await;
    let rest = declined.rest().await;
    let ended = declined.ended().await;
    assert!(rest.starts_with("HTTP/1.1 400 "), "{rest:?} {ended:?} {:?}", declined.refused());
    assert_eq!(declined.called(), ["/slow", "/ok", "/slow"]);

    // The 101 of one request is nothing to another one.
    let mut pipelined = world();
    pipelined.send([GET, WEBSOCKET, "raw"].concat()).await;
    pipelined.until("\r\n\r\nok").await;
    pipelined.until("HTTP/1.1 101 ").await;
    pipelined.until("raw").await;
}

#[tokio::test(start_paused = true)]
async fn little_is_kept_while_an_upgrade_is_open() {
    let mut world = world();
    world.send(WEBSOCKET).await;
    let sent = timeout(Duration::from_millis(500), world.send(vec![b'x'; 200_000])).await;
    assert!(sent.is_err(), "the client is not read");
    world.until("\r\n\r\n").await;
    world.until(&"x".repeat(1000)).await;
}

#[tokio::test(start_paused = true)]
async fn an_interim_response_comes_before_the_final_one() {
    let mut world = world();
    let start = Instant::now();
    world.send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(world.until("\r\n\r\n").await, INTERIM);
    assert_eq!(start.elapsed().as_secs(), 0);
    assert!(world.until("hinted").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(start.elapsed().as_secs(), 1);

    world.send("GET /hints-at-once HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2)).await;
    for _ in 0..2 {
        let all = world.until("hinted").await;
        assert!(all.starts_with(&INTERIM.repeat(32)) && all.matches("103").count() == 32, "{all}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interim_response_comes_behind_the_response_before_it() {
    let mut world = world();
    world.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /hints HTTP/1.1\r\nHost: a\r\n\r\n").await;
    sleep(Duration::from_secs(3)).await;
    let all = world.until("hinted").await;
    let (before, after) = all.split_once(INTERIM).expect("it is whole");
    assert!(before.ends_with("\r\n0\r\n\r\n"));
    assert!(after.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_not_idle() {
    let mut world = world();
    world.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut all = Vec::new();
    let mut part = [0; 16 * 1024];
    while !all.ends_with(b"\r\n0\r\n\r\n") {
        sleep(IDLE_TIMEOUT + Duration::from_secs(10)).await;
        let count = world.client.read(&mut part).await.expect("no reset");
        assert_ne!(count, 0, "cut off");
        all.extend_from_slice(&part[..count]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_interim_response_never_divides_what_the_library_writes() {
    let (mut client, mut guard, handle) = bare(1024);
    let mut buf = [0; 64];
    client.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(guard.read(&mut buf).await.unwrap(), GET.len());
    guard.write_all(b"first half, ").await.unwrap();
    assert!(handle.inject(Bytes::from_static(b"interim, ")));
    assert!(timeout(Duration::from_secs(1), guard.read(&mut buf)).await.is_err());
    guard.write_all(b"second half, ").await.unwrap();
    guard.flush().await.unwrap();
    guard.write_all(b"next").await.unwrap();
    let mut written = vec![0; 64];
    let count = client.read(&mut written).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&written[..count]), "first half, second half, interim, next");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_said_of_another_request_opens_nothing() {
    let (mut client, mut guard, handle) = bare(1024);
    let mut buf = [0; 256];
    client.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(guard.read(&mut buf).await.unwrap(), GET.len());
    handle.upgraded();
    handle.request_done();
    guard.flush().await.unwrap();
    client.write_all([WEBSOCKET, "raw"].concat().as_bytes()).await.unwrap();
    assert_eq!(guard.read(&mut buf).await.unwrap(), WEBSOCKET.len());
    assert!(timeout(Duration::from_secs(1), guard.read(&mut buf)).await.is_err());
    handle.upgraded();
    assert_eq!(guard.read(&mut buf).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_idle_guard_holds_no_buffer_and_one_timer() {
    let (mut client, guard, handle) = bare(1024);
    let mut guard = pin!(guard);
    let mut buf = [0; 8];
    for _ in 0..1000 {
        client.write_all(GET.as_bytes()).await.unwrap();
        let mut left = GET.len();
        while left > 0 {
            left -= guard.read(&mut buf).await.unwrap();
        }
        assert!(timeout(Duration::from_millis(1), guard.read(&mut buf)).await.is_err());
        handle.request_done();
        guard.flush().await.unwrap();
    }
    assert_eq!(guard.held.capacity(), 0);
    assert!(size_of::<Guard<DuplexStream>>() < 512, "{}", size_of::<Guard<DuplexStream>>());
    client.shutdown().await.unwrap();
    assert_eq!(guard.read(&mut buf).await.unwrap(), 0);
}

proptest! {
    #[test]
    fn reads_find_what_the_scanner_releases(
        stream in scan::tests::streams(),
        pieces in proptest::collection::vec(1..40_usize, 1..6),
        room in 1..60_usize,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let found = runtime.block_on(read_through(&stream, &pieces, room));
        prop_assert_eq!(found.escape_ascii().to_string(), scan::tests::released(&stream).escape_ascii().to_string());
    }
}

/// Everything a library with `room` bytes of buffer reads when the stream comes in such pieces and each request
/// is done as soon as nothing else happens.
async fn read_through(stream: &[u8], pieces: &[usize], room: usize) -> Vec<u8> {
    let (mut client, mut guard, handle) = bare(1 << 20);
    let mut pieces = pieces.iter().cycle();
    let (mut left, mut found, mut buf) = (stream, Vec::new(), vec![0; room]);
    loop {
        match timeout(Duration::from_millis(1), guard.read(&mut buf)).await {
            Ok(Ok(0) | Err(_)) => return found,
            Ok(Ok(count)) => found.extend_from_slice(&buf[..count]),
            Err(_) if guard.in_flight() > 0 => {
                handle.request_done();
                guard.flush().await.unwrap();
            }
            // The answer to a refused head is on its way.
            Err(_) if guard.end.is_some() => {}
            Err(_) if left.is_empty() => return found,
            Err(_) => {
                let (piece, rest) = left.split_at(left.len().min(*pieces.next().unwrap()));
                client.write_all(piece).await.unwrap();
                left = rest;
            }
        }
    }
}
