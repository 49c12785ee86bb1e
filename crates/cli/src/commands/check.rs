//! `adit gateway check` and `adit agent check`: the same reading as at start, then every value as it would be used.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Loaded;
use crate::config::reader::Setting;
use crate::error::CliError;
use crate::output::{self, Format};

/// The flags of a check.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `check` beside a role of its own flags.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Check a file and print every value that would be used, defaults included.
    Check(Args),
}

/// Prints what a file means; what is wrong with it ends in exit code 1.
pub(crate) fn run<T>(args: &Args, loaded: Result<Loaded<T>, CliError>) -> Result<ExitCode, CliError> {
    let settings = loaded.map_err(CliError::into_failure)?.settings;
    match args.output {
        Format::Text => output::print(&text(&settings)),
        Format::Json => output::line(json(&settings)),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(settings: &[Setting]) -> String {
    let line = |setting: &Setting| {
        let source = if setting.is_default { "  # default" } else { "" };
        format!("{}: {}{source}\n", setting.path, setting.value)
    };
    settings.iter().map(line).collect()
}

fn json(settings: &[Setting]) -> serde_json::Value {
    let entry = |setting: &Setting| serde_json::json!({ "key": setting.path, "value": setting.value, "default": setting.is_default });
    settings.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_told_apart() {
        let setting = |path: &str, is_default| Setting { path: path.into(), value: "1".into(), is_default };
        assert_eq!(text(&[setting("a.b", true), setting("c", false)]), "a.b: 1  # default\nc: 1\n");
        assert_eq!(json(&[setting("c", false)])[0]["key"], "c");
    }
}
