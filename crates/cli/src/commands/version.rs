//! `adit version`.

use std::process::ExitCode;

use crate::output::{self, Format};
use crate::version::{SHA, VERSION};

/// Flags of `adit version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Prints version and commit.
pub(crate) fn run(args: &Args) -> ExitCode {
    match args.output {
        Format::Text => output::line(format_args!("Adit version: {VERSION} - {SHA}")),
        Format::Json => output::line(serde_json::json!({ "version": VERSION, "sha": SHA })),
    }
    ExitCode::SUCCESS
}
