//! The commands and how they are dispatched.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::error::CliError;
use crate::version;

const EXIT_CODES: &str = "\
Exit codes:
  0    done; for a gateway or agent: told to end, and every flow finished
  1    failed, and said why; for check: the file has problems
  2    wrong flags or a wrong configuration file
  3    told to end, but flows had to be cut when the drain timeout passed
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
    Gateway(commands::gateway::Args),
    /// Run an agent from a file: what stands beside the services and only ever dials out.
    Agent(commands::agent::Args),
    /// HTTP tunnels from flags alone.
    Http(commands::http::Args),
    /// TCP tunnels from flags alone.
    Tcp(commands::tcp::Args),
    /// Serve a directory over HTTP.
    Fileserver(commands::fileserver::Args),
    /// Ask a gateway who is connected.
    Status(commands::status::Args),
    /// Try it all on this machine: a gateway, an agent and a service in one process.
    Quickstart(commands::quickstart::Args),
    /// Print the version.
    Version(commands::version::Args),
    /// Write the reference pages.
    #[command(hide = true)]
    Reference(commands::reference::Args),
}

impl Cli {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        match self.command {
            Command::Gateway(args) => Box::pin(commands::gateway::run(args)).await,
            Command::Agent(args) => Box::pin(commands::agent::run(args)).await,
            Command::Http(args) => Box::pin(commands::http::run(args)).await,
            Command::Tcp(args) => Box::pin(commands::tcp::run(args)).await,
            Command::Fileserver(args) => Box::pin(commands::fileserver::run(args)).await,
            Command::Status(args) => Box::pin(commands::status::run(args)).await,
            Command::Quickstart(args) => Box::pin(commands::quickstart::run(args)).await,
            Command::Version(args) => Ok(commands::version::run(&args)),
            Command::Reference(args) => commands::reference::run(&args),
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
        for code in ["0 ", "1 ", "2 ", "3 ", "130", "143"] {
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
            "adit quickstart 3000",
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
}
