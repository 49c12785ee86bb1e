//! A herd of agents that come back to a gateway at once: how long it takes, what fails, what it costs.
//!
//! `cargo run --release -p adit-testkit --example herd -- target/release/adit 1000`
//!
//! Starts the gateway of that binary, connects that many agents from this one process, kills the gateway, starts it
//! again, and tells when all were back. Both ends share the machine, so half of the work is the agents'.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a command for developers: a surprise ends it, and what it finds is printed"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_agent::config::{Credential, GatewayUrl, Service, Transport, Verify};
use adit_agent::{Agent, Config};
use adit_testkit::certificate::credulous;
use adit_testkit::samples::Samples;
use adit_testkit::wire::Wire;
use adit_tunnel::proof::TokenKey;
use adit_tunnel::proxy::Egress;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};

const TOKEN: &str = "a-token-for-the-herd";

/// A gateway process.
struct Gateway {
    binary: PathBuf,
    file: PathBuf,
    control: SocketAddr,
    public: SocketAddr,
    child: Child,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(binary: &Path, file: &Path) -> Child {
    Command::new(binary)
        .args(["gateway", "-f"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env("STATE_DIRECTORY", file.parent().unwrap())
        .spawn()
        .unwrap()
}

impl Gateway {
    async fn start(binary: PathBuf, directory: &Path) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (control, public) = (free(), free());
        let file = directory.join("gateway.yaml");
        std::fs::write(directory.join("token"), TOKEN).unwrap();
        let text = format!(
            "control: {{listen: '{control}'}}\nhttp: [{{listen: '{public}'}}]\n\
             tokens: [{{name: default, token: 'file:token'}}]\nlimits: {{max_sessions: 50000}}\nlog: {{level: warn}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let child = spawn(&binary, &file);
        let gateway = Self { binary, file, control, public, child };
        gateway.answers().await;
        gateway
    }

    /// Ends the process at once and starts the next one.
    fn restart(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        self.child = spawn(&self.binary, &self.file);
    }

    async fn answers(&self) {
        while tokio::net::TcpStream::connect(self.public).await.is_err() {
            // tidy: allow(sleep): measures what happens in time, and is no test
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn samples(&self) -> Option<Samples> {
        let asked = tokio::time::timeout(Duration::from_secs(30), async {
            let mut wire = Wire::tls(self.control, &credulous(&[b"http/1.1"])).await;
            wire.send(format!(
                "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
            ))
            .await;
            Samples::parse(&wire.reply_to("GET").await.text())
        });
        asked.await.ok()
    }

    /// Anonymous memory, in KiB.
    fn memory(&self) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    /// CPU time, in seconds.
    fn cpu(&self) -> f64 {
        cpu(&self.child.id().to_string())
    }
}

fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks: Vec<f64> = rest.split(' ').skip(11).take(2).map(|text| text.parse().unwrap()).collect();
    (ticks[0] + ticks[1]) / 100.0
}

/// Counts what agents say about their attempts, by result.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<BTreeMap<String, usize>>>);

impl Told {
    fn opened(&self) -> usize {
        self.0.lock().get("opened").copied().unwrap_or(0)
    }
}

struct Result_(String);

impl Visit for Result_ {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "result" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" && text == "session opened" && self.0.is_empty() {
            "opened".clone_into(&mut self.0);
        }
    }
}

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut result = Result_(String::new());
        event.record(&mut result);
        if !result.0.is_empty() {
            *self.0.lock().entry(result.0).or_default() += 1;
        }
    }
    fn enter(&self, _span: &tracing::span::Id) {}
    fn exit(&self, _span: &tracing::span::Id) {}
}

fn config(number: usize, control: SocketAddr) -> Config {
    Config {
        gateways: vec![GatewayUrl {
            host: control.ip().to_string(),
            port: control.port(),
            transport: Transport::Auto,
        }],
        each_address: false,
        egress: Egress::direct(),
        credential: Credential::Token(TokenKey::new(TOKEN.as_bytes())),
        verify: Verify::TokenProof,
        services: vec![Service {
            name: format!("a{number}.example").parse().unwrap(),
            upstream: "http_status:204".parse().unwrap(),
        }],
        forwards: Vec::new(),
        dials: false,
        listen: None,
        drain_timeout: Duration::from_secs(1),
        process_log: None,
        revision: "herd",
    }
}

