//! Peers that mean harm: agents that a gateway has let in, strangers it has not, and a gateway that an agent trusts.
//! Each loses its own connection for the right reason; nobody else notices, and no memory is left behind.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_testkit::certificate::{credulous, self_signed};
use adit_testkit::proto::frame::{self, HEADER_LEN, Kind};
use adit_testkit::proto::header::StreamHeader;
use adit_testkit::session::introduce;
use adit_testkit::tunnel::{handshake, proof::TokenKey, tls};
use adit_testkit::wire::Io;
use adit_testkit::{Wire, within};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::support::http::{Connection, Request};
use crate::support::load::files;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, pause, until};
use crate::support::world::{Agent, Gateway, GatewayFile, World, peak_memory_kib};

const FILE: GatewayFile<'_> = GatewayFile { http: None, more: "limits: {agent_wait: 500ms}\n" };
/// Longer than any handshake may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What all of it together may cost at most, in KiB.
const COST: u64 = 64 * 1024;
/// Frames of a flood.
const FLOOD: usize = 200_000;
const CHUNK: &[u8] = &[b'x'; 64 * 1024];

fn put(kind: Kind, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put(&mut out, kind, stream, payload);
    out.to_vec()
}

/// A frame as nobody of ours would write it.
fn raw(kind: u8, stream: u32, len: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.push(kind);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn open(stream: u32, service: &str) -> Vec<u8> {
    let header = StreamHeader {
        service: service.parse().unwrap(),
        client_addr: None,
        connect_timeout: Duration::from_secs(1),
    };
    let mut payload = BytesMut::new();
    header.encode(&mut payload);
    put(Kind::Open, stream, &payload)
}

/// What a stranger does: its name, the protocol it agrees on if it speaks TLS at all, and what it says.
type Stranger = (&'static str, Option<&'static [u8]>, Vec<u8>);
type Says = fn() -> Vec<u8>;
type SaysOn = fn(u32) -> Vec<u8>;

/// What breaks the protocol whoever says it.
const WRONG: &[(&str, Says)] = &[
    ("a frame of an unknown kind", || raw(200, 1, 1, b"x")),
    ("a frame longer than any", || raw(6, 1, 0xff_ffff, b"")),
    ("an empty frame of data", || raw(6, 1, 0, b"")),
    ("data on a stream that never was", || put(Kind::Data, 41, b"x")),
    ("an end of a stream that never was", || put(Kind::Fin, 42, b"")),
    ("a second hello", || put(Kind::Hello, 0, b"x")),
    ("a probe on a stream", || raw(10, 5, 8, &[0; 8])),
    ("a reset that is too short", || raw(8, 1, 1, b"x")),
    ("credit for a stream that never was", || put(Kind::Window, 43, &[0, 0, 0, 1])),
    ("credit for the session", || raw(9, 0, 4, &[0, 0, 0, 1])),
    ("HTTP", || b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
    ("noise", || vec![0xff; 64]),
];

/// What breaks it on a stream that is open.
const WRONG_ON: &[(&str, SaysOn)] = &[
    ("more than its credit", |id| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
        [put(Kind::Data, id, head), put(Kind::Data, id, CHUNK).repeat(400)].concat()
    }),
    ("data behind its end", |id| [put(Kind::Fin, id, b""), put(Kind::Data, id, b"x")].concat()),
    ("credit beyond any number", |id| put(Kind::Window, id, &[0xff; 4]).repeat(2)),
];

/// What is allowed once and a nuisance in bulk.
const FLOODS: &[(&str, SaysOn)] = &[
    ("probes", |_| put(Kind::Ping, 0, &[7; 8])),
    ("answers that nobody asked for", |_| put(Kind::Pong, 0, &[7; 8])),
    ("credit byte by byte", |id| put(Kind::Window, id, &[0, 0, 0, 1])),
    ("resets", |id| put(Kind::Reset, id, &[0, 64])),
    ("confirmations", |id| put(Kind::Opened, id, b"")),
    ("goodbyes", |_| put(Kind::Goaway, 0, &[0, 50])),
];

/// Somebody else's requests, which must not notice anything.
struct Bystander {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Bystander {
    fn start(public: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            let mut connection = Connection::open(public, SOON).unwrap();
            while !over.load(Ordering::Relaxed) {
                let started = Instant::now();
                let said = connection.within(SOON).exchange(&Request::get("honest.example", "/hello"));
                let said = said.unwrap_or_else(|error| panic!("a bystander was hurt: {error}"));
                assert_eq!(said.status, 200, "a bystander was hurt: {:?}", said.head);
                took.push(started.elapsed());
                pause();
            }
            took
        });
        Self { is_over, thread }
    }

    /// How long requests took: the median, and the longest.
    fn stop(self) -> (usize, Duration, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().unwrap();
        took.sort();
        (took.len(), took[took.len() / 2], took[took.len() - 1])
    }
}

