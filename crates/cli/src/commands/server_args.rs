//! The flags that `adit http server` and `adit tcp server` share, and the gateway they make.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use adit_gateway::config::{Config, Control, HttpListener, Limits, LocalToken, State, TcpServices, Tls};
use ipnet::IpNet;

use crate::config::env;
use crate::config::gateway::GatewaySettings;
use crate::config::values::LogTarget;
use crate::error::CliError;
use crate::flags::{LogArgs, bind_ip, control_url, go_bool, network};
use crate::generate::{GenerateArgs, HandedFile, Manifest, PublicPort, Role};
use crate::token::{AdminTokenArgs, TokenArgs};
use crate::{duration, generate, output, role};

/// Flags of every gateway that is started from flags.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// Port for agents, `adit status` and Prometheus.
    #[arg(long, value_name = "PORT", default_value_t = 8123)]
    control_port: u16,
    /// Address the control port is bound to.
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", value_parser = bind_ip)]
    control_addr: IpAddr,
    /// Serve agents by QUIC as well, on the UDP port of the same number.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    quic: bool,
    /// Address that public ports are bound to.
    #[arg(long, visible_alias = "listen-data", value_name = "IP", default_value = "0.0.0.0", value_parser = bind_ip)]
    data_addr: IpAddr,
    #[command(flatten)]
    tls: TlsArgs,
    /// Addresses and networks that may use public ports; everyone when left out.
    #[arg(long, visible_alias = "allow-cidr", value_name = "IP|CIDR", value_delimiter = ',', value_parser = network)]
    allow_ips: Vec<IpNet>,
    /// Addresses and networks of proxies in front whose X-Forwarded-* and PROXY headers are believed.
    #[arg(long, value_name = "IP|CIDR", value_delimiter = ',', value_parser = network)]
    trusted_proxy: Vec<IpNet>,
    /// Every public connection comes from a --trusted-proxy and begins with a PROXY header, of either version.
    #[arg(long, value_name = "v1|v2", num_args = 0..=1, default_missing_value = "", value_parser = ["", "v1", "v2"])]
    lb_proxy_protocol: Option<String>,
    /// Where identities, services and policies are kept; in memory when left out.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The control port as those who enroll reach it, https://HOST:PORT; the first is the one they keep. Made from
    /// --auto-tls-san when left out.
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = control_url)]
    advertise: Vec<String>,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    admin_token: AdminTokenArgs,
    /// Where one line per request or connection is written: off, stdout, stderr or a file.
    #[arg(long, value_name = "WHERE", default_value = "off")]
    request_log: String,
    /// How long open flows may go on after SIGTERM or SIGINT.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    drain_timeout: Duration,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    generate: GenerateArgs,
    #[command(flatten)]
    acme: AcmeArgs,
}

/// What a gateway from flags carries.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Public HTTP listeners.
    pub(crate) http: Vec<HttpListener>,
    /// TCP services.
    pub(crate) tcp: Option<TcpServices>,
    /// Agents may have the gateway connect to addresses of its own network.
    pub(crate) client_forwarding: bool,
    /// The flags that say all this, each one word, for `--generate`.
    pub(crate) flags: Vec<String>,
    /// The public ports, as far as they are known.
    pub(crate) public: Vec<PublicPort>,
}

