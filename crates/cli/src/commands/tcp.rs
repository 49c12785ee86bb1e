//! `adit tcp …`: TCP tunnels from flags alone, in the words of the neighbouring tools.

use std::process::ExitCode;

use crate::commands::{tcp_client, tcp_server};
use crate::error::CliError;

/// What follows `adit tcp`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run a gateway for TCP services from flags.
    Server(Box<tcp_server::Args>),
    /// Run an agent that offers TCP services from flags.
    Client(Box<tcp_client::Args>),
}

/// Runs one of them.
///
/// # Errors
/// The flags are wrong, or the role could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    match args.verb {
        Verb::Server(args) => tcp_server::run(*args).await,
        Verb::Client(args) => tcp_client::run(*args).await,
    }
}