async fn all_connected(gateway: &Gateway, count: usize) -> Samples {
    loop {
        if let Some(samples) = gateway.samples().await
            && samples.sum("adit_sessions", &[]) > count as f64 - 0.5
        {
            return samples;
        }
        // tidy: allow(sleep): measures what happens in time, and is no test
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Answers of one agent's service while the others come back.
#[expect(clippy::infinite_loop, reason = "ends when its task is dropped")]
async fn probe(public: SocketAddr, worst: Arc<Mutex<Duration>>) {
    loop {
        let begun = Instant::now();
        if let Ok(tcp) = tokio::net::TcpStream::connect(public).await {
            let mut wire = Wire::new(tcp, 0);
            let _answer = wire.get("a0.example", "/").await;
            let mut worst = worst.lock();
            *worst = worst.max(begun.elapsed());
        }
        // tidy: allow(sleep): measures what happens in time, and is no test
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args_os().skip(1);
    let binary = PathBuf::from(args.next().unwrap()).canonicalize().unwrap();
    let count: usize = args.next().map_or(1000, |text| text.to_str().unwrap().parse().unwrap());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let all = rustix::process::Rlimit { current: limit, maximum: limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
    let told = Told::default();
    tracing::subscriber::set_global_default(told.clone()).unwrap();
    let directory = std::env::temp_dir().join(format!("adit-herd-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();

    let mut gateway = Gateway::start(binary, &directory).await;
    // tidy: allow(sleep): measures what happens in time, and is no test
    tokio::time::sleep(Duration::from_millis(500)).await;
    let empty = gateway.memory();
    let (begun, cpu_before) = (Instant::now(), cpu("self"));
    let mut agents = Vec::with_capacity(count);
    for number in 0..count {
        agents.push(Agent::start(config(number, gateway.control)).await.unwrap());
    }
    all_connected(&gateway, count).await;
    println!("{count} agents connected after {:?}", begun.elapsed());
    println!(
        "  handshakes: gateway {:.2} ms of CPU each, agents {:.2} ms",
        1e3 * gateway.cpu() / count as f64,
        1e3 * (cpu("self") - cpu_before) / count as f64
    );
    // tidy: allow(sleep): measures what happens in time, and is no test
    tokio::time::sleep(Duration::from_secs(5)).await;
    let full = gateway.memory();
    println!("  memory: {} KiB of {full} for each idle agent", (full - empty) as f64 / count as f64);
    let (idle, at) = (gateway.cpu(), Instant::now());
    // tidy: allow(sleep): measures what happens in time, and is no test
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!(
        "  idle: gateway {:.2} % of a core",
        100.0 * (gateway.cpu() - idle) / at.elapsed().as_secs_f64()
    );

    let before = told.opened();
    told.0.lock().retain(|result, _| result == "opened");
    let begun = Instant::now();
    gateway.restart();
    gateway.answers().await;
    let worst = Arc::new(Mutex::new(Duration::ZERO));
    let probing = tokio::spawn(probe(gateway.public, Arc::clone(&worst)));
    let mut half = None;
    while told.opened() < before + count {
        if half.is_none() && told.opened() >= before + count / 2 {
            half = Some(begun.elapsed());
        }
        // tidy: allow(sleep): measures what happens in time, and is no test
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("killed and restarted: half back after {half:?}, all after {:?}", begun.elapsed());
    let samples = all_connected(&gateway, count).await;
    probing.abort();
    println!("  slowest answer of a service meanwhile: {:?}", worst.lock());
    println!("  gateway: {:.2} ms of CPU for each agent", 1e3 * gateway.cpu() / count as f64);
    println!("  attempts by result: {:?}", told.0.lock());
    println!("  {:?}", samples.series_of("adit_session_handshakes_total"));
    println!("  {:?}", samples.series_of("adit_sessions_ended_total"));
    drop(gateway);
    drop(std::fs::remove_dir_all(&directory));
    std::process::exit(0);
}
