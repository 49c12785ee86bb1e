//! A running gateway or agent: start, say where, drain on the first signal, stop at once on the second.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use adit_agent::Agent;
use adit_gateway::config::LocalToken;
use adit_gateway::{Gateway, Inherited};
use adit_telemetry::reloads::Reloads;
use adit_tunnel::workers::Workers;
use tracing::{error, info, warn};

use crate::config::agent::AgentSettings;
use crate::config::gateway::GatewaySettings;
use crate::config::{self, Loaded, env};
use crate::error::CliError;
use crate::logging::{self, RequestLog};
use crate::reload::{ConfigFile, Why};
use crate::signals::{Signal, Signals};

/// The exit code of a drain that had to cut flows.
const CUT: u8 = 3;

/// What a role is started from.
#[derive(Debug)]
pub(crate) enum Source<T> {
    /// Flags alone.
    Flags(T),
    /// A file, which is read again when it changes or somebody asks.
    File(PathBuf, Loaded<T>),
}

impl<T> Source<T> {
    /// The settings, and what is needed to read them again.
    fn open(self, signals: &mut Signals) -> Result<(T, Option<ConfigFile>), CliError> {
        match self {
            Self::Flags(settings) => Ok((settings, None)),
            Self::File(path, loaded) => {
                signals.take_hangups()?;
                let (settings, file) = ConfigFile::open(path, loaded);
                Ok((settings, Some(file)))
            }
        }
    }
}

/// Runs a gateway until it is told to end.
///
/// # Errors
/// It could not be started.
pub(crate) async fn gateway(source: Source<GatewaySettings>) -> Result<ExitCode, CliError> {
    let mut signals = Signals::install()?;
    let (settings, mut file) = source.open(&mut signals)?;
    let GatewaySettings { mut config, request_log, log } = settings;
    // Before there are threads: this changes the environment, so that no child takes the sockets for its own.
    let inherited = env::listeners().and_then(Inherited::new).map_err(|cause| {
        CliError::failure("cannot use the sockets that were handed over").caused_by(&cause)
    })?;
    let (process_log, level, _log) = logging::init(log)?;
    config.process_log = Some(process_log);
    if config.state.directory.is_none() {
        warn_of_memory(file.is_some(), &config.tokens);
    }
    let mut request_log = RequestLog::open(request_log)?;
    config.request_log = request_log.writer();
    let workers = workers()?;
    let gateway =
        Gateway::start_on(config, inherited, &workers).await.map_err(|cause| gateway_failed(&cause))?;
    info!(addr = %gateway.control_addr(), purpose = "control", "listening");
    for addr in gateway.http_addrs() {
        info!(%addr, purpose = "http", "listening");
    }
    started(file.as_mut(), gateway.reloads());
    let signal = loop {
        match next(&mut signals, file.as_mut()).await {
            Next::End(signal) => break signal,
            Next::Reload(file, why) => {
                let taken = async |settings: GatewaySettings| {
                    let GatewaySettings { mut config, request_log: target, log } = settings;
                    let other = request_log.other(target).await?;
                    config.request_log = other.as_ref().unwrap_or(&request_log).writer();
                    gateway.reload(&config).map_err(|cause| not_taken(gateway_failed(&cause)))?;
                    if let Some(other) = other {
                        std::mem::replace(&mut request_log, other).retire();
                    }
                    level.set(log)
                };
                let reloads = gateway.reloads();
                Box::pin(file.reload(why, config::gateway::load, GATEWAY_KEYS, taken, reloads)).await;
            }
        }
    };
    info!(signal = signal.name(), "draining; a second signal stops at once");
    Ok(ended(gateway.drain(), &mut signals).await)
}

/// Nothing that an administrator makes outlives this process. Where there is none, and none can come, that loses nothing.
fn warn_of_memory(from_file: bool, tokens: &[LocalToken]) {
    let next =
        if from_file { "name a directory with state.directory" } else { "name a directory with --state-dir" };
    if from_file || tokens.iter().any(|token| token.token.admin) {
        warn!(
            "identities, services, policies and tokens that are made here are kept in memory, and gone when this process \
             ends; {next}"
        );
    }
}

/// Keys of a gateway's file that take effect without a restart, with everything below them.
const GATEWAY_KEYS: &[&str] = &[
    "access",
    "tokens",
    "http",
    "tcp.ports",
    "tcp.proxy_protocol",
    "tcp.lb_proxy_protocol",
    "tcp.client_forwarding",
    // Ports that are bound stay where they are.
    "tcp.listen?",
    "limits",
    "request_log",
    "drain_timeout",
    "log.level",
    "*.tls.cert",
    "*.tls.key",
];

/// Keys of an agent's file that take effect without a restart, with everything below them.
const AGENT_KEYS: &[&str] =
    &["gateway", "token", "identity", "services", "forwards", "listen", "drain_timeout", "log.level"];

/// What a role that runs has to do next.
enum Next<'f> {
    End(Signal),
    Reload(&'f mut ConfigFile, Why),
}

/// Waits for the next thing to do. Cancel safe.
async fn next<'f>(signals: &mut Signals, file: Option<&'f mut ConfigFile>) -> Next<'f> {
    let Some(file) = file else { return Next::End(signals.next().await) };
    let why = tokio::select! {
        signal = signals.next_or_hangup() => match signal {
            Some(signal) => return Next::End(signal),
            None => Why::Signal,
        },
        why = file.next() => why,
    };
    Next::Reload(file, why)
}