/// Where the control port's certificate comes from.
#[derive(Debug, clap::Args)]
struct TlsArgs {
    /// Make a certificate for the control port. Agents know the gateway by its proof of the token.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    auto_tls: bool,
    /// Names and addresses the made certificate is valid for, beside localhost.
    #[arg(long, value_name = "NAME|IP", value_delimiter = ',')]
    auto_tls_san: Vec<String>,
    /// Where the made authority and keys are kept [default: $STATE_DIRECTORY, /var/lib/adit as root, or
    /// ~/.local/state/adit].
    #[arg(long, value_name = "DIR")]
    auto_tls_path: Option<PathBuf>,
    /// PEM file with the control port's certificate chain; needs --auto-tls=false.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM file with its private key; needs --auto-tls=false.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

/// Flags that are understood so that they can be answered.
#[derive(Debug, clap::Args)]
struct AcmeArgs {
    #[arg(long, hide = true, value_name = "DOMAIN", value_delimiter = ',')]
    letsencrypt_domain: Vec<String>,
    #[arg(long, hide = true, value_name = "EMAIL")]
    letsencrypt_email: Option<String>,
    #[arg(long, hide = true, value_name = "ISSUER", value_parser = ["prod", "staging"])]
    letsencrypt_issuer: Option<String>,
}

impl AcmeArgs {
    fn refuse(&self) -> Result<(), CliError> {
        let acme = [
            (!self.letsencrypt_domain.is_empty(), "--letsencrypt-domain"),
            (self.letsencrypt_email.is_some(), "--letsencrypt-email"),
            (self.letsencrypt_issuer.is_some(), "--letsencrypt-issuer"),
        ];
        match acme.into_iter().find(|&(given, _)| given) {
            None => Ok(()),
            Some((_, flag)) => Err(CliError::usage(format!("{flag} cannot be used"))
                .because("this version does not fetch certificates by itself")
                .next(
                    "give files: --auto-tls=false --tls-cert FILE --tls-key FILE for the control port, \
                     or http[].tls in gateway.yaml for a public HTTPS listener",
                )),
        }
    }
}

impl TlsArgs {
    /// `state` is where this gateway keeps what it keeps, if anywhere.
    fn tls(&self, state: Option<&Path>) -> Result<Tls, CliError> {
        let given = self.tls_cert.is_some() || self.tls_key.is_some();
        if self.auto_tls {
            if given {
                return Err(CliError::usage("--tls-cert and --tls-key cannot be used with --auto-tls")
                    .because("a certificate is either made or read from files")
                    .next("add --auto-tls=false"));
            }
            let directory = self.auto_tls_path.clone().or_else(|| state.map(Path::to_owned));
            let directory = directory.or_else(env::state_directory);
            return Ok(Tls::Auto { names: self.auto_tls_san.clone(), directory });
        }
        if !self.auto_tls_san.is_empty() || self.auto_tls_path.is_some() {
            return Err(CliError::usage(
                "--auto-tls-san and --auto-tls-path cannot be used with --auto-tls=false",
            )
            .because("no certificate is made")
            .next("remove them, or --auto-tls=false"));
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Ok(Tls::Files { cert: cert.clone(), key: key.clone() }),
            _ => Err(CliError::usage("--auto-tls=false needs --tls-cert and --tls-key")
                .because("the control port always speaks TLS")
                .next("name the PEM files of the certificate chain and its key")),
        }
    }
}

/// Every agent would be an administrator.
fn refuse_one_secret_twice(tokens: &[LocalToken]) -> Result<(), CliError> {
    let [agents, admin] = tokens else { return Ok(()) };
    if agents.secret.expose() != admin.secret.expose() {
        return Ok(());
    }
    Err(CliError::usage("the agents' token and the administrator's token are the same")
        .because("whoever connects an agent could use the admin interface as well")
        .next("make one of its own for --admin-token-file: head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'"))
}

impl ServerArgs {
    /// Where the control port is bound.
    pub(crate) const fn control(&self) -> SocketAddr {
        SocketAddr::new(self.control_addr, self.control_port)
    }

    /// Where public ports are bound.
    pub(crate) const fn data_addr(&self) -> IpAddr {
        self.data_addr
    }

    /// Whether public connections begin with a balancer's PROXY header.
    ///
    /// # Errors
    /// They do, but nobody is trusted to say such things.
    pub(crate) fn lb_proxy_protocol(&self) -> Result<bool, CliError> {
        if self.lb_proxy_protocol.is_some() && self.trusted_proxy.is_empty() {
            return Err(CliError::usage("--lb-proxy-protocol needs --trusted-proxy")
                .because("whoever connects could otherwise choose the address it is taken for")
                .next("name the balancer's addresses: --trusted-proxy 10.0.0.0/8"));
        }
        Ok(self.lb_proxy_protocol.is_some())
    }

    /// Runs a gateway that carries this, or prints what would run it elsewhere. `verb` is the command.
    ///
    /// # Errors
    /// The flags are wrong, or the gateway could not be started.
    pub(crate) async fn run(self, verb: &'static str, carried: Carried) -> Result<ExitCode, CliError> {
        self.acme.refuse()?;
        self.tls.tls(self.state_dir.as_deref())?;
        if let Some(target) = self.generate.target() {
            output::print(&generate::render(target, &self.manifest(verb, carried)?)?);
            return Ok(ExitCode::SUCCESS);
        }
        role::gateway(role::Source::Flags(self.settings(carried)?)).await
    }

