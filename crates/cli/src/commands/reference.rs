//! `adit reference`: the reference pages, generated from what the program itself uses.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::error::CliError;
use crate::{output, reference};

/// Flags of `adit reference`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory the pages are written to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes the pages.
///
/// # Errors
/// A page cannot be written.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let pages = [
        ("cli.md", reference::cli(crate::cli::Cli::command())),
        ("configuration.md", reference::configuration()),
        ("refusals.md", reference::refusals()),
        ("metrics.md", reference::metrics()),
        ("openapi.json", reference::openapi()),
    ];
    std::fs::create_dir_all(&args.out).map_err(|cause| {
        CliError::failure(format!("cannot make {}", args.out.display())).caused_by(&cause)
    })?;
    for (name, text) in pages {
        let path = args.out.join(name);
        std::fs::write(&path, text).map_err(|cause| {
            CliError::failure(format!("cannot write {}", path.display())).caused_by(&cause)
        })?;
        output::line(path.display());
    }
    Ok(ExitCode::SUCCESS)
}
