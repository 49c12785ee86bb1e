//! A tunnel under churn for as long as one likes: requests of all sizes, aborted downloads and uploads, upgraded
//! connections, agents that are killed and come back, a network that is cut and falls silent. Every answer is right,
//! nothing is posted twice, and memory, files and tasks stay what they are.
//!
//! `cargo xtask soak --minutes 60` runs it for an hour. An ordinary test run gives it some seconds, CI two minutes.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::support::data::{self, Data};
use crate::support::http::{Connection, Request};
use crate::support::link::Link;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, pause, time, until};
use crate::support::world::{Agent, Gateway, GatewayFile, World};

const SHORT: Duration = Duration::from_secs(20);
/// More than anything may take; what takes longer hangs.
const DEADLINE: Duration = SOON;
/// How long a fault and the rest behind it take together.
const CYCLE: Duration = Duration::from_secs(5);
const FILE: GatewayFile<'_> = GatewayFile { http: None, more: "limits: {agent_wait: 5s}\n" };
const MIB: f64 = 1024.0 * 1024.0;

/// A number from a generator (xorshift64*) of the client's own.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % n
    }

    /// Mostly small, sometimes large.
    fn size(&mut self) -> u64 {
        let most = [200, 20_000, 20_000, 200_000, 2_000_000][usize::try_from(self.below(5)).unwrap()];
        self.below(most)
    }
}

#[derive(Debug, Default)]
struct Tally {
    ends: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<String>>,
    posts: AtomicU64,
    is_over: AtomicBool,
}

impl Tally {
    fn count(&self, end: impl Into<String>) {
        *self.ends.lock().entry(end.into()).or_default() += 1;
    }

    /// Whether everything that clients do has gone well some times.
    fn has_seen_enough(&self) -> bool {
        let ends = self.ends.lock();
        CLIENTS.iter().all(|(name, ..)| ends.get(&format!("{name}: ok")).is_some_and(|times| *times > 10))
    }

    fn fault(&self, what: String) {
        self.faults.lock().push(what);
    }

    /// Sorts an error: those that an outage explains are counted, one that took too long is a fault.
    fn failed(&self, what: &str, error: &io::Error, took: Duration) {
        if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
            self.fault(format!("{what} hung for {took:?}: {error}"));
        }
        self.count(format!("{what}: {:?}", error.kind()));
    }
}

type Client = fn(SocketAddr, &mut Random, &Tally) -> io::Result<()>;

/// What clients do, and how many do it.
const CLIENTS: &[(&str, usize, Client)] = &[
    ("get", 4, get),
    ("post", 3, post),
    ("aborted download", 1, abort_download),
    ("aborted upload", 1, abort_upload),
    ("upgrade", 2, upgrade),
];

fn client(name: &'static str, act: Client, public: SocketAddr, mut random: Random, tally: &Tally) {
    while !tally.is_over.load(Ordering::Relaxed) {
        let started = Instant::now();
        match act(public, &mut random, tally) {
            Ok(()) => tally.count(format!("{name}: ok")),
            Err(error) => {
                tally.failed(name, &error, started.elapsed());
                pause();
            }
        }
    }
}

/// Some requests on one connection.
fn get(public: SocketAddr, random: &mut Random, tally: &Tally) -> io::Result<()> {
    let mut connection = Connection::open(public, DEADLINE)?;
    for _ in 0..=random.below(10) {
        let size = random.size();
        let path = format!("/bytes/{size}");
        connection.within(DEADLINE).send(&Request::get("soak", &path))?;
        let head = connection.head()?;
        if !head.first.contains(" 200 ") {
            drop(data::digest(connection.body(&head))?);
            tally.count(format!("get: {}", head.field("adit-reason").unwrap_or("no reason")));
            return Ok(());
        }
        if data::digest(connection.body(&head))? != Data::new(size).digest() {
            tally.fault(format!("GET {path} brought other bytes"));
        }
    }
    Ok(())
}

fn post(public: SocketAddr, random: &mut Random, tally: &Tally) -> io::Result<()> {
    let size = random.size().min(300_000);
    let mut body = Vec::new();
    Data::new(size).read_to_end(&mut body)?;
    let path = format!("/once/{}", tally.posts.fetch_add(1, Ordering::Relaxed));
    let response = Connection::open(public, DEADLINE)?.exchange(&Request::post("soak", &path, &body))?;
    match response.status {
        200 if response.text() == Data::new(size).digest() => {}
        200 => tally.fault(format!("POST {path} arrived as {}", response.text())),
        _ => tally.count(format!("post: {}", response.head.field("adit-reason").unwrap_or("no reason"))),
    }
    Ok(())
}