    /// The gateway's settings.
    ///
    /// # Errors
    /// The flags are wrong.
    pub(crate) fn settings(&self, carried: Carried) -> Result<GatewaySettings, CliError> {
        self.acme.refuse()?;
        let mut tokens = vec![self.token.read()?.of_gateway()?];
        tokens.extend(self.admin_token.read()?);
        refuse_one_secret_twice(&tokens)?;
        Ok(GatewaySettings {
            config: Config {
                control: Control {
                    listen: self.control(),
                    tls: self.tls.tls(self.state_dir.as_deref())?,
                    quic: self.quic,
                },
                http: carried.http,
                tcp: carried.tcp,
                tokens,
                state: self.state()?,
                allow: self.allow_ips.clone(),
                trusted_proxies: self.trusted_proxy.clone(),
                client_forwarding: carried.client_forwarding,
                limits: Limits::default(),
                request_log: None,
                drain_timeout: self.drain_timeout,
                process_log: None,
                revision: crate::version::SHA,
            },
            request_log: LogTarget::from_text(&self.request_log),
            log: self.log.settings(),
        })
    }

    fn state(&self) -> Result<State, CliError> {
        let enrollment_life = env::enrollment_duration()
            .map_err(|what| CliError::usage(what).next("give a whole number of minutes, from 1 on"))?;
        let defaults = State::default();
        Ok(State {
            directory: self.state_dir.clone(),
            advertise: self.advertise.clone(),
            enrollment_life: enrollment_life.unwrap_or(defaults.enrollment_life),
            ..defaults
        })
    }

    fn manifest(&self, verb: &'static str, carried: Carried) -> Result<Manifest, CliError> {
        let mut flags = vec![
            format!("--control-port={}", self.control_port),
            format!("--control-addr={}", self.control_addr),
            format!("--data-addr={}", self.data_addr),
            format!("--auto-tls={}", self.tls.auto_tls),
        ];
        flags.extend((!self.quic).then(|| "--quic=false".to_owned()));
        flags.extend(carried.flags);
        flags.extend(self.tls.auto_tls_san.iter().map(|name| format!("--auto-tls-san={name}")));
        if let Some(directory) = &self.state_dir {
            flags.push(format!("--state-dir={}", generate::absolute(directory)?.display()));
        }
        flags.extend(self.advertise.iter().map(|url| format!("--advertise={url}")));
        flags.extend(self.allow_ips.iter().map(|network| format!("--allow-ips={network}")));
        flags.extend(self.trusted_proxy.iter().map(|network| format!("--trusted-proxy={network}")));
        flags.extend(self.lb_proxy_protocol.is_some().then(|| "--lb-proxy-protocol".to_owned()));
        flags.push(format!("--drain-timeout={}", duration::show(&self.drain_timeout)));
        let request_log = match LogTarget::from_text(&self.request_log) {
            LogTarget::File(path) => LogTarget::File(generate::absolute(&path)?),
            other @ (LogTarget::Off | LogTarget::Stdout | LogTarget::Stderr) => other,
        };
        if request_log != LogTarget::Off {
            flags.push(format!("--request-log={}", request_log.show()));
        }
        flags.extend(self.log.arguments());
        let mut files = Vec::new();
        for (flag, id, path) in
            [("--tls-cert", "tls.crt", &self.tls.tls_cert), ("--tls-key", "tls.key", &self.tls.tls_key)]
        {
            if let Some(path) = path {
                files.push(HandedFile { flag, id, path: generate::absolute(path)? });
            }
        }
        if let Some((flag, path)) = self.admin_token.source() {
            files.push(HandedFile { flag, id: "admin-token", path: generate::absolute(path)? });
        }
        Ok(Manifest {
            role: Role::Gateway { control: self.control_port, public: carried.public },
            name: self.generate.name("adit-gateway")?,
            verb,
            flags,
            token: self.token.source()?,
            files,
            state: self.tls.auto_tls_path.as_deref().map(generate::absolute).transpose()?,
            writes: if let LogTarget::File(path) = request_log { Some(path) } else { None },
            drain_timeout: self.drain_timeout,
        })
    }
}
