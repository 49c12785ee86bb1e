//! `adit http server`: a gateway from flags alone.

use std::net::SocketAddr;
use std::process::ExitCode;

use adit_gateway::config::HttpListener;

use crate::commands::server_args::{Carried, ServerArgs};
use crate::error::CliError;
use crate::flags::go_bool;
use crate::generate::PublicPort;

/// Flags of `adit http server`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Public HTTP port.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
}

/// Flags that are understood so that they can be answered.
#[derive(Debug, clap::Args)]
struct ElsewhereArgs {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = false)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    client_forwarding: bool,
    #[arg(long, hide = true, value_name = "VERSION")]
    proxy_protocol: Option<String>,
}

impl ElsewhereArgs {
    fn refuse(&self) -> Result<(), CliError> {
        let tcp = [
            (self.client_forwarding, "--client-forwarding"),
            (self.proxy_protocol.as_ref().is_some_and(|version| !version.is_empty()), "--proxy-protocol"),
        ];
        if let Some((_, flag)) = tcp.into_iter().find(|&(given, _)| given) {
            return Err(CliError::usage(format!("{flag} cannot be used with an HTTP tunnel"))
                .because("it belongs to TCP services")
                .next("remove it; upstreams of HTTP services are told by X-Forwarded-For"));
        }
        Ok(())
    }
}

/// Runs the gateway, or prints what would run it elsewhere.
///
/// # Errors
/// The flags are wrong, or the gateway could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let carried = args.carried()?;
    args.server.run("http server", carried).await
}

impl Args {
    fn carried(&self) -> Result<Carried, CliError> {
        self.elsewhere.refuse()?;
        let listen = SocketAddr::new(self.server.data_addr(), self.port);
        if self.server.control() == listen && self.port != 0 {
            return Err(CliError::usage(format!("--control-port and --port are both {}", self.port))
                .because("one address cannot serve both")
                .next("choose two ports"));
        }
        let lb_proxy_protocol = self.server.lb_proxy_protocol()?;
        Ok(Carried {
            http: vec![HttpListener { listen, tls: None, lb_proxy_protocol }],
            flags: vec![format!("--port={}", self.port)],
            public: vec![PublicPort { name: "http".to_owned(), port: self.port }],
            ..Carried::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use adit_gateway::config::Tls;

    use super::*;
    use crate::config::values::LogTarget;

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
        args.carried().and_then(|carried| args.server.settings(carried)).unwrap_err().to_string()
    }

    #[test]
    fn flags_become_a_gateways_configuration() {
        let args = parse(
            "--token T --auto-tls --auto-tls-san=localhost,10.0.0.1 --auto-tls-path /s --port 9000 \
                              --listen-data 127.0.0.1 --allow-cidr 10.0.0.0/8 --allow-ips ::1",
        );
        let settings = args.server.settings(args.carried().unwrap()).unwrap();
        assert_eq!(settings.config.control.listen.to_string(), "0.0.0.0:8123");
        assert_eq!(settings.config.http[0].listen.to_string(), "127.0.0.1:9000");
        assert_eq!(settings.config.allow.len(), 2);
        assert_eq!(settings.config.tokens[0].secret.expose(), "T");
        let Tls::Auto { names, directory } = settings.config.control.tls else { panic!("not auto") };
        assert_eq!((names.len(), directory), (2, Some("/s".into())));
        assert_eq!(settings.request_log, LogTarget::Off);
    }

    #[test]
    fn files_need_auto_tls_to_be_off_and_the_other_way_round() {
        assert!(refused("--token T --tls-cert c --tls-key k").contains("add --auto-tls=false"));
        assert!(refused("--token T --auto-tls=false").contains("needs --tls-cert and --tls-key"));
        assert!(
            refused("--token T --auto-tls=false --tls-cert c").contains("needs --tls-cert and --tls-key")
        );
        let args = parse("--token T --auto-tls=false --tls-cert c --tls-key k");
        let settings = args.server.settings(args.carried().unwrap()).unwrap();
        assert!(matches!(settings.config.control.tls, Tls::Files { .. }));
    }

    #[test]
    fn what_belongs_elsewhere_is_answered() {
        assert!(refused("--token T --letsencrypt-domain a.com").contains("--tls-cert FILE --tls-key FILE"));
        for flag in ["--client-forwarding", "--proxy-protocol v2"] {
            assert!(refused(&format!("--token T {flag}")).contains("belongs to TCP services"), "{flag}");
        }
        assert!(refused("--token T --port 8123").contains("both 8123"));
        assert!(refused("--token T --lb-proxy-protocol v1").contains("needs --trusted-proxy"));
    }
}
