//! The flags that `adit http client` and `adit tcp client` share, and the agent they make.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adit_agent::config::{Config, Credential, Forward, GatewayUrl, Service, Transport, Verify};

use crate::config::agent::AgentSettings;
use crate::config::values::{TRANSPORT, read_transport, show_transport};
use crate::egress::EgressArgs;
use crate::error::CliError;
use crate::flags::{LogArgs, go_bool};
use crate::generate::{GenerateArgs, HandedFile, Manifest, Role};
use crate::token::TokenArgs;
use crate::{duration, generate, output, role};

/// Flags of every agent that is started from flags.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// The gateway's control port, as in wss://HOST:8123; for several gateways repeat, or separate with commas.
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// Keep a session to each address that a gateway's name resolves to, instead of to whichever answers first.
    #[arg(long)]
    each_address: bool,
    /// Deprecated: use --url.
    #[arg(long, value_name = "URL", hide = true)]
    connect: Option<String>,
    /// What carries the session: auto, tls, websocket (or wss) or quic.
    #[arg(long, value_name = "TRANSPORT", default_value = "auto", value_parser = transport)]
    transport: Transport,
    /// Accept the gateway by its proof of the token. With --auto-tls=false its certificate is verified as well.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    auto_tls: bool,
    /// PEM file with the only authorities that may have signed the gateway's certificate; needs --auto-tls=false.
    #[arg(long, visible_alias = "tls-ca", value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    egress: EgressArgs,
    #[command(flatten)]
    token: TokenArgs,
    /// Where the agent's own /metrics, /healthz and /ready listen; nowhere when left out.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// How long open streams may go on after SIGTERM or SIGINT.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    drain_timeout: Duration,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    generate: GenerateArgs,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
}

/// What an agent from flags offers.
#[derive(Debug)]
pub(crate) struct Offered {
    /// The services.
    pub(crate) services: Vec<Service>,
    /// What is forwarded the other way round.
    pub(crate) forwards: Vec<Forward>,
    /// The flags that say all this, each one word, for `--generate`.
    pub(crate) flags: Vec<String>,
}

/// Flags that are understood so that they can be answered.
#[derive(Debug, clap::Args)]
struct ElsewhereArgs {
    #[arg(long, hide = true, value_name = "LICENSE")]
    license: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    license_file: Option<String>,
    #[arg(long, hide = true, value_name = "NAME")]
    license_env: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = false)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    demux: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = false)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    insecure: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = true)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    strict_forwarding: bool,
}

fn transport(text: &str) -> Result<Transport, String> {
    read_transport(text).ok_or_else(|| format!("write {}", TRANSPORT.form))
}

impl ElsewhereArgs {
    fn answer(&self) -> Result<(), CliError> {
        if self.license.is_some() || self.license_file.is_some() || self.license_env.is_some() {
            output::note("no license is needed; the flag is ignored");
        }
        if self.demux {
            output::note("--demux is not needed: one session always carries every upstream");
        }
        if self.insecure {
            output::note("--insecure changes nothing: a session always runs over TLS");
        }
        if self.strict_forwarding {
            return Ok(());
        }
        Err(CliError::usage("--strict-forwarding=false cannot be used")
            .because(
                "an agent reaches only the upstreams it declares, so that nobody can use it as an open proxy",
            )
            .next("remove the flag and name each upstream with --upstream"))
    }
}

impl ClientArgs {
    /// Runs an agent that offers this, or prints what would run it elsewhere. `verb` is the command.
    ///
    /// # Errors
    /// The flags are wrong, or the agent could not be started.
    pub(crate) async fn run(self, verb: &'static str, offered: Offered) -> Result<ExitCode, CliError> {
        self.elsewhere.answer()?;
        if let Some(target) = self.generate.target() {
            output::print(&generate::render(target, &self.manifest(verb, offered)?)?);
            return Ok(ExitCode::SUCCESS);
        }
        role::agent(role::Source::Flags(self.settings(offered)?)).await
    }

