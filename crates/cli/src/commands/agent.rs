//! `adit agent`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::commands::check;
use crate::config::agent::load;
use crate::error::CliError;
use crate::role::{self, Source};

/// Flags of `adit agent`.
#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<check::Verb>,
}

/// Runs the agent, or checks its file.
///
/// # Errors
/// The file is wrong, or the agent could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    match (args.verb, args.file) {
        (Some(check::Verb::Check(args)), _) => check::run(&args, load(&args.file)),
        (None, Some(file)) => {
            let loaded = load(&file)?;
            role::agent(Source::File(file, loaded)).await
        }
        (None, None) => Err(CliError::usage("no configuration file").next("name it with -f agent.yaml")),
    }
}