/// Somebody who asked for something of an intruder.
struct Client {
    asked: mpsc::Sender<()>,
    thread: JoinHandle<io::Result<u16>>,
}

impl Client {
    /// The status of the response, if it came whole.
    fn status(self) -> io::Result<u16> {
        drop(self.asked);
        self.thread.join().unwrap()
    }
}

/// A gateway with an honest agent, and what both were before anything happened.
struct Scene {
    world: World,
    _upstream: Upstream,
    gateway: Gateway,
    agent: Agent,
    files: [f64; 2],
    memory: u64,
    bystander: Bystander,
}

impl Scene {
    fn start() -> Self {
        let (world, upstream) = (World::new(), Upstream::start());
        let gateway = world.gateway(FILE);
        let agent = world.agent(&gateway, &[("honest.example", &upstream.url())], "");
        let bystander = Bystander::start(gateway.public());
        until("the bystander is served", SOON, || {
            crate::support::http::text(gateway.public(), "honest.example", "/hello")
        });
        let memory = peak_memory_kib(gateway.process.pid());
        Self { files: files(&gateway, &agent), world, _upstream: upstream, gateway, agent, memory, bystander }
    }

    fn ended(&self, reason: &str) -> f64 {
        self.gateway.scrape().sum("adit_sessions_ended_total", &[&format!("reason=\"{reason}\"")])
    }

    /// An agent that was let in, offering a host of its own.
    async fn intruder(&self, generation: u64) -> Wire {
        let who = (66, generation);
        let hosts = ["evil.example"];
        let tls = credulous(&[b"adit/1"]);
        let introduced = introduce(&tls, self.gateway.control, &self.world.token, who, &hosts).await;
        Wire::new(introduced.unwrap().0, 0)
    }

    /// A client of the intruder's host, which takes nothing of a response until it is asked what became of its request.
    fn client(&self, body: usize) -> Client {
        let public = self.gateway.public();
        let (asked, is_asked) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let body = vec![b'y'; body];
            let mut connection = Connection::open(public, SOON)?;
            connection.send(&Request::post("evil.example", "/", &body))?;
            // Whatever is sent until then is not taken.
            is_asked.iter().for_each(drop);
            connection.response().map(|response| response.status)
        });
        Client { asked, thread }
    }

    /// Only the honest session is left, and nothing of the others.
    #[track_caller]
    fn stays_unharmed(self, what: &str) {
        until("only the honest session is left", SOON, || {
            let count = self.gateway.scrape().sum("adit_sessions", &[]);
            if (count - 1.0).abs() < 0.5 { Ok(()) } else { Err(format!("{count} sessions")) }
        });
        let (requests, median, longest) = self.bystander.stop();
        until("files are back where they began", SOON, || {
            let now = files(&self.gateway, &self.agent);
            let is_base = now.iter().zip(self.files).all(|(now, base)| *now <= base + 3.0);
            if is_base { Ok(()) } else { Err(format!("{now:?}, before {:?}", self.files)) }
        });
        let cost = peak_memory_kib(self.gateway.process.pid()).saturating_sub(self.memory);
        eprintln!(
            "{what}: {requests} requests of a bystander took {median:?}, at most {longest:?}; {cost} KiB more memory"
        );
        assert!(cost < COST, "{cost} KiB more at the peak");
    }
}

