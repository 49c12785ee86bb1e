//! `adit tcp client`: an agent that offers TCP services from flags alone.

use std::process::ExitCode;

use crate::commands::client_args::{ClientArgs, Offered};
use crate::error::CliError;
use crate::flags::{PortRange, port_range};
use crate::tcp_upstreams;

/// Flags of `adit tcp client`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is exposed: a host, whose ports are named by --ports; or PORT=HOST:PORT, with the public port in front;
    /// repeat, or separate with commas.
    #[arg(long, value_name = "HOST|PORT=HOST:PORT")]
    upstream: Vec<String>,
    /// Ports and ranges of the host that are exposed under the same numbers, as in 80,443,8000-8010.
    #[arg(short = 'p', long, visible_aliases = ["port", "tcp-ports"], value_name = "PORT|RANGE")]
    #[arg(value_delimiter = ',', value_parser = port_range)]
    ports: Vec<PortRange>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the agent, or prints what would run it elsewhere.
///
/// # Errors
/// The flags are wrong, or the agent could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let services = tcp_upstreams::parse(&args.upstream, &args.ports)?;
    let flags =
        services.iter().map(|service| format!("--upstream={}", tcp_upstreams::show(service))).collect();
    args.client.run("tcp client", Offered { services, flags }).await
}
