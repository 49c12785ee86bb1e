//! `adit dial`: a service by its name, on the standard input and output or on an address.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_agent::config::{Config, Credential, Forward, GatewayUrl, To, Verify};
use adit_agent::{Agent, Refused};
use adit_proto::name::Name;
use adit_proto::reason::Reason;
use adit_tunnel::identity::LiveIdentity;
use adit_tunnel::relay::{Meter, Terms, relay};
use adit_tunnel::session::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Stdin, Stdout, stdin, stdout};

use crate::access;
use crate::config::agent::AgentSettings;
use crate::duration;
use crate::egress::EgressArgs;
use crate::error::CliError;
use crate::flags::{LogArgs, go_bool};
use crate::role;
use crate::token::TokenArgs;

/// How long the last words may take.
const DRAIN: Duration = Duration::from_secs(2);

/// Flags of `adit dial`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit dial web --identity alice.json                      like nc, through the gateway
  adit dial db --identity alice.json --listen 127.0.0.1:5432
  ssh -o ProxyCommand='adit dial ssh.%h --identity alice.json' box

The standard input goes to the service, and what it says to the standard output. The end of the input is passed on; the
command ends when the service has said all.")]
pub(crate) struct Args {
    /// The service.
    #[arg(value_name = "NAME")]
    service: Name,
    /// The identity file that adit enroll wrote; its gateway is dialled unless --url names another.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    #[command(flatten)]
    token: TokenArgs,
    /// The gateway's control port, as in wss://HOST:8123; for several gateways repeat, or separate with commas.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    url: Vec<GatewayUrl>,
    /// Accept the gateway by its proof of the token. With --auto-tls=false its certificate is verified as well.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    auto_tls: bool,
    /// PEM file with the only authorities that may have signed the gateway's certificate; needs --auto-tls=false.
    #[arg(long, visible_alias = "tls-ca", value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    egress: EgressArgs,
    /// Listen here and dial the service for each connection, until told to end.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// How long reaching the gateway may take, without --listen.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    log: LogArgs,
}

/// Dials.
///
/// # Errors
/// The flags are wrong, the gateway cannot be reached, or the dial is refused.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut config = args.config()?;
    if let Some(listen) = args.listen {
        config.forwards.push(Forward { listen, to: To::Service(args.service) });
        let settings = AgentSettings { config, log: args.log.settings() };
        return role::agent(role::Source::Flags(settings)).await;
    }
    config.dials = true;
    if let Credential::Identity(identity) = &config.credential {
        access::warn_if_exposed(identity);
    }
    let agent = Agent::start(config).await.map_err(|cause| role::agent_failed(&cause))?;
    let connected = tokio::select! {
        // A refusal is a failure as well, and says more.
        biased;
        connected = tokio::time::timeout(args.timeout, agent.connected()) => connected,
        refusal = agent.refused() => {
            return Err(CliError::failure("the gateway refuses the session").because(refusal));
        }
        // Whoever waits at a terminal, or for ssh, tries again better than this could.
        failure = agent.failed() => {
            return Err(CliError::failure("cannot reach the gateway").because(failure).next(
                "check that the address is a gateway's control port, of the gateway that made the identity or token, \
                 and that it is open from here",
            ));
        }
    };
    connected.map_err(|_elapsed| {
        let seconds = duration::show(&args.timeout);
        CliError::failure("cannot reach the gateway")
            .because(format!("no session stands after {seconds}"))
            .next("check --url, and that its port is open from here")
    })?;
    let stream =
        agent.dial(&args.service).await.map_err(|refused| refused_because(&args.service, &refused))?;
    let reason = carry(stream).await;
    agent.drain().await;
    if reason == Reason::Done {
        return Ok(ExitCode::SUCCESS);
    }
    Err(CliError::failure(format!("the connection to {} was cut: {reason}", args.service))
        .because(reason.explanation()))
}

fn refused_because(service: &Name, refused: &Refused) -> CliError {
    CliError::failure(format!("cannot dial {service}: {}", refused.reason)).because(&refused.text)
}

/// Moves bytes until the service has said all.
async fn carry(stream: Stream) -> Reason {
    let terms = Terms { lost: Reason::ClientGone, patience: None };
    let here = Standard { input: stdin(), output: stdout(), is_over: false };
    relay(stream, here, terms, &Uncounted).await.reason
}

/// Nobody asks how much it was.
struct Uncounted;

impl Meter for Uncounted {
    fn sent(&self, _bytes: u64) {}
    fn received(&self, _bytes: u64) {}
}

/// The standard input and output. Once the output has ended, so has the input: nobody would answer it, and at a terminal
/// it would be waited for in vain.
struct Standard {
    input: Stdin,
    output: Stdout,
    is_over: bool,
}

impl AsyncRead for Standard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.input).poll_read(cx, buf)
    }
}

impl AsyncWrite for Standard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.output).poll_flush(cx));
        self.is_over = true;
        Poll::Ready(flushed)
    }
}

impl Args {
    fn config(&self) -> Result<Config, CliError> {
        let credential = match &self.identity {
            Some(_) if self.token.is_given() => {
                return Err(CliError::usage("--identity and a token are both given").next("keep one of them"));
            }
            Some(file) => Credential::Identity(LiveIdentity::open(file).map_err(|cause| {
                CliError::usage(format!("the identity {} cannot be used", file.display()))
                    .caused_by(&cause)
                    .next("name the file that adit enroll wrote")
            })?),
            None if self.token.is_given() => Credential::Token(self.token.read()?.key()),
            None => {
                return Err(CliError::usage("nothing says who dials")
                    .next("name an identity with --identity FILE, or a token with --token-file FILE"));
            }
        };
        Ok(Config {
            gateways: self.gateways(&credential)?,
            each_address: false,
            egress: self.egress.egress()?,
            verify: self.verify()?,
            credential,
            services: Vec::new(),
            forwards: Vec::new(),
            dials: false,
            listen: None,
            drain_timeout: DRAIN,
            process_log: None,
            revision: crate::version::SHA,
        })
    }

    fn gateways(&self, credential: &Credential) -> Result<Vec<GatewayUrl>, CliError> {
        match credential {
            Credential::Identity(identity) if self.url.is_empty() => {
                let file = identity.file();
                let url = file.api().trim_end_matches('/').parse().map_err(
                    |cause: adit_agent::config::UrlError| {
                        CliError::usage("the identity names no gateway that can be dialled")
                            .caused_by(&cause)
                            .next("name it with --url wss://HOST:8123")
                    },
                )?;
                Ok(vec![url])
            }
            _ if self.url.is_empty() => {
                Err(CliError::usage("no gateway to dial through").next("name it with --url wss://HOST:8123"))
            }
            _ => Ok(self.url.clone()),
        }
    }

    fn verify(&self) -> Result<Verify, CliError> {
        match (self.auto_tls, &self.ca) {
            _ if self.identity.is_some() && (self.ca.is_some() || !self.auto_tls) => {
                Err(CliError::usage("--ca and --auto-tls=false have no meaning with --identity")
                    .because("the identity's file says which authorities are believed")
                    .next("remove them"))
            }
            (true, None) => Ok(Verify::TokenProof),
            (false, None) => Ok(Verify::System),
            (false, Some(ca)) => Ok(Verify::Ca(ca.clone())),
            (true, Some(_)) => Err(CliError::usage("--ca cannot be used with --auto-tls")
                .because("the gateway is known by its proof of the token, and any certificate will do")
                .next("add --auto-tls=false to verify the certificate as well")),
        }
    }
}
