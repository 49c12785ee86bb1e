//! A gateway, its agents and what a test asks of them.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_agent::config::{Credential, Forward, GatewayUrl, Service, To, Transport, Upstream, Verify};
use adit_agent::{Agent, Config as AgentConfig};
use adit_control::model::{self, Model};
use adit_control::{Local, Rules, Snapshots};
use adit_gateway::config::{Config, Control, HttpListener, Limits, LocalToken, SecretText, TcpServices, Tls};
use adit_gateway::{Gateway, Inherited, StartError};
use adit_telemetry::logs::{FlushGuard, LineWriter};
use adit_tunnel::identity::{IdentityFile, LiveIdentity};
use adit_tunnel::proof::TokenKey;
use adit_tunnel::proxy::Egress;
use adit_tunnel::workers::Workers;
use rcgen::{CertificateParams, KeyPair};

use crate::certificate::credulous;
use crate::h2::H2;
use crate::logs::{Captured, Sink};
use crate::samples::Samples;
use crate::wire::{Reply, Wire};
use crate::{until, within};

/// The token of every world.
pub const TOKEN: &str = "correct horse battery staple";
/// The name of its identity.
pub const TOKEN_NAME: &str = "default";

/// What the world will be.
#[derive(Debug)]
pub struct Plan {
    config: Config,
    workers: usize,
    agents: Vec<AgentPlan>,
    sink: Sink,
    guard: FlushGuard,
    inherited: Vec<std::net::TcpListener>,
}

/// What one agent will be.
#[derive(Debug, Clone)]
pub struct AgentPlan {
    offers: Vec<(String, String)>,
    forwards: Vec<Forward>,
    dials: bool,
    transport: Transport,
    token: String,
    identity: Option<Arc<LiveIdentity>>,
    drain_timeout: Duration,
    gateway: Option<SocketAddr>,
    more: Vec<SocketAddr>,
    name: Option<&'static str>,
    egress: Egress,
}

impl AgentPlan {
    /// An agent that offers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            offers: Vec::new(),
            forwards: Vec::new(),
            dials: false,
            transport: Transport::Auto,
            token: TOKEN.to_owned(),
            identity: None,
            drain_timeout: Duration::from_secs(10),
            gateway: None,
            more: Vec::new(),
            name: None,
            egress: Egress::direct(),
        }
    }

    /// Offers an upstream under a host, or under a port as in `tcp:5432`. `https+any://` is an upstream whose certificate is not looked at.
    #[must_use]
    pub fn offer(mut self, host: &str, upstream: impl fmt::Display) -> Self {
        self.offers.push((host.to_owned(), upstream.to_string()));
        self
    }

    /// Listens here and has the gateway connect there.
    #[must_use]
    pub fn forward(mut self, listen: SocketAddr, to: &str) -> Self {
        self.forwards.push(Forward { listen, to: To::Address(to.parse().unwrap()) });
        self
    }

    /// Listens here and dials this service.
    #[must_use]
    pub fn forward_to(mut self, listen: SocketAddr, service: &str) -> Self {
        self.forwards.push(Forward { listen, to: To::Service(service.parse().unwrap()) });
        self
    }

    /// Dials services by their names.
    #[must_use]
    pub const fn dials(mut self) -> Self {
        self.dials = true;
        self
    }

    /// By this transport only.
    #[must_use]
    pub const fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// With this token.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// As this identity, with its certificate, instead of with a token.
    #[must_use]
    pub fn identity(mut self, identity: &Arc<LiveIdentity>) -> Self {
        self.identity = Some(Arc::clone(identity));
        self
    }

    /// With this much time for a drain.
    #[must_use]
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Connects there instead of to the gateway.
    #[must_use]
    pub const fn by_way_of(mut self, gateway: SocketAddr) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// Through this proxy, given as a URL.
    #[must_use]
    pub fn through(mut self, proxy: &str) -> Self {
        self.egress = Egress::through(proxy.parse().unwrap());
        self
    }

    /// Keeps a session to each address that this name has, on the gateway's port.
    #[must_use]
    pub const fn at_each_address_of(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Keeps a session to this gateway as well.
    #[must_use]
    pub fn and_gateway(mut self, gateway: SocketAddr) -> Self {
        self.more.push(gateway);
        self
    }

    fn config(&self, control: SocketAddr) -> AgentConfig {
        let service = |(host, upstream): &(String, String)| Service {
            name: host.parse().unwrap(),
            upstream: parse_upstream(upstream),
        };
        let to = self.gateway.unwrap_or(control);
        let gateway = |to: SocketAddr| GatewayUrl {
            host: self.name.map_or_else(|| to.ip().to_string(), str::to_owned),
            port: to.port(),
            transport: self.transport,
        };
        AgentConfig {
            gateways: std::iter::once(to).chain(self.more.iter().copied()).map(gateway).collect(),
            each_address: self.name.is_some(),
            egress: self.egress.clone(),
            credential: match &self.identity {
                Some(identity) => Credential::Identity(Arc::clone(identity)),
                None => Credential::Token(TokenKey::new(self.token.as_bytes())),
            },
            verify: Verify::TokenProof,
            services: self.offers.iter().map(service).collect(),
            forwards: self.forwards.clone(),
            dials: self.dials,
            listen: Some(any_port()),
            drain_timeout: self.drain_timeout,
            process_log: None,
            revision: "test",
        }
    }
}

