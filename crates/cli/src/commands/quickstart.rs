//! `adit quickstart`: a gateway, an agent and a service in one process on loopback, to try it all.

mod guide;
mod sample;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use adit_agent::Agent;
use adit_agent::config::{Credential, GatewayUrl, Service, Transport, Upstream, Verify};
use adit_gateway::Gateway;
use adit_gateway::config::{Control, HttpListener, Limits, LocalToken, Tls};
use adit_proto::names::HostPattern;
use adit_tunnel::proof::TokenKey;
use adit_tunnel::proxy::Egress;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::config::values::{LogFormat, LogLevel, LogSettings};
use crate::control_client::hex;
use crate::error::CliError;
use crate::signals::Signals;
use crate::{logging, output, role, serve, token};
use adit_telemetry::secret::Secret;

/// How long open flows may go on after Ctrl-C.
const DRAIN: Duration = Duration::from_secs(3);
/// How long the agent may take to connect to a gateway in the same process.
const CONNECT: Duration = Duration::from_secs(10);

/// Flags of `adit quickstart`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Your own service, as a URL or a port; a sample service when left out.
    #[arg(value_name = "UPSTREAM")]
    upstream: Option<String>,
}

/// Runs it all until told to end.
///
/// # Errors
/// Something could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let upstream = args.upstream.as_deref().map(upstream).transpose()?;
    let _log = logging::init(LogSettings { level: LogLevel::Warn, format: LogFormat::Text })?;
    let signals = Signals::install()?;
    let Some(upstream) = upstream else {
        let cannot = |cause: std::io::Error| {
            CliError::failure("the sample service did not start")
                .caused_by(&cause)
                .next(role::bind_advice(&cause))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(cannot)?;
        let port = listener.local_addr().map_err(cannot)?.port();
        let upstream = Upstream::Http { host: Ipv4Addr::LOCALHOST.to_string(), port };
        return tokio::select! {
            ended = tunnel(upstream, guide::Exposed::Sample, signals) => ended,
            () = serve::until(listener, sample::service(), std::future::pending()) => Ok(ExitCode::SUCCESS),
        };
    };
    tunnel(upstream, guide::Exposed::Yours, signals).await
}

/// Reads a URL, `host:port` or a port alone.
fn upstream(text: &str) -> Result<Upstream, CliError> {
    let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let full = if is_port { format!("http://127.0.0.1:{text}") } else { text.to_owned() };
    full.parse().map_err(|cause: adit_agent::config::UrlError| {
        CliError::usage(format!("`{text}` is not an upstream"))
            .caused_by(&cause)
            .next("write a URL or a port: adit quickstart http://127.0.0.1:3000, or adit quickstart 3000")
    })
}

