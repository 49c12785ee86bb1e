//! Gateways and agents as an operator starts them: from files, in a folder of their own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_testkit::ports;
use tempfile::TempDir;

use super::http::{self, Request};
use super::metrics::Scrape;
use super::process::{self, Process};
use super::{secrets, tools, wait};

/// A folder with a token, and everything that runs from it.
#[derive(Debug)]
pub(crate) struct World {
    folder: TempDir,
    pub(crate) token: String,
}

/// What a gateway is told beside its tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct GatewayFile<'a> {
    /// Lines of gateway.yaml in place of one cleartext listener.
    pub(crate) http: Option<&'a str>,
    /// More lines; with `tokens:` among them, in place of the one token without rights.
    pub(crate) more: &'a str,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("adit-process-").tempdir().unwrap();
        let token = secrets::token();
        let world = Self { folder, token };
        world.write("token", &format!("{}\n", world.token));
        world
    }

    /// Another folder with the token of this one.
    pub(crate) fn another(&self) -> Self {
        let folder = tempfile::Builder::new().prefix("adit-process-").tempdir().unwrap();
        let world = Self { folder, token: self.token.clone() };
        world.write("token", &format!("{}\n", world.token));
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command that runs in this folder and keeps its state there.
    pub(crate) fn here(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path()).env("STATE_DIRECTORY", self.path("state"));
        command
    }

    /// `adit` with these arguments.
    pub(crate) fn adit(&self, args: &[&str]) -> Command {
        let mut command = self.here(tools::command(&tools::adit()));
        command.args(args);
        command
    }

    /// Runs `adit` to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> process::Finished {
        process::run(&mut self.adit(args))
    }

    /// A gateway on ports that the system chooses.
    #[track_caller]
    pub(crate) fn gateway(&self, file: GatewayFile<'_>) -> Gateway {
        let process = self.gateway_process(0, 0, file);
        self.attach(process).unwrap()
    }

    /// A gateway on ports that it can be started on again.
    #[track_caller]
    pub(crate) fn lasting_gateway(&self, file: GatewayFile<'_>) -> Gateway {
        for _ in 0..10 {
            let process = self.gateway_process(ports::free(), ports::free(), file);
            if let Some(gateway) = self.attach(process) {
                return gateway;
            }
        }
        panic!("ten times a port was taken between its choice and its use");
    }

    /// Starts a gateway again that has ended, on the ports it had.
    #[track_caller]
    pub(crate) fn again(&self, gateway: &Gateway, file: GatewayFile<'_>) -> Gateway {
        wait::until("the gateway starts on its old ports", wait::SOON, || {
            let process = self.gateway_process(gateway.control.port(), gateway.http[0].port(), file);
            self.attach(process).ok_or_else(|| "a port is in use".to_owned())
        })
    }

    /// A gateway that a shell starts, after it has done this.
    #[track_caller]
    pub(crate) fn gateway_after(&self, first: &str, file: GatewayFile<'_>) -> Gateway {
        let path = self.gateway_file(0, 0, file);
        let line = format!("{first}; exec '{}' gateway -f '{}'", tools::adit().display(), path.display());
        self.attach(Process::start("gateway", &mut self.here(tools::shell(&line)))).unwrap()
    }

    fn gateway_process(&self, control: u16, http: u16, file: GatewayFile<'_>) -> Process {
        let path = self.gateway_file(control, http, file);
        Process::start("gateway", self.adit(&["gateway", "-f"]).arg(path))
    }

    fn gateway_file(&self, control: u16, http: u16, file: GatewayFile<'_>) -> PathBuf {
        let listener = format!("http: [{{listen: '127.0.0.1:{http}'}}]\n");
        let text = format!(
            "control: {{listen: '127.0.0.1:{control}'}}\n{}\
             {}{}",
            file.http.unwrap_or(&listener),
            if file.more.contains("tokens:") {
                ""
            } else {
                "tokens: [{name: default, token: 'file:token'}]\n"
            },
            file.more
        );
        self.write("gateway.yaml", &text)
    }

    /// Learns where a gateway listens; `None` when a port was taken.
    #[track_caller]
    fn attach(&self, mut process: Process) -> Option<Gateway> {
        let control = process.line_or(&["listening", "purpose=\"control\""], &["cannot listen on"])?;
        process.line(&["listening", "purpose=\"http\""]);
        let control = address(&control);
        // Every listener is bound before the first is told, so all lines are on their way; wait for the port.
        wait::until("the control port answers", wait::SOON, || {
            std::net::TcpStream::connect(control).map_err(|error| error.to_string())
        });
        let count =
            std::fs::read_to_string(self.path("gateway.yaml")).unwrap().matches("listen:").count() - 1;
        let http = wait::until("every listener is told", wait::SOON, || {
            let log = process.stderr();
            let found: Vec<SocketAddr> =
                log.lines().filter(|line| line.contains("purpose=\"http\"")).map(address).collect();
            if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
        });
        Some(Gateway { process, control, http, token: self.token.clone() })
    }

    /// An agent with these services (`host`, `upstream`), once it is connected.
    #[track_caller]
    pub(crate) fn agent(&self, gateway: &Gateway, services: &[(&str, &str)], more: &str) -> Agent {
        let agent = self.lone_agent(gateway.control, services, more);
        wait::until("the agent is ready", wait::SOON, || http::text(agent.listen, "agent", "/ready"));
        agent
    }

    /// An agent that may not find a gateway yet.
    #[track_caller]
    pub(crate) fn lone_agent(&self, gateway: SocketAddr, services: &[(&str, &str)], more: &str) -> Agent {
        self.agent_process(&format!("{{url: 'wss://{gateway}'}}"), services, more)
    }

    /// An agent of several gateways.
    #[track_caller]
    pub(crate) fn agent_of(&self, gateways: &[String], services: &[(&str, &str)]) -> Agent {
        self.agent_process(&format!("{{urls: ['{}']}}", gateways.join("', '")), services, "")
    }

    #[track_caller]
    fn agent_process(&self, gateway: &str, services: &[(&str, &str)], more: &str) -> Agent {
        let mut text =
            format!("gateway: {gateway}\ntoken: 'file:token'\nlisten: '127.0.0.1:0'\n{more}services:\n");
        for (host, upstream) in services {
            writeln!(text, "  - {{host: '{host}', upstream: '{upstream}'}}").unwrap();
        }
        let path = self.write("agent.yaml", &text);
        let mut process = Process::start("agent", self.adit(&["agent", "-f"]).arg(path));
        let listen = address(&process.line(&["listening", "purpose=\"metrics\""]));
        Agent { process, listen }
    }
}

