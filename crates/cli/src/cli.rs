//! The commands and how they are dispatched.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::error::CliError;
use crate::lazily::Lazily;
use crate::version;

const EXIT_CODES: &str = "\
Exit codes:
  0    done; for a gateway or agent: told to end, and every flow finished
  1    failed, and said why; for check: the file has problems
  2    wrong flags or a wrong configuration file
  3    told to end, but flows had to be cut when the drain timeout passed
  4    with --detailed-exitcode: something would change, or is denied
  130  stopped at once by a second SIGINT
  143  stopped at once by a second SIGTERM";

/// Makes a private service reachable and observable from anywhere, without opening a port.
#[derive(Debug, Parser)]
#[command(name = "adit", version = version::LONG, after_help = EXIT_CODES, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway from a file: what clients and agents connect to.
    Gateway(Lazily<commands::gateway::Args>),
    /// Run an agent from a file: what stands beside the services and only ever dials out.
    Agent(Lazily<commands::agent::Args>),
    /// HTTP tunnels from flags alone.
    Http(Lazily<commands::http::Args>),
    /// TCP tunnels from flags alone.
    Tcp(Lazily<commands::tcp::Args>),
    /// Serve a directory over HTTP.
    Fileserver(Lazily<commands::fileserver::Args>),
    /// Dial a service by its name: like nc, or on an address that listens.
    Dial(Lazily<commands::dial::Args>),
    /// Ask a gateway who is connected.
    Status(Lazily<commands::status::Args>),
    /// Identities: who there is, by certificate.
    #[command(subcommand, visible_alias = "identities", arg_required_else_help = true)]
    Identity(Lazily<commands::resources::IdentityVerb>),
    /// Services: what can be offered and reached.
    #[command(subcommand, visible_alias = "services", arg_required_else_help = true)]
    Service(Lazily<commands::resources::ServiceVerb>),
    /// Configs of services: host.v1 and intercept.v1.
    #[command(subcommand, visible_alias = "configs", arg_required_else_help = true)]
    Config(Lazily<commands::resources::ConfigVerb>),
    /// Policies: who may reach (Dial) or offer (Bind) which services.
    #[command(subcommand, visible_alias = "service-policies", arg_required_else_help = true)]
    ServicePolicy(Lazily<commands::resources::PolicyVerb>),
    /// Routes: hosts and ports of the gateway that lead to services.
    #[command(subcommand, visible_alias = "routes", arg_required_else_help = true)]
    Route(Lazily<commands::resources::RouteVerb>),
    /// Tokens: shared secrets with limits of their own.
    #[command(subcommand, visible_alias = "tokens", arg_required_else_help = true)]
    Token(Lazily<commands::resources::TokenVerb>),
    /// All of these in the forms that people know from OpenZiti.
    #[command(subcommand, arg_required_else_help = true)]
    Edge(Lazily<commands::edge::Verb>),
    /// Turn a one-time token into an identity: a key made here, and a certificate from the gateway.
    Enroll(Lazily<commands::enroll::Args>),
    /// Bring the gateway to what files say.
    Apply(Lazily<commands::apply::Apply>),
    /// Tell what an apply would change.
    Plan(Lazily<commands::apply::Plan>),
    /// Print every resource, as apply takes it.
    Export(Lazily<commands::apply::Export>),
    /// Tell why somebody may or may not reach or offer a service, and what would change it.
    #[command(subcommand, arg_required_else_help = true)]
    Explain(Lazily<commands::explain::Verb>),
    /// Policies of files, checked without a gateway.
    #[command(subcommand, arg_required_else_help = true)]
    Policy(Lazily<commands::policy::PolicyVerb>),
    /// Who changed what.
    #[command(subcommand, arg_required_else_help = true)]
    Audit(Lazily<commands::audit::Verb>),
    /// Print changes as they happen.
    Watch(Lazily<commands::audit::Watch>),
    /// Remember a gateway, and as whom it is asked.
    Login(Lazily<commands::login::Login>),
    /// Forget a gateway.
    Logout(Lazily<commands::login::Logout>),
    /// Choose among the gateways logged in to, or list them.
    Use(Lazily<commands::login::Use>),
    /// Ask the gateway who it takes you for.
    Whoami(Lazily<commands::login::Whoami>),
    /// Print what a shell needs to complete commands and live names.
    Completion(Lazily<commands::completion::Args>),
    /// Back up the state of a gateway, or put it back.
    #[command(subcommand)]
    Backup(Lazily<commands::backup::Verb>),
    /// Try it all on this machine: a gateway, an agent and a service in one process.
    Quickstart(Lazily<commands::quickstart::Args>),
    /// Print the version.
    Version(Lazily<commands::version::Args>),
    /// Write the reference pages.
    #[command(hide = true)]
    Reference(Lazily<commands::reference::Args>),
}

