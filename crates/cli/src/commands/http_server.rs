//! `adit http server`: a gateway from flags alone.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adit_gateway::config::{Config, Control, HttpListener, Limits, NamedToken, Tls};
use adit_tunnel::proof::TokenKey;
use ipnet::IpNet;

use crate::config::env;
use crate::config::gateway::GatewaySettings;
use crate::config::values::LogTarget;
use crate::error::CliError;
use crate::flags::{LogArgs, bind_ip, go_bool, network};
use crate::generate::{GenerateArgs, HandedFile, Manifest, Role};
use crate::token::TokenArgs;
use crate::{duration, generate, output, role};

/// Flags of `adit http server`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Port for agents, `adit status` and Prometheus.
    #[arg(long, value_name = "PORT", default_value_t = 8123)]
    control_port: u16,
    /// Address the control port is bound to.
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", value_parser = bind_ip)]
    control_addr: IpAddr,
    /// Public HTTP port.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// Address the public port is bound to.
    #[arg(long, visible_alias = "listen-data", value_name = "IP", default_value = "0.0.0.0", value_parser = bind_ip)]
    data_addr: IpAddr,
    #[command(flatten)]
    tls: TlsArgs,
    /// Addresses and networks that may use the public port; everyone when left out.
    #[arg(long, visible_alias = "allow-cidr", value_name = "IP|CIDR", value_delimiter = ',', value_parser = network)]
    allow_ips: Vec<IpNet>,
    /// Addresses and networks of proxies in front whose X-Forwarded-* headers are believed.
    #[arg(long, value_name = "IP|CIDR", value_delimiter = ',', value_parser = network)]
    trusted_proxy: Vec<IpNet>,
    #[command(flatten)]
    token: TokenArgs,
    /// Where one line per request is written: off, stdout, stderr or a file.
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
    elsewhere: ElsewhereArgs,
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
struct ElsewhereArgs {
    #[arg(long, hide = true, value_name = "DOMAIN", value_delimiter = ',')]
    letsencrypt_domain: Vec<String>,
    #[arg(long, hide = true, value_name = "EMAIL")]
    letsencrypt_email: Option<String>,
    #[arg(long, hide = true, value_name = "ISSUER", value_parser = ["prod", "staging"])]
    letsencrypt_issuer: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = false)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    client_forwarding: bool,
    #[arg(long, hide = true, value_name = "VERSION")]
    proxy_protocol: Option<String>,
    #[arg(long, hide = true, value_name = "VERSION", num_args = 0..=1, default_missing_value = "")]
    lb_proxy_protocol: Option<String>,
}

impl ElsewhereArgs {
    fn refuse(&self) -> Result<(), CliError> {
        let acme = [
            (!self.letsencrypt_domain.is_empty(), "--letsencrypt-domain"),
            (self.letsencrypt_email.is_some(), "--letsencrypt-email"),
            (self.letsencrypt_issuer.is_some(), "--letsencrypt-issuer"),
        ];
        if let Some((_, flag)) = acme.into_iter().find(|&(given, _)| given) {
            return Err(CliError::usage(format!("{flag} cannot be used"))
                .because("this version does not fetch certificates by itself")
                .next(
                    "give files: --auto-tls=false --tls-cert FILE --tls-key FILE for the control port, \
                     or http[].tls in gateway.yaml for a public HTTPS listener",
                ));
        }
        let tcp = [
            (self.client_forwarding, "--client-forwarding"),
            (self.proxy_protocol.as_ref().is_some_and(|version| !version.is_empty()), "--proxy-protocol"),
            (self.lb_proxy_protocol.is_some(), "--lb-proxy-protocol"),
        ];
        if let Some((_, flag)) = tcp.into_iter().find(|&(given, _)| given) {
            return Err(CliError::usage(format!("{flag} cannot be used with an HTTP tunnel"))
                .because("it belongs to TCP services")
                .next("remove it; behind a proxy, --trusted-proxy CIDR makes X-Forwarded-For believed"));
        }
        Ok(())
    }
}