impl Default for AgentPlan {
    fn default() -> Self {
        Self::new()
    }
}

fn parse_upstream(text: &str) -> Upstream {
    let Some(rest) = text.strip_prefix("https+any://") else {
        return text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    };
    match format!("https://{rest}").parse().unwrap() {
        Upstream::Https { host, port, verify: _ } => Upstream::Https { host, port, verify: false },
        other => other,
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn auto_tls() -> Tls {
    Tls::Auto { names: Vec::new(), directory: None }
}

impl Plan {
    /// Changes what the gateway is told.
    #[must_use]
    pub fn gateway(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Hands the gateway a socket that was bound before it began.
    #[must_use]
    pub fn inherit(mut self, listener: std::net::TcpListener) -> Self {
        self.inherited.push(listener);
        self
    }

    /// Changes the gateway's limits.
    #[must_use]
    pub fn limits(self, change: impl FnOnce(&mut Limits)) -> Self {
        self.gateway(|config| change(&mut config.limits))
    }

    /// The first agent offers this too.
    #[must_use]
    pub fn offer(mut self, host: &str, upstream: impl fmt::Display) -> Self {
        let first = self.agents.pop().unwrap_or_default();
        self.agents.push(first.offer(host, upstream));
        self
    }

    /// Spreads the gateway's and every agent's connections over so many threads; over one, unless told otherwise.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Starts everything and waits until all agents are connected. A gateway without HTTP listeners has none to ask.
    pub async fn run(self) -> World {
        let Self { config, workers, agents, sink, guard, inherited } = self;
        let inherited = Inherited::new(inherited).unwrap();
        let captured = Captured::start();
        let workers = Workers::start(workers).unwrap();
        let gateway = Gateway::start_on(config.clone(), inherited, &workers).await.unwrap();
        let mut world = World {
            http: gateway.http_addrs().first().copied().unwrap_or_else(any_port),
            https: gateway.http_addrs().get(1).copied().unwrap_or_else(any_port),
            control: gateway.control_addr(),
            gateway: Some(gateway),
            config,
            workers,
            agents: Vec::new(),
            sink,
            captured,
            _guard: guard,
        };
        for plan in agents {
            world.join(plan).await;
        }
        world
    }
}

/// A gateway and its agents. Everything ends when it is dropped.
#[derive(Debug)]
pub struct World {
    gateway: Option<Gateway>,
    agents: Vec<Option<Agent>>,
    config: Config,
    workers: Workers,
    http: SocketAddr,
    https: SocketAddr,
    control: SocketAddr,
    sink: Sink,
    captured: Captured,
    _guard: FlushGuard,
}

/// A token of the gateway's configuration whose agents may offer everything.
#[must_use]
pub fn local_token(name: &str, secret: &str) -> LocalToken {
    LocalToken::new(name.parse().unwrap(), SecretText::new(secret.to_owned()))
}

impl World {
    /// A world with nothing behind it yet.
    #[expect(clippy::new_ret_no_self, reason = "a world is planned first")]
    #[must_use]
    pub fn new() -> Plan {
        let sink = Sink::default();
        let (log, guard) = LineWriter::new(Box::new(sink.clone()), 64 << 20).unwrap();
        let config = Config {
            control: Control { listen: any_port(), tls: auto_tls(), quic: true },
            http: vec![
                HttpListener { listen: any_port(), tls: None, lb_proxy_protocol: false },
                HttpListener { listen: any_port(), tls: Some(auto_tls()), lb_proxy_protocol: false },
            ],
            tokens: vec![local_token(TOKEN_NAME, TOKEN)],
            state: adit_gateway::config::State::default(),
            allow: Vec::new(),
            trusted_proxies: Vec::new(),
            client_forwarding: false,
            tcp: Some(TcpServices {
                listen: any_port().ip(),
                ports: Vec::new(),
                proxy_protocol: None,
                lb_proxy_protocol: false,
            }),
            // Nobody of a former life is on the way back.
            limits: Limits { agent_wait: Duration::from_millis(50), ..Limits::default() },
            request_log: Some(log),
            drain_timeout: Duration::from_secs(10),
            process_log: None,
            revision: "test",
        };
        Plan { config, workers: 1, agents: Vec::new(), sink, guard, inherited: Vec::new() }
    }

    /// Where the cleartext listener is.
    #[must_use]
    pub const fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where the HTTPS listener is.
    #[must_use]
    pub const fn https(&self) -> SocketAddr {
        self.https
    }

    /// Where the control port is.
    #[must_use]
    pub const fn control(&self) -> SocketAddr {
        self.control
    }

    /// Starts one more agent and waits until it is connected. Returns its number.
    pub async fn join(&mut self, plan: AgentPlan) -> usize {
        let agent = self.start_agent(&plan).await;
        self.knows(&agent).await;
        self.agents.push(Some(agent));
        self.agents.len() - 1
    }

    /// Waits until an agent is connected, as it sees it and as the gateway sees it.
    pub async fn knows(&self, agent: &Agent) {
        within("the agent to connect", agent.connected()).await;
        let id = agent.instance().to_string();
        until("the gateway knows the agent", || async {
            let status = self.ask_control("GET", "/status", &Self::bearer()).await.text();
            if status.contains(&id) { Ok(()) } else { Err(status) }
        })
        .await;
    }

    /// Starts an agent that is not waited for and not kept.
    pub async fn start_agent(&self, plan: &AgentPlan) -> Agent {
        Agent::start_over(plan.config(self.control), &self.workers).await.unwrap()
    }

    /// An agent by its number.
    #[must_use]
    pub fn agent(&self, number: usize) -> &Agent {
        self.agents[number].as_ref().unwrap()
    }

    /// Takes an agent out; dropping it is a sudden death.
    #[must_use]
    pub fn take_agent(&mut self, number: usize) -> Agent {
        self.agents[number].take().unwrap()
    }

    /// Where the public cleartext listener is.
    #[must_use]
    pub const fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Takes the gateway out; dropping it is a sudden death.
    #[must_use]
    pub const fn take_gateway(&mut self) -> Gateway {
        self.gateway.take().unwrap()
    }

    /// Ends the gateway at once and starts another on the same ports.
    pub async fn restart_gateway(&mut self) {
        drop(self.gateway.take());
        let mut config = self.config.clone();
        config.control.listen = self.control;
        config.http[0].listen = self.http;
        config.http[1].listen = self.https;
        self.gateway = Some(
            until("the gateway's old ports are free", || async {
                match Gateway::start_on(config.clone(), Inherited::default(), &self.workers).await {
                    Err(error @ StartError::Bind { .. }) => Err(error),
                    started => Ok(started.unwrap()),
                }
            })
            .await,
        );
    }

    /// A certificate of the gateway's authority, and what has to be listed for it to count.
    #[must_use]
    pub fn certify(&self, identity: &str, now: u64) -> (Arc<LiveIdentity>, model::Credential) {
        self.certify_towards(self, identity, now)
    }

    /// The same for whoever takes the other world's gateway for the right one.
    #[must_use]
    pub fn certify_towards(
        &self,
        other: &Self,
        identity: &str,
        now: u64,
    ) -> (Arc<LiveIdentity>, model::Credential) {
        let authority = self.gateway.as_ref().unwrap().enrolling().authority();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let life = Duration::from_secs(3600);
        let issued = authority.issue(&identity.parse().unwrap(), &request, life, now).unwrap();
        let api = format!("https://{}", self.control);
        let roots = other.gateway.as_ref().unwrap().enrolling().authority().roots_pem().to_owned();
        let file = IdentityFile::new(api, issued.chain_pem, key.serialize_pem().into(), roots).unwrap();
        (LiveIdentity::new(file).unwrap(), issued.credential)
    }

    /// Has the gateway take another configuration while it runs, which is kept if it is taken.
    ///
    /// # Errors
    /// Why it is not.
    pub fn reload(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), StartError> {
        let mut config = self.config.clone();
        change(&mut config);
        self.running().reload(&config)?;
        self.config = config;
        Ok(())
    }

    /// The gateway that runs.
    #[must_use]
    pub const fn running(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    /// What the gateway decides by; publishing there changes it.
    #[must_use]
    pub fn snapshots(&self) -> &Arc<Snapshots> {
        self.gateway.as_ref().unwrap().snapshots()
    }

    /// Makes these resources what the gateway decides by, beside its own configuration.
    pub fn publish(&self, model: &Model) {
        let Config { tokens, allow, trusted_proxies, client_forwarding, .. } = &self.config;
        let rules = Rules {
            allow: allow.clone(),
            trusted_proxies: trusted_proxies.clone(),
            client_forwarding: *client_forwarding,
        };
        self.snapshots().publish_all(model, &Local { rules, tokens: tokens.clone() });
    }

    /// A client's connection in cleartext.
    pub async fn wire(&self) -> Wire {
        Wire::tcp(self.http).await
    }

    /// A client's connection by TLS, with this ALPN.
    pub async fn tls_wire(&self, alpn: &[&[u8]]) -> Wire {
        Wire::tls(self.https, &credulous(alpn)).await
    }

    /// A client that speaks HTTP/2 in cleartext from the first byte.
    pub async fn h2(&self) -> H2 {
        H2::on(self.wire().await).await
    }

    /// One request on a connection of its own.
    pub async fn get(&self, host: &str, target: &str) -> Reply {
        self.wire().await.get(host, target).await
    }

    /// One request to the control port; `fields` end with CRLF each.
    pub async fn ask_control(&self, method: &str, path: &str, fields: &str) -> Reply {
        let mut wire = Wire::tls(self.control, &credulous(&[b"http/1.1"])).await;
        wire.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n"
        ))
        .await;
        wire.reply_to(method).await
    }

    /// The field that shows the token.
    #[must_use]
    pub fn bearer() -> String {
        format!("authorization: Bearer {TOKEN}\r\n")
    }

    /// The gateway's metrics.
    pub async fn metrics(&self) -> Samples {
        let reply = self.ask_control("GET", "/metrics", &Self::bearer()).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        Samples::parse(&reply.text())
    }

    /// An agent's metrics.
    pub async fn agent_metrics(&self, number: usize) -> Samples {
        metrics_of(self.agent(number)).await
    }

    /// Waits until the gateway's sum of these samples is exactly this.
    pub async fn sum_becomes(&self, name: &str, labels: &[(&str, &str)], wanted: u32) {
        until(&format!("{name}{labels:?} is {wanted}"), || async {
            let samples = self.metrics().await;
            let sum = samples.sum(name, labels);
            if (sum - f64::from(wanted)).abs() < 0.5 { Ok(()) } else { Err((sum, samples.series_of(name))) }
        })
        .await;
    }

    /// Waits until so many agents are connected, as the gateway sees it.
    pub async fn agents_become(&self, wanted: usize) {
        until(&format!("{wanted} agents are connected"), || async {
            let now = self.gateway.as_ref().map_or(0, Gateway::agents);
            if now == wanted { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// Waits until the request log has so many lines, and returns them.
    pub async fn request_log(&self, lines: usize) -> Vec<serde_json::Value> {
        until(&format!("the request log has {lines} lines"), || async {
            let text = self.sink.text();
            if text.ends_with('\n') && text.lines().count() >= lines { Ok(()) } else { Err(text) }
        })
        .await;
        self.sink.json_lines()
    }

    /// What the test's own thread has logged.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.captured.lines()
    }

    /// Ends the world politely: no flow is left open, a drain cuts nothing, and nothing was logged as an error.
    pub async fn finish(mut self) {
        self.sum_becomes("adit_flows", &[], 0).await;
        for agent in self.agents.iter_mut().filter_map(Option::take) {
            assert_eq!(
                within("an agent's drain", agent.drain()).await,
                0,
                "the agent's drain had to cut streams"
            );
        }
        let gateway = self.take_gateway();
        assert_eq!(
            within("the gateway's drain", gateway.drain()).await,
            0,
            "the drain had to cut connections"
        );
        let errors: Vec<_> = self.log().into_iter().filter(|line| line.starts_with("ERROR")).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

/// The metrics of any agent.
pub async fn metrics_of(agent: &Agent) -> Samples {
    let mut wire = Wire::tcp(agent.listen_addr().unwrap()).await;
    Samples::parse(&wire.get("localhost", "/metrics").await.text())
}

/// A directory with files, and the upstream that serves it.
#[must_use]
pub fn files(directory: &Path) -> String {
    format!("file:{}", directory.display())
}