async fn tunnel(
    upstream: Upstream,
    exposed: guide::Exposed,
    mut signals: Signals,
) -> Result<ExitCode, CliError> {
    let directory = tempfile::Builder::new()
        .prefix("adit-quickstart-")
        .tempdir()
        .map_err(|cause| CliError::failure("cannot make a temporary directory").caused_by(&cause))?;
    let token = random_token()?;
    let token_file = write(&directory, "token", token.expose())?;
    let key = TokenKey::new(token.expose().as_bytes());
    let gateway = start_gateway(token::of_gateway(&token)?, directory.path()).await?;
    let shown = upstream.to_string();
    let agent = start_agent(&key, gateway.control_addr(), upstream).await?;
    let connected = tokio::select! {
        () = agent.connected() => true,
        refusal = agent.refused() => return Err(CliError::failure("the agent was refused").because(refusal)),
        () = tokio::time::sleep(CONNECT) => false,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    if !connected {
        return Err(CliError::failure("the agent did not connect")
            .because(format!("nothing happened for {} seconds", CONNECT.as_secs()))
            .next("check that a firewall lets this machine talk to itself on 127.0.0.1"));
    }
    let ca_file = Some(directory.path().join("tls").join("ca.crt")).filter(|file| file.exists());
    let guide = guide::Guide {
        exposed,
        upstream: shown,
        http: gateway.http_addrs().first().copied().unwrap_or_else(|| any(0)),
        control: gateway.control_addr(),
        agent: agent.listen_addr(),
        token_file,
        ca_file,
    };
    let prometheus = write(&directory, "prometheus.yml", &guide.prometheus())?;
    output::print(&guide.text(&prometheus));
    signals.next().await;
    output::line("Stopping.");
    let drain = async { agent.drain().await + gateway.drain().await };
    let code = role::ended(drain, &mut signals).await;
    if let Err(cause) = directory.close() {
        output::warning(format_args!("cannot remove the temporary directory: {cause}"));
    }
    Ok(code)
}

const fn any(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The port when it is free, else any that is.
fn free(port: u16) -> SocketAddr {
    let is_free = std::net::TcpListener::bind(any(port)).is_ok();
    any(if is_free { port } else { 0 })
}

/// Starts the gateway on the usual ports where they are free. Whoever takes one between the look and the start
/// may have it.
async fn start_gateway(token: LocalToken, directory: &Path) -> Result<Gateway, CliError> {
    let config = |control, http| adit_gateway::Config {
        control: Control {
            listen: control,
            tls: Tls::Auto { names: Vec::new(), directory: Some(directory.join("tls")) },
            quic: false,
        },
        http: vec![HttpListener { listen: http, tls: None, lb_proxy_protocol: false }],
        tokens: vec![token.clone()],
        state: adit_gateway::config::State::default(),
        allow: Vec::new(),
        trusted_proxies: Vec::new(),
        client_forwarding: false,
        tcp: None,
        limits: Limits::default(),
        request_log: None,
        drain_timeout: DRAIN,
        process_log: None,
        revision: crate::version::SHA,
    };
    let mut started = Gateway::start(config(free(8123), free(8000))).await;
    if matches!(started, Err(adit_gateway::StartError::Bind { .. })) {
        started = Gateway::start(config(any(0), any(0))).await;
    }
    started.map_err(|cause| role::gateway_failed(&cause))
}

async fn start_agent(key: &TokenKey, control: SocketAddr, upstream: Upstream) -> Result<Agent, CliError> {
    let config = adit_agent::Config {
        gateways: vec![GatewayUrl {
            host: control.ip().to_string(),
            port: control.port(),
            transport: Transport::Auto,
        }],
        each_address: false,
        egress: Egress::direct(),
        credential: Credential::Token(key.clone()),
        verify: Verify::TokenProof,
        services: vec![Service { name: HostPattern::Any.into(), upstream }],
        forwards: Vec::new(),
        dials: false,
        listen: Some(any(0)),
        drain_timeout: DRAIN,
        process_log: None,
        revision: crate::version::SHA,
    };
    Agent::start(config).await.map_err(|cause| role::agent_failed(&cause))
}

fn random_token() -> Result<Secret, CliError> {
    let mut bytes = [0; 20];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).map_err(|_no_details| {
        CliError::failure("cannot make a token").because("the system has no random numbers")
    })?;
    Secret::new(hex(&bytes)).map_err(|cause| CliError::failure("cannot make a token").caused_by(&cause))
}

/// Writes a file that only this user can read.
fn write(directory: &TempDir, name: &str, text: &str) -> Result<PathBuf, CliError> {
    use std::io::Write as _;

    let path = directory.path().join(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|cause| CliError::failure(format!("cannot write {}", path.display())).caused_by(&cause))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_url_or_a_port() {
        assert_eq!(upstream("3000").unwrap().to_string(), "http://127.0.0.1:3000");
        assert_eq!(upstream("http://127.0.0.1:3000").unwrap().to_string(), "http://127.0.0.1:3000");
        assert!(upstream("0").is_err());
        assert!(upstream("ftp://x").unwrap_err().to_string().contains("adit quickstart 3000"));
    }

    #[test]
    fn a_token_is_new_each_time_and_its_file_is_private() {
        let token = random_token().unwrap();
        assert_eq!(token.expose().len(), 40);
        assert_ne!(token.expose(), random_token().unwrap().expose());
        let directory = tempfile::tempdir().unwrap();
        let path = write(&directory, "token", token.expose()).unwrap();
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), token.expose());
    }
}