impl TlsArgs {
    fn tls(&self) -> Result<Tls, CliError> {
        let given = self.tls_cert.is_some() || self.tls_key.is_some();
        if self.auto_tls {
            if given {
                return Err(CliError::usage("--tls-cert and --tls-key cannot be used with --auto-tls")
                    .because("a certificate is either made or read from files")
                    .next("add --auto-tls=false"));
            }
            let directory = self.auto_tls_path.clone().or_else(env::state_directory);
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

/// Runs the gateway, or prints what would run it elsewhere.
///
/// # Errors
/// The flags are wrong, or the gateway could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    args.elsewhere.refuse()?;
    args.tls.tls()?;
    if let Some(target) = args.generate.target() {
        output::print(&generate::render(target, &args.manifest()?)?);
        return Ok(ExitCode::SUCCESS);
    }
    role::gateway(args.settings()?).await
}

impl Args {
    fn control(&self) -> SocketAddr {
        SocketAddr::new(self.control_addr, self.control_port)
    }

    fn data(&self) -> SocketAddr {
        SocketAddr::new(self.data_addr, self.port)
    }

    fn settings(&self) -> Result<GatewaySettings, CliError> {
        if self.control() == self.data() && self.port != 0 {
            return Err(CliError::usage(format!("--control-port and --port are both {}", self.port))
                .because("one address cannot serve both")
                .next("choose two ports"));
        }
        let key: TokenKey = self.token.read()?.key();
        Ok(GatewaySettings {
            config: Config {
                control: Control { listen: self.control(), tls: self.tls.tls()? },
                http: vec![HttpListener { listen: self.data(), tls: None }],
                tokens: vec![NamedToken { name: "default".to_owned(), key }],
                allow: self.allow_ips.clone(),
                trusted_proxies: self.trusted_proxy.clone(),
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

    fn manifest(&self) -> Result<Manifest, CliError> {
        let mut flags = vec![
            format!("--control-port={}", self.control_port),
            format!("--control-addr={}", self.control_addr),
            format!("--port={}", self.port),
            format!("--data-addr={}", self.data_addr),
            format!("--auto-tls={}", self.tls.auto_tls),
        ];
        flags.extend(self.tls.auto_tls_san.iter().map(|name| format!("--auto-tls-san={name}")));
        flags.extend(self.allow_ips.iter().map(|network| format!("--allow-ips={network}")));
        flags.extend(self.trusted_proxy.iter().map(|network| format!("--trusted-proxy={network}")));
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
        Ok(Manifest {
            role: Role::Gateway { control: self.control_port, http: self.port },
            name: self.generate.name("adit-gateway")?,
            verb: "http server",
            flags,
            token: self.token.source()?,
            files,
            state: self.tls.auto_tls_path.as_deref().map(generate::absolute).transpose()?,
            writes: if let LogTarget::File(path) = request_log { Some(path) } else { None },
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
        args: Args,
    }

    fn parse(line: &str) -> Args {
        Line::parse_from(std::iter::once("server").chain(line.split(' '))).args
    }

    fn refused(line: &str) -> String {
        let args = parse(line);
        let result = args.elsewhere.refuse().and_then(|()| args.settings().map(drop));
        result.unwrap_err().to_string()
    }

    #[test]
    fn flags_become_a_gateways_configuration() {
        let settings = parse(
            "--token T --auto-tls --auto-tls-san=localhost,10.0.0.1 --auto-tls-path /s --port 9000 \
                              --listen-data 127.0.0.1 --allow-cidr 10.0.0.0/8 --allow-ips ::1",
        )
        .settings()
        .unwrap();
        assert_eq!(settings.config.control.listen.to_string(), "0.0.0.0:8123");
        assert_eq!(settings.config.http[0].listen.to_string(), "127.0.0.1:9000");
        assert_eq!(settings.config.allow.len(), 2);
        assert!(settings.config.tokens[0].key.is_token(b"T"));
        let Tls::Auto { names, directory } = settings.config.control.tls else { panic!("not auto") };
        assert_eq!((names.len(), directory), (2, Some(PathBuf::from("/s"))));
        assert_eq!(settings.request_log, LogTarget::Off);
    }

    #[test]
    fn files_need_auto_tls_to_be_off_and_the_other_way_round() {
        assert!(refused("--token T --tls-cert c --tls-key k").contains("add --auto-tls=false"));
        assert!(refused("--token T --auto-tls=false").contains("needs --tls-cert and --tls-key"));
        assert!(
            refused("--token T --auto-tls=false --tls-cert c").contains("needs --tls-cert and --tls-key")
        );
        let settings = parse("--token T --auto-tls=false --tls-cert c --tls-key k").settings().unwrap();
        assert!(matches!(settings.config.control.tls, Tls::Files { .. }));
    }

    #[test]
    fn what_belongs_elsewhere_is_answered() {
        assert!(refused("--token T --letsencrypt-domain a.com").contains("--tls-cert FILE --tls-key FILE"));
        for flag in ["--client-forwarding", "--proxy-protocol v2", "--lb-proxy-protocol v1"] {
            assert!(refused(&format!("--token T {flag}")).contains("belongs to TCP services"), "{flag}");
        }
        assert!(refused("--token T --port 8123").contains("both 8123"));
    }
}