    fn gateways(&self) -> Result<Vec<GatewayUrl>, CliError> {
        if self.connect.is_some() {
            output::warning("--connect is deprecated; use --url, which is the same");
        }
        let (flag, values) = match &self.connect {
            Some(_) if !self.url.is_empty() => {
                return Err(CliError::usage("--url and --connect are both given").next("keep --url"));
            }
            Some(url) => ("--connect", std::slice::from_ref(url)),
            None => ("--url", self.url.as_slice()),
        };
        let mut gateways: Vec<GatewayUrl> = Vec::new();
        for text in
            values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|text| !text.is_empty())
        {
            let mut gateway: GatewayUrl = text.parse().map_err(|cause: adit_agent::config::UrlError| {
                CliError::usage(format!("{flag} {text} cannot be used"))
                    .caused_by(&cause)
                    .next("write wss://HOST:8123")
            })?;
            if !gateway.transport.allows(self.transport) {
                return Err(CliError::usage(format!("{flag} {text} and --transport contradict each other"))
                    .next("write wss:// in the URL, or leave --transport out"));
            }
            if gateway.transport == Transport::Auto {
                gateway.transport = self.transport;
            }
            if gateways.contains(&gateway) {
                return Err(CliError::usage(format!("{flag} names {gateway} twice")).next(
                    "name each gateway once; --each-address keeps a session to each of its addresses",
                ));
            }
            gateways.push(gateway);
        }
        if gateways.is_empty() {
            return Err(
                CliError::usage("no gateway to connect to").next("name it with --url wss://HOST:8123")
            );
        }
        Ok(gateways)
    }

    fn verify(&self) -> Result<Verify, CliError> {
        match (self.auto_tls, &self.ca) {
            (true, None) => Ok(Verify::TokenProof),
            (false, None) => Ok(Verify::System),
            (false, Some(ca)) => Ok(Verify::Ca(ca.clone())),
            (true, Some(_)) => Err(CliError::usage("--ca cannot be used with --auto-tls")
                .because("the gateway is known by its proof of the token, and any certificate will do")
                .next("add --auto-tls=false to verify the certificate as well")),
        }
    }

    fn settings(&self, offered: Offered) -> Result<AgentSettings, CliError> {
        Ok(AgentSettings {
            config: Config {
                gateways: self.gateways()?,
                each_address: self.each_address,
                egress: self.egress.egress()?,
                verify: self.verify()?,
                services: offered.services,
                forwards: offered.forwards,
                dials: false,
                credential: Credential::Token(self.token.read()?.key()),
                listen: self.listen,
                drain_timeout: self.drain_timeout,
                process_log: None,
                revision: crate::version::SHA,
            },
            log: self.log.settings(),
        })
    }

    fn manifest(&self, verb: &'static str, offered: Offered) -> Result<Manifest, CliError> {
        self.verify()?;
        let mut flags: Vec<_> = self.gateways()?.iter().map(|url| format!("--url={url}")).collect();
        flags.extend(self.each_address.then(|| "--each-address".to_owned()));
        flags.push(format!("--auto-tls={}", self.auto_tls));
        flags.extend(offered.flags);
        flags.extend(
            (self.transport != Transport::Auto)
                .then(|| format!("--transport={}", show_transport(self.transport))),
        );
        flags.extend(self.egress.arguments()?);
        flags.extend(self.listen.map(|addr| format!("--listen={addr}")));
        flags.push(format!("--drain-timeout={}", duration::show(&self.drain_timeout)));
        flags.extend(self.log.arguments());
        let ca = self.ca.as_deref().map(generate::absolute).transpose()?;
        Ok(Manifest {
            role: Role::Agent,
            name: self.generate.name("adit-agent")?,
            verb,
            flags,
            token: self.token.source()?,
            files: ca.map(|path| HandedFile { flag: "--ca", id: "ca.crt", path }).into_iter().collect(),
            state: None,
            writes: None,
            drain_timeout: self.drain_timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ClientArgs,
    }

    fn nothing() -> Offered {
        Offered { services: Vec::new(), forwards: Vec::new(), flags: Vec::new() }
    }

    fn parse(line: &str) -> ClientArgs {
        Line::parse_from(std::iter::once("client").chain(line.split(' '))).args
    }

    fn refused(line: &str) -> String {
        let args = parse(line);
        args.elsewhere.answer().and_then(|()| args.settings(nothing()).map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn flags_become_an_agents_configuration() {
        let settings = parse("--token T --connect wss://h/connect").settings(nothing()).unwrap();
        assert_eq!(settings.config.gateways[0].to_string(), "wss://h:8123");
        assert_eq!(settings.config.verify, Verify::TokenProof);
        let by = |flags: &str| parse(&format!("--token T {flags}")).gateways().unwrap()[0].transport;
        assert_eq!(by("--url wss://h --transport wss"), Transport::WebSocket);
        assert_eq!(by("--url h --transport quic"), Transport::Quic);
        assert_eq!(by("--url quic://h"), Transport::Quic);
    }

    #[test]
    fn several_gateways_are_repeats_or_a_list_and_units_carry_them_all() {
        let args = parse("--token T --url wss://a,tls://b:1 --url c --each-address");
        let config = args.settings(nothing()).unwrap().config;
        let shown: Vec<String> = config.gateways.iter().map(ToString::to_string).collect();
        assert_eq!(
            (shown.join(" ").as_str(), config.each_address),
            ("wss://a:8123 tls://b:1 wss://c:8123", true)
        );
        let flags = args.manifest("http client", nothing()).unwrap().flags;
        assert_eq!(
            flags[..4],
            ["--url=wss://a:8123", "--url=tls://b:1", "--url=wss://c:8123", "--each-address"]
        );
    }

    #[test]
    fn verification_follows_auto_tls() {
        let rest = "--token T --url wss://h";
        let verify = |flags: &str| parse(&format!("{rest} {flags}")).verify();
        assert_eq!(verify("--auto-tls=false").unwrap(), Verify::System);
        assert_eq!(verify("--auto-tls=false --tls-ca f").unwrap(), Verify::Ca("f".into()));
        assert!(verify("--ca f").unwrap_err().to_string().contains("--auto-tls=false"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let rest = "--token T";
        assert!(refused(rest).contains("no gateway to connect to"));
        assert!(refused(&format!("{rest} --url ws://h")).contains("use wss://h"));
        assert!(refused(&format!("{rest} --url wss://h,h:8123")).contains("twice"));
        assert!(refused(&format!("{rest} --url tls://h --transport quic")).contains("contradict"));
        assert!(refused(&format!("{rest} --url wss://h --connect wss://h")).contains("keep --url"));
        assert!(refused(&format!("{rest} --url wss://h --strict-forwarding=false")).contains("open proxy"));
    }

    #[test]
    fn notes_do_not_stop_anything() {
        assert!(parse("--license L --demux --insecure --strict-forwarding").elsewhere.answer().is_ok());
    }
}