/// The next stream that is opened on a connection whose frames are read here.
async fn opened(wire: &mut Wire) -> u32 {
    loop {
        let header = wire.take(HEADER_LEN).await;
        let header = frame::FrameHeader::decode(header.try_into().unwrap()).unwrap();
        wire.take(header.len).await;
        if header.kind == Kind::Open {
            return header.stream;
        }
    }
}

/// Reads a frame, answers what has to be answered, and says how much of a body it was.
async fn taken(wire: &mut Wire) -> usize {
    let header = wire.take(HEADER_LEN).await;
    let header = frame::FrameHeader::decode(header.try_into().unwrap()).unwrap();
    let payload = wire.take(header.len).await;
    match header.kind {
        Kind::Data | Kind::Fin => return header.len,
        Kind::Open => wire.send(put(Kind::Opened, header.stream, b"")).await,
        Kind::Ping => wire.send(put(Kind::Pong, 0, &payload)).await,
        _ => {}
    }
    0
}

#[test]
fn an_agent_that_breaks_the_protocol_loses_its_session_for_that_and_harms_nobody() {
    let scene = Scene::start();
    Runtime::new().unwrap().block_on(async {
        let mut generation = 1;
        for (name, says) in WRONG {
            let before = scene.ended("protocol_error");
            generation += 1;
            let mut wire = scene.intruder(generation).await;
            drop(wire.try_send(says()).await);
            within(name, wire.ended()).await;
            let so = || scene.ended("protocol_error") - before;
            until(&format!("{name} is a protocol error"), SOON, || {
                if so() > 0.5 { Ok(()) } else { Err(String::new()) }
            });
        }
        for (name, says) in WRONG_ON {
            let before = scene.ended("protocol_error");
            generation += 1;
            let mut wire = scene.intruder(generation).await;
            let client = scene.client(10);
            let id = opened(&mut wire).await;
            drop(timeout(PATIENCE, wire.try_send(says(id))).await);
            within(name, wire.ended()).await;
            let so = || scene.ended("protocol_error") - before;
            until(&format!("{name} is a protocol error"), SOON, || {
                if so() > 0.5 { Ok(()) } else { Err(String::new()) }
            });
            let status = client.status();
            // A response that had begun is cut.
            assert!(status.as_ref().map_or(true, |status| *status == 502), "{name}: {status:?}");
        }
    });
    scene.stays_unharmed("broken protocols");
}

#[test]
fn floods_of_frames_harm_nobody() {
    let scene = Scene::start();
    Runtime::new().unwrap().block_on(async {
        for (at, (name, says)) in FLOODS.iter().enumerate() {
            let mut wire = scene.intruder(at as u64 + 2).await;
            let client = scene.client(10);
            let id = opened(&mut wire).await;
            let flood = says(id).repeat(FLOOD / 100);
            let sent = timeout(Duration::from_secs(3), async {
                for _ in 0..100 {
                    if wire.try_send(&flood).await.is_err() {
                        return;
                    }
                }
            });
            eprintln!("{name}: taken to the end: {}", sent.await.is_ok());
            drop(wire);
            drop(client.status());
        }
    });
    scene.stays_unharmed("floods");
}