impl Cli {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        match self.command {
            Command::Gateway(Lazily(args)) => Box::pin(commands::gateway::run(args)).await,
            Command::Agent(Lazily(args)) => Box::pin(commands::agent::run(args)).await,
            Command::Http(Lazily(args)) => Box::pin(commands::http::run(args)).await,
            Command::Tcp(Lazily(args)) => Box::pin(commands::tcp::run(args)).await,
            Command::Fileserver(Lazily(args)) => Box::pin(commands::fileserver::run(args)).await,
            Command::Dial(Lazily(args)) => Box::pin(commands::dial::run(args)).await,
            Command::Status(Lazily(args)) => Box::pin(commands::status::run(args)).await,
            Command::Identity(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::Service(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::Config(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::ServicePolicy(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::Route(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::Token(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::Edge(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::Enroll(Lazily(args)) => Box::pin(commands::enroll::run(args)).await,
            Command::Apply(Lazily(args)) => Box::pin(commands::apply::apply(args)).await,
            Command::Plan(Lazily(args)) => Box::pin(commands::apply::plan(args)).await,
            Command::Export(Lazily(args)) => Box::pin(commands::apply::export(args)).await,
            Command::Explain(Lazily(verb)) => Box::pin(commands::explain::run(verb)).await,
            Command::Policy(Lazily(verb)) => commands::policy::run(verb),
            Command::Audit(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::Watch(Lazily(args)) => Box::pin(commands::audit::watch(args)).await,
            Command::Login(Lazily(args)) => Box::pin(commands::login::login(args)).await,
            Command::Logout(Lazily(args)) => commands::login::logout(args),
            Command::Use(Lazily(args)) => commands::login::choose(&args),
            Command::Whoami(Lazily(args)) => Box::pin(commands::login::whoami(args)).await,
            Command::Completion(Lazily(args)) => commands::completion::run(&args),
            Command::Backup(Lazily(verb)) => Box::pin(verb.run()).await,
            Command::Quickstart(Lazily(args)) => Box::pin(commands::quickstart::run(args)).await,
            Command::Version(Lazily(args)) => Ok(commands::version::run(&args)),
            Command::Reference(Lazily(args)) => commands::reference::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_exit_code() {
        let help = Cli::command().render_help().to_string();
        for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "130", "143"] {
            assert!(help.contains(&format!("\n  {code}")), "{help}");
        }
    }

    #[test]
    fn spellings_of_scripts_for_the_neighbours_parse() {
        for line in [
            "adit http server --token T --auto-tls=true --auto-tls-san=localhost --port 8000",
            "adit http client --token T --url wss://localhost:8123 --upstream http://127.0.0.1:8080",
            "adit http client --token T --connect wss://h:8123/connect --upstream a.com=http://h:1,b.com=http://h:2 --auto-tls",
            "adit http client --license L --license-env X --license-file Y --demux --insecure --strict-forwarding=true",
            "adit http fileserver -w ./ --allow-browsing",
            "adit fileserver -w ./ -a --port 8081 --basic-auth-username u --basic-auth-password p",
            "adit status --url wss://h:8123 --token T --auto-tls",
            "adit status --url wss://h:8123 --token-env T --auto-tls=false -o json",
            "adit http server --token-from f --allow-ips 10.0.0.0/8,::1 --allow-cidr 192.0.2.1 --listen-data 127.0.0.1",
            "adit http server --token T --letsencrypt-domain a --letsencrypt-domain b --letsencrypt-issuer staging",
            "adit tcp server --token T --auto-tls --auto-tls-san 192.0.2.1 --data-addr 127.0.0.1 --ports 8000-8010",
            "adit tcp server --token T --proxy-protocol v2 --lb-proxy-protocol v1 --trusted-proxy 10.0.0.0/8",
            "adit tcp server --token T --proxy-protocol= --lb-proxy-protocol --trusted-proxy 10.0.0.0/8",
            "adit tcp client --token T --url wss://h:8123 --upstream 127.0.0.1 --ports 80,443",
            "adit tcp client --token T --url wss://h:8123/connect --upstream h --tcp-ports 8000-8010 --license L",
            "adit tcp server --token T --client-forwarding",
            "adit tcp client --token T --url wss://h --local 3000:127.0.0.1:3000",
            "adit tcp client --token T --url wss://h -p 22 --upstream localhost",
            "adit tcp client --token T --url wss://h --upstream 8551=127.0.0.1:8551,2222=127.0.0.1:22",
            "adit gateway -f gateway.yaml",
            "adit gateway check -f gateway.yaml",
            "adit agent check -f agent.yaml",
            "adit backup create backup.db --url wss://h:8123 --token T",
            "adit backup restore backup.db --state-dir state",
            "adit quickstart 3000",
            "adit enroll x.jwt",
            "adit enroll - -o x.json --force",
            "adit edge enroll x.jwt -o x.json",
            "adit edge enroll -j x.jwt --out x.json --rm",
            "adit version",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "adit gateway",
            "adit gateway check",
            "adit http server --auto-tls=maybe",
            "adit http server --port x",
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn lines_of_scripts_for_openziti_parse_as_they_are_written() {
        let intercept = r#"{"protocols":["tcp"],"addresses":["local.prometheus.svc"],"portRanges":[{"low":80, "high":80}], "dialOptions": {"identity":"local.prometheus.id"}}"#;
        let lines: &[&[&str]] = &[
            &["create", "identity", "user", "dev.client", "-a", "prometheus-clients,reflectz-clients"],
            &["create", "identity", "user", "local.prometheus.id", "-o", "/tmp/x.jwt", "-a", "a,b"],
            &["create", "identity", "service", "x", "-a", "a", "-a", "b", "-A", "-P", "default"],
            &["create", "identity", "x", "--role-attributes", "a", "--jwt-output-file", "x.jwt"],
            &["create", "config", "local.prometheus.svc-intercept.v1", "intercept.v1", intercept],
            &["create", "config", "c", "host.v1", "-f", "c.json"],
            &["create", "service", "local.prometheus.svc", "--configs", "local.prometheus.svc-intercept.v1"],
            &[
                "create",
                "service",
                "s",
                "-a",
                "x",
                "-c",
                "c,d",
                "-e",
                "ON",
                "--terminator-strategy",
                "smartrouting",
            ],
            &[
                "create",
                "service-policy",
                "local.prometheus.svc.dial",
                "Dial",
                "--service-roles",
                "@local.prometheus.svc",
                "--identity-roles",
                "#prometheus-clients",
            ],
            &[
                "create",
                "service-policy",
                "local.prometheus.svc.bind",
                "Bind",
                "--service-roles",
                "@local.prometheus.svc",
                "--identity-roles",
                "@local.prometheus.id",
                "--semantic",
                "AllOf",
            ],
            &["update", "identity", "x", "-a", ""],
            &["update", "service-policy", "p", "--identity-roles", "#all"],
            &["list", "identities", "name contains \"x\" limit none"],
            &["list", "service-policies", "-j"],
            &["list", "services"],
            &["show", "identity", "x"],
            &["delete", "identity", "x", "y"],
            &["delete", "services", "where", "name contains \"x\""],
            &["login", "https://gateway:8123", "-u", "admin", "-p", "secret", "-y"],
            &["login", "gateway", "--ca", "ca.pem", "--token-file", "t"],
            &["logout"],
            &["use", "gateway:8123"],
        ];
        for line in lines {
            let line = ["adit", "edge"].iter().chain(line.iter());
            Cli::try_parse_from(line.clone())
                .unwrap_or_else(|error| panic!("{:?}: {error}", line.collect::<Vec<_>>()));
        }
    }

    #[test]
    fn short_forms_parse() {
        for line in [
            "adit identity create dev.client -a a,b -o x.jwt --ttl 30m --output json",
            "adit identity enroll-token dev.client -o x.jwt",
            "adit identity revoke dev.client --serial 5f",
            "adit identities list attribute=x -o yaml",
            "adit service update web --configs a,b -q",
            "adit config create c host.v1 {}",
            "adit service-policy create p Dial --service-roles @a --service-roles #b --identity-roles #all",
            "adit route create r --host a.example --host *.b.example --port 5432 --service s",
            "adit token create t --hosts a.example --ports 1-2,3 --services s -o t.token",
            "adit token update t --no-limits",
            "adit token rotate t --window 24h",
            "adit token revoke t",
            "adit service delete web --force --url wss://h:1 --token-file t --ca ca.pem",
            "adit service list --gateway h:1 --identity-file me.json --auto-tls=false",
            "adit apply -f dir --prune --dry-run -q",
            "adit apply -f a.yaml -f -",
            "adit plan -f dir --prune --detailed-exitcode -o json",
            "adit export -o json --kind identity --kind services",
            "adit explain dial --identity x --service s --detailed-exitcode",
            "adit explain bind --identity x --to h:80 -o json --identity-file me.json",
            "adit edge policy-advisor identities x s -q",
            "adit policy test -f dir",
            "adit audit list --kind identity --name x --actor token:ops --limit 5",
            "adit audit export --after 7 -o a.jsonl",
            "adit watch --since 7 -o json",
            "adit login wss://h:8123 --token-env T --name here",
            "adit completion bash",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in
            ["adit identity create a b c", "adit config create c host.v1", "adit config create c ssh.v1 {}"]
        {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
        let mistyped = Cli::try_parse_from(["adit", "identty"]).unwrap_err().to_string();
        assert!(mistyped.contains("'identity'"), "{mistyped}");
    }
}