fn started(file: Option<&mut ConfigFile>, reloads: &Reloads) {
    match file {
        Some(file) => file.started(reloads),
        None => reloads.started("", SystemTime::now()),
    }
}

/// Runs an agent until it is told to end.
///
/// # Errors
/// It could not be started.
pub(crate) async fn agent(source: Source<AgentSettings>) -> Result<ExitCode, CliError> {
    let mut signals = Signals::install()?;
    let (settings, mut file) = source.open(&mut signals)?;
    let AgentSettings { mut config, log } = settings;
    let (process_log, level, _log) = logging::init(log)?;
    config.process_log = Some(process_log);
    let gateway = config.gateways.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let agent =
        Box::pin(Agent::start_over(config, &workers()?)).await.map_err(|cause| agent_failed(&cause))?;
    if let Some(addr) = agent.listen_addr() {
        info!(%addr, purpose = "metrics", "listening");
    }
    info!(%gateway, "connecting");
    started(file.as_mut(), agent.reloads());
    let mut is_refused = false;
    let signal = loop {
        let next = tokio::select! {
            next = next(&mut signals, file.as_mut()) => next,
            refusal = agent.refused(), if !is_refused => {
                error!(%gateway, %refusal, "the gateway refuses this agent; still trying");
                is_refused = true;
                continue;
            }
        };
        match next {
            Next::End(signal) => break signal,
            Next::Reload(file, why) => {
                let taken = async |settings: AgentSettings| {
                    let reloaded = Box::pin(agent.reload(settings.config)).await;
                    reloaded.map_err(|cause| not_taken(agent_failed(&cause)))?;
                    level.set(settings.log)
                };
                let reloads = agent.reloads();
                Box::pin(file.reload(why, config::agent::load, AGENT_KEYS, taken, reloads)).await;
            }
        }
    };
    info!(signal = signal.name(), "draining; a second signal stops at once");
    Ok(ended(agent.drain(), &mut signals).await)
}

fn workers() -> Result<Workers, CliError> {
    Workers::for_this_machine().map_err(|cause| CliError::failure("cannot start a thread").caused_by(&cause))
}

/// Waits for the drain or for whoever has no patience for it.
pub(crate) async fn ended(drain: impl Future<Output = usize>, signals: &mut Signals) -> ExitCode {
    tokio::select! {
        cut = drain => match cut {
            0 => {
                info!("drained");
                ExitCode::SUCCESS
            }
            cut => {
                warn!(cut, "the drain timeout passed; flows were cut");
                ExitCode::from(CUT)
            }
        },
        signal = signals.next() => {
            warn!(signal = signal.name(), "stopping at once");
            ExitCode::from(signal.exit_code())
        }
    }
}

/// A gateway that did not start.
pub(crate) fn gateway_failed(cause: &adit_gateway::StartError) -> CliError {
    let next = match cause {
        adit_gateway::StartError::Bind { source, .. } => bind_advice(source),
        adit_gateway::StartError::Stray { .. } => {
            "configure a listener there, or take the socket out of the socket unit".to_owned()
        }
        adit_gateway::StartError::Tls { .. } => {
            "check the certificate and key files, and who may read them; where the gateway makes its own, --auto-tls-path or \
             --state-dir names another directory for them (control.tls.auto.directory in a file)"
                .to_owned()
        }
        adit_gateway::StartError::State { .. } => {
            "check that no other gateway uses the state directory, and that this user may read and write it"
                .to_owned()
        }
    };
    CliError::failure("the gateway did not start").caused_by(cause).next(next)
}

/// The same for a process that runs: it goes on as it was.
fn not_taken(error: CliError) -> CliError {
    error.instead("the file is in order, but what it says cannot be had")
}

/// An agent that did not start.
pub(crate) fn agent_failed(cause: &adit_agent::StartError) -> CliError {
    let error = CliError::failure("the agent did not start").caused_by(cause);
    match cause {
        adit_agent::StartError::Bind { source, .. } => error.next(bind_advice(source)),
        adit_agent::StartError::Setup { .. } => error,
    }
}

/// What to do about an address that cannot be bound.
pub(crate) fn bind_advice(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::AddrInUse => "stop what uses this port, or choose another one".to_owned(),
        std::io::ErrorKind::PermissionDenied => {
            "use a port from 1024 on, or give the binary the right to small ones (CAP_NET_BIND_SERVICE)"
                .to_owned()
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "use an address this machine has, or 0.0.0.0 for all of them".to_owned()
        }
        _ => "check the address".to_owned(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_ends_in_the_documented_exit_code() {
        let mut signals = Signals::install().unwrap();
        assert_eq!(ended(std::future::ready(0), &mut signals).await, ExitCode::SUCCESS);
        assert_eq!(ended(std::future::ready(2), &mut signals).await, ExitCode::from(3));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        assert_eq!(ended(std::future::pending(), &mut signals).await, ExitCode::from(143));
        assert_eq!(Signal::Interrupt.exit_code(), 130);
    }

    #[test]
    fn advice_fits_the_cause() {
        let advice = |kind| bind_advice(&std::io::Error::from(kind));
        assert!(advice(std::io::ErrorKind::AddrInUse).contains("choose another"));
        assert!(advice(std::io::ErrorKind::PermissionDenied).contains("1024"));
    }
}