#[test]
fn agents_that_take_nothing_or_fall_silent_in_a_frame_harm_nobody() {
    let scene = Scene::start();
    Runtime::new().unwrap().block_on(async {
        // It grants no credit, and answers probes so that it is not taken for dead.
        let mut wire = scene.intruder(2).await;
        let client = scene.client(20_000_000);
        let mut got = 0;
        let begins = async {
            while got == 0 {
                got += taken(&mut wire).await;
            }
        };
        within("something of the body", begins).await;
        let goes_on = async {
            loop {
                got += taken(&mut wire).await;
            }
        };
        assert!(timeout(Duration::from_secs(3), goes_on).await.is_err());
        assert!(got <= 128 * 1024, "{got} bytes came without credit");
        drop(wire);
        drop(client.status());

        let before = scene.ended("session_timeout");
        let mut wire = scene.intruder(3).await;
        let client = scene.client(10);
        let id = opened(&mut wire).await;
        let response = [b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n", &CHUNK[..9000]].concat();
        wire.send([&put(Kind::Opened, id, b""), &put(Kind::Data, id, &response)[..1000]].concat()).await;
        let started = Instant::now();
        until("its session is given up", SOON, || {
            if scene.ended("session_timeout") > before { Ok(()) } else { Err("it stands".to_owned()) }
        });
        eprintln!("given up after {:?}: {:?}", started.elapsed(), client.status());
    });
    scene.stays_unharmed("silence");
}

#[test]
fn strangers_that_do_not_get_to_a_hello_are_let_go_in_time() {
    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let scene = Scene::start();
    let control = scene.gateway.control;
    let hello = put(Kind::Hello, 0, &[1; 300]);
    // Masked as clients must, with a mask of zeros, or not.
    let strangers: Vec<Stranger> = vec![
        ("nothing at all", None, Vec::new()),
        ("half a TLS hello", None, vec![22, 3, 1, 2, 0, 1, 0]),
        ("no TLS", None, b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("nothing behind TLS", Some(b"adit/1"), Vec::new()),
        ("half a hello", Some(b"adit/1"), hello[..100].to_vec()),
        ("a hello that is none", Some(b"adit/1"), hello.clone()),
        ("a hello longer than any", Some(b"adit/1"), raw(1, 0, 0xff_ffff, &[1; 1000])),
        ("a stream before a hello", Some(b"adit/1"), open(1, "evil.example")),
        ("nothing behind an upgrade", Some(b"http/1.1"), UPGRADE.to_vec()),
        ("an unmasked message", Some(b"http/1.1"), [UPGRADE, &[0x82, 2, 1, 2]].concat()),
        ("a text message", Some(b"http/1.1"), [UPGRADE, &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']].concat()),
        (
            "a message longer than any",
            Some(b"http/1.1"),
            [UPGRADE, &[0x82, 0xff], &[0x7f; 8], &[0; 4]].concat(),
        ),
        ("a part of no message", Some(b"http/1.1"), [UPGRADE, &[0x80, 0x80, 0, 0, 0, 0]].concat()),
        ("a kind of message that is none", Some(b"http/1.1"), [UPGRADE, &[0x83, 0x80, 0, 0, 0, 0]].concat()),
    ];
    Runtime::new().unwrap().block_on(async {
        let started = Instant::now();
        let mut waits = Vec::new();
        for (name, alpn, says) in strangers {
            let mut wire = match alpn {
                None => Wire::tcp(control).await,
                Some(alpn) => Wire::tls(control, &credulous(&[alpn])).await,
            };
            wire.send(&says).await;
            waits.push(
                async move { (name, timeout(PATIENCE, wire.ended()).await.is_ok(), started.elapsed()) },
            );
        }
        // A hello that comes a byte at a time has no more time than any other.
        let mut slow = Wire::tls(control, &credulous(&[b"adit/1"])).await;
        let dripping = async {
            for byte in hello.iter().cycle() {
                if slow.try_send([*byte]).await.is_err() || started.elapsed() > PATIENCE {
                    break;
                }
                // tidy: allow(sleep): slowness is what is tested
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        dripping.await;
        assert!(started.elapsed() < PATIENCE, "a slow hello was listened to for {:?}", started.elapsed());
        for wait in waits {
            let (name, ended, after) = wait.await;
            assert!(ended, "{name} was not let go after {after:?}");
        }
    });
    scene.stays_unharmed("strangers");
}

/// A gateway of the test's own making, up to where its agent believes it.
async fn believed(listener: &TcpListener, acceptor: &TlsAcceptor, token: &str) -> Box<dyn Io> {
    loop {
        let (tcp, _): (TcpStream, _) = within("the agent to come", listener.accept()).await.unwrap();
        let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
        let exporter = tls::exporter(stream.get_ref().1).unwrap();
        let Ok(_hello) = handshake::read_hello(&mut stream).await else { continue };
        let agreement = handshake::Agreement { version: 1, release: "hostile", ..Default::default() };
        let credential = handshake::Credential::Token(TokenKey::new(token.as_bytes()));
        let welcome = handshake::welcome(agreement, &credential, &exporter);
        stream.write_all(&welcome).await.unwrap();
        stream.flush().await.unwrap();
        return Box::new(stream);
    }
}

#[test]
fn a_gateway_that_means_harm_gets_nothing_out_of_an_agent_but_what_it_offers() {
    let (world, upstream) = (World::new(), Upstream::start());
    Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acceptor = TlsAcceptor::from(self_signed(&[b"adit/1"]));
        let services = [("honest.example", upstream.url()), ("status.example", "http_status:204".to_owned())];
        let services: Vec<_> = services.iter().map(|(host, url)| (*host, url.as_str())).collect();
        let mut agent = world.lone_agent(listener.local_addr().unwrap(), &services, "");
        let first = believed(&listener, &acceptor, &world.token).await;
        let memory = peak_memory_kib(agent.process.pid());
        drop(first);

        for (name, says) in WRONG.iter().chain(&[
            ("a stream that only an agent opens", (|| open(2, "honest.example")) as Says),
            ("a stream twice", || open(1, "honest.example").repeat(2)),
            ("a stream for what is no service", || put(Kind::Open, 1, &[0xff; 9])),
        ]) {
            let reason = "reason=\"protocol_error\"";
            let count = || agent.scrape().sum("adit_agent_sessions_ended_total", &[reason]);
            let before = count();
            let mut io = believed(&listener, &acceptor, &world.token).await;
            io.write_all(&says()).await.unwrap();
            io.flush().await.unwrap();
            drop(timeout(PATIENCE, io.read_to_end(&mut Vec::new())).await);
            until(&format!("{name} is a protocol error"), SOON, || {
                if count() > before { Ok(()) } else { Err("it is not".to_owned()) }
            });
        }

        // What it does not offer is not reached, whatever it looks like; what it offers is, and no more at once than
        // it says.
        let mut io = believed(&listener, &acceptor, &world.token).await;
        let strange = ["evil.example", "127.0.0.1", "metadata.example", "*.honest.example", "*"];
        let mut id = 1;
        for service in strange.iter().cycle().take(1000) {
            io.write_all(&open(id, service)).await.unwrap();
            id += 2;
        }
        io.flush().await.unwrap();
        let mut resets = 0;
        while resets < 1000 {
            let mut header = [0; HEADER_LEN];
            within("a refusal", io.read_exact(&mut header)).await.unwrap();
            let header = frame::FrameHeader::decode(header).unwrap();
            let mut payload = vec![0; header.len];
            io.read_exact(&mut payload).await.unwrap();
            assert!(!matches!(header.kind, Kind::Opened | Kind::Data), "{header:?}");
            resets += usize::from(header.kind == Kind::Reset);
        }
        assert_eq!(upstream.posts().len(), 0);
        let flood: Vec<u8> = (0..10_000).flat_map(|n| open(id + n * 2, "status.example")).collect();
        let reset: Vec<u8> = (0..10_000).flat_map(|n| put(Kind::Reset, id + n * 2, &[0, 64])).collect();
        let (mut from, mut to) = tokio::io::split(io);
        let flooding = async {
            to.write_all(&flood).await?;
            to.write_all(&reset).await?;
            to.flush().await
        };
        let draining = async {
            let mut buffer = vec![0; 64 * 1024];
            while matches!(from.read(&mut buffer).await, Ok(1..)) {}
        };
        tokio::select! {
            sent = timeout(PATIENCE, flooding) => drop(sent),
            () = draining => {}
        }
        drop((from, to));
        until("no stream is left", SOON, || {
            let streams = agent.scrape().sum("adit_agent_streams", &[]);
            if streams < 0.5 { Ok(()) } else { Err(format!("{streams} streams")) }
        });
        let cost = peak_memory_kib(agent.process.pid()).saturating_sub(memory);
        eprintln!("a hostile gateway cost its agent {cost} KiB more memory");
        assert!(cost < COST, "{cost} KiB more at the peak");
        assert!(agent.process.ended().is_none());
    });
}