/// Reads a part of a large body, and leaves.
fn abort_download(public: SocketAddr, random: &mut Random, _tally: &Tally) -> io::Result<()> {
    let mut connection = Connection::open(public, DEADLINE)?;
    connection.send(&Request::get("soak", "/bytes/50000000"))?;
    let head = connection.head()?;
    let mut part = vec![0; usize::try_from(1 + random.size()).unwrap()];
    connection.body(&head).read(&mut part).map(drop)
}

/// Sends a part of a large body, and leaves.
fn abort_upload(public: SocketAddr, random: &mut Random, _tally: &Tally) -> io::Result<()> {
    let mut connection = Connection::open(public, DEADLINE)?;
    let part = vec![7; usize::try_from(random.size()).unwrap()];
    let writer = connection.writer();
    writer.write_all(b"POST /digest HTTP/1.1\r\nhost: soak\r\ncontent-length: 50000000\r\n\r\n")?;
    writer.write_all(&part)?;
    // Nobody answers this one, so nothing else paces it.
    pass(Duration::from_millis(50));
    Ok(())
}

/// An upgraded connection that echoes for a while.
fn upgrade(public: SocketAddr, random: &mut Random, tally: &Tally) -> io::Result<()> {
    let mut connection = Connection::open(public, DEADLINE)?;
    connection
        .writer()
        .write_all(b"GET /raw HTTP/1.1\r\nhost: soak\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n")?;
    let head = connection.head()?;
    if !head.first.contains(" 101 ") {
        tally.count(format!("upgrade: {}", head.field("adit-reason").unwrap_or("no reason")));
        return Ok(());
    }
    for _ in 0..random.below(30) {
        let mut sent = Vec::new();
        Data::new(1 + random.below(10_000)).read_to_end(&mut sent)?;
        connection.within(DEADLINE).writer().write_all(&sent)?;
        let mut got = vec![0; sent.len()];
        connection.raw().read_exact(&mut got)?;
        if got != sent {
            tally.fault("an upgraded connection brought other bytes".to_owned());
        }
    }
    Ok(())
}

/// What must not grow: memory, files and tasks of the gateway and of the agent that stays.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: f64,
    /// Bytes resident, of both.
    memory: [f64; 2],
    files: [f64; 2],
    tasks: [f64; 2],
}

fn sample(gateway: &Gateway, steady: &Agent, started: Instant) -> Sample {
    let scrapes = [gateway.scrape(), steady.scrape()];
    let of = |name: &str| [scrapes[0].sum(name, &[]), scrapes[1].sum(name, &[])];
    Sample {
        at: started.elapsed().as_secs_f64(),
        memory: of("process_resident_memory_bytes"),
        files: of("process_open_fds"),
        tasks: of("tokio_alive_tasks"),
    }
}

/// The least of a figure in each half of the time behind the warm-up: what is held grows, what is used does not.
fn floors(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> (f64, f64) {
    let end = samples.last().unwrap().at;
    let warm: Vec<_> = samples.iter().filter(|sample| sample.at > end / 4.0).collect();
    let floor = |part: &[&Sample]| part.iter().map(|sample| figure(sample)).fold(f64::MAX, f64::min);
    let (early, late) = warm.split_at(warm.len() / 2);
    (floor(early), floor(late))
}

/// The agent whose life is hard, and the link it uses.
struct Victim<'w> {
    world: &'w World,
    services: [(&'w str, &'w str); 1],
    link: Link,
    agent: Agent,
}

impl Victim<'_> {
    /// One fault; what it interrupts goes on before the next.
    fn suffers(&mut self, kind: u64) -> &'static str {
        match kind {
            0 => {
                self.agent.process.kill();
                self.agent = self.world.lone_agent(self.link.addr, &self.services, "");
                "an agent was killed"
            }
            1 => {
                self.link.cuts();
                "the link was cut"
            }
            2 => {
                self.link.resets();
                "the link was reset"
            }
            3 => {
                drop(self.link.forgets_the_agent());
                "the link was forgotten"
            }
            4 => {
                self.link.falls_silent();
                "the link fell silent"
            }
            _ => {
                self.link.loses_what_the_agent_sends();
                "the link lost one direction"
            }
        }
    }
}

