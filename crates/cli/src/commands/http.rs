//! `adit http …`: HTTP tunnels from flags alone, in the words of the neighbouring tools.

use std::process::ExitCode;

use crate::commands::{fileserver, http_client, http_server};
use crate::error::CliError;
use crate::output;

/// What follows `adit http`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run a gateway from flags: `adit gateway` with a preset configuration.
    Server(Box<http_server::Args>),
    /// Run an agent from flags: `adit agent` with a preset configuration.
    Client(Box<http_client::Args>),
    /// The old spelling of `adit fileserver`.
    #[command(hide = true)]
    Fileserver(fileserver::Args),
}

/// Runs one of them.
///
/// # Errors
/// The flags are wrong, or the role could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    match args.verb {
        Verb::Server(args) => http_server::run(*args).await,
        Verb::Client(args) => http_client::run(*args).await,
        Verb::Fileserver(args) => {
            output::note("`adit http fileserver` is now `adit fileserver`; both work");
            fileserver::run(args).await
        }
    }
}