/// The address in a log line.
pub(crate) fn address(line: &str) -> SocketAddr {
    let (_, rest) = line.split_once("addr=").unwrap();
    let addr: SocketAddr = rest.split(' ').next().unwrap().parse().unwrap();
    if addr.ip().is_unspecified() { SocketAddr::new([127, 0, 0, 1].into(), addr.port()) } else { addr }
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) control: SocketAddr,
    pub(crate) http: Vec<SocketAddr>,
    token: String,
}

impl Gateway {
    /// The public port of the first listener.
    pub(crate) fn public(&self) -> SocketAddr {
        self.http[0]
    }

    /// What the control port answers on a path, with the token.
    #[track_caller]
    pub(crate) fn ask(&self, path: &str) -> String {
        ask(self.control, &self.token, path).ok()
    }

    #[track_caller]
    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::new(self.ask("/metrics"))
    }
}

/// Asks a control port with a token, by curl.
#[track_caller]
pub(crate) fn ask(control: SocketAddr, token: &str, path: &str) -> process::Finished {
    let (url, header) = (format!("https://{control}{path}"), format!("Authorization: Bearer {token}"));
    process::run(&mut tools::curl(&["-kLS", "--fail-with-body", "-H", &header, &url]))
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) listen: SocketAddr,
}

impl Agent {
    #[track_caller]
    pub(crate) fn scrape(&self) -> Scrape {
        let response = http::once(self.listen, &Request::get("agent", "/metrics")).unwrap();
        assert_eq!(response.status, 200);
        Scrape::new(response.text())
    }
}

/// Peak resident memory of a process, in KiB.
pub(crate) fn peak_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