#[test]
fn under_churn_every_answer_is_right_nothing_is_posted_twice_and_nothing_grows() {
    let time = time("ADIT_SOAK_SECONDS", SHORT);
    let (world, upstream) = (World::new(), Upstream::start());
    let gateway = world.gateway(FILE);
    let url = upstream.url();
    let services = [("*", url.as_str())];
    let steady = world.agent(&gateway, &services, "");
    let hard = world.another();
    let link = Link::to(gateway.control);
    let agent = hard.lone_agent(link.addr, &services, "");
    let mut victim = Victim { world: &hard, services, link, agent };
    until("both agents are there", SOON, || agents(&gateway, 2.0));
    let started = Instant::now();
    let base = sample(&gateway, &steady, started);

    let tally = Arc::new(Tally::default());
    let mut threads = Vec::new();
    let mut random = Random(7);
    for &(name, count, act) in CLIENTS {
        for _ in 0..count {
            let (tally, public, seed) = (Arc::clone(&tally), gateway.public(), random.below(u64::MAX) | 1);
            threads.push(std::thread::spawn(move || client(name, act, public, Random(seed), &tally)));
        }
    }
    let mut samples = Vec::new();
    let mut faults: BTreeMap<&str, u32> = BTreeMap::new();
    // A busy machine may take longer until everything has gone well often enough.
    while started.elapsed() < time || !tally.has_seen_enough() {
        assert!(started.elapsed() < time + 3 * SOON, "hardly anything goes well: {:#?}", tally.ends.lock());
        let cycle = Instant::now();
        *faults.entry(victim.suffers(random.below(6))).or_default() += 1;
        let lasts = Duration::from_millis(500 + random.below(7_000));
        pass(lasts.min(CYCLE));
        victim.link.is_back();
        pass(CYCLE.saturating_sub(cycle.elapsed()));
        samples.push(sample(&gateway, &steady, started));
    }
    tally.is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    until("both agents are there again", SOON, || agents(&gateway, 2.0));
    eprintln!("{:#?}\n{faults:?}", tally.ends.lock());
    report(&samples);
    is_right(&tally, &upstream);
    does_not_grow(&samples);
    is_at_rest(&gateway, [&steady, &victim.agent], base, started);
}

fn agents(gateway: &Gateway, wanted: f64) -> Result<(), String> {
    let count = gateway.scrape().sum("adit_sessions", &[]);
    if (count - wanted).abs() < 0.5 { Ok(()) } else { Err(format!("{count} sessions")) }
}

/// Lets time pass: the churn is what happens in it.
fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        pause();
    }
}

#[track_caller]
fn is_right(tally: &Tally, upstream: &Upstream) {
    assert_eq!(*tally.faults.lock(), Vec::<String>::new());
    let twice: Vec<_> = upstream.posts().into_iter().filter(|(_, times)| *times > 1).collect();
    assert_eq!(twice, [], "posted more than once");
}

fn report(samples: &[Sample]) {
    for (role, name) in ["gateway", "agent"].into_iter().enumerate() {
        let (early, late) = floors(samples, |sample| sample.memory[role]);
        let most = samples.iter().map(|sample| sample.memory[role]).fold(0.0, f64::max);
        let (files, tasks) = (floors(samples, |s| s.files[role]), floors(samples, |s| s.tasks[role]));
        eprintln!(
            "{name}: memory {:.1} to {:.1} MiB, at most {:.1}; files {files:?}; tasks {tasks:?}",
            early / MIB,
            late / MIB,
            most / MIB
        );
    }
}

#[track_caller]
fn does_not_grow(samples: &[Sample]) {
    // A short run has nothing to compare, and in one of some minutes how busy the machine is says more than what is
    // held. What is left of files and tasks is seen at rest, after each run.
    let (share, least) = match samples.len() {
        ..12 => return,
        12..120 => (1.25, 16.0 * MIB),
        _ => (1.05, 4.0 * MIB),
    };
    for role in 0..2 {
        let (early, late) = floors(samples, |sample| sample.memory[role]);
        assert!(late < early * share + least, "memory grew from {early} to {late}: {samples:#?}");
        if samples.len() < 120 {
            continue;
        }
        for figure in [|sample: &Sample| sample.files, |sample: &Sample| sample.tasks] {
            let (early, late) = floors(samples, |sample| figure(sample)[role]);
            assert!(late <= early + 20.0, "files or tasks grew from {early} to {late}: {samples:#?}");
        }
    }
}

/// Without load there is nothing but what there was before.
#[track_caller]
fn is_at_rest(gateway: &Gateway, [steady, other]: [&Agent; 2], base: Sample, started: Instant) {
    until("nothing is left of the churn", 2 * SOON, || {
        let now = sample(gateway, steady, started);
        let scrape = gateway.scrape();
        let open = scrape.sum("adit_flows", &[]) + scrape.sum("adit_public_connections", &[]);
        // Idle streams are kept for the next request: a task at the gateway, two and a file at their agent.
        let streams = |agent: &Agent| agent.scrape().sum("adit_agent_streams", &[]);
        let (own, others) = (streams(steady), streams(other));
        // The scrapes are connections themselves.
        let is_base = now.files[0] <= base.files[0] + 3.0
            && now.files[1] <= base.files[1] + 3.0 + own
            && now.tasks[0] <= base.tasks[0] + 6.0 + own + others
            && now.tasks[1] <= base.tasks[1] + 6.0 + 2.0 * own;
        if open < 0.5 && is_base {
            Ok(())
        } else {
            Err(format!("{open} open, {own} and {others} streams, {now:?}, before {base:?}"))
        }
    });
}
