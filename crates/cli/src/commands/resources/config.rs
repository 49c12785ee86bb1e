//! `adit config …`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use adit_control::model::{ConfigType, Kind, Resource, ServiceConfig};
use adit_proto::name::Name;
use serde_json::Value;

use super::common::{self, Common, Labels};
use crate::error::CliError;

/// Arguments of `config create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit config create web-host host.v1 '{\"protocol\":\"tcp\",\"address\":\"127.0.0.1\",\"port\":8080}'
  adit config create web-intercept intercept.v1 -f intercept.json
  adit edge create config \"web-intercept\" intercept.v1 \\
    '{\"protocols\":[\"tcp\"],\"addresses\":[\"web.svc\"],\"portRanges\":[{\"low\":80, \"high\":80}]}'")]
pub(crate) struct Create {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// host.v1 or intercept.v1.
    #[arg(value_name = "TYPE")]
    config_type: ConfigType,
    /// The settings, as JSON.
    #[arg(value_name = "JSON", required_unless_present = "json_file", conflicts_with = "json_file")]
    json: Option<String>,
    /// A file with the settings; `-` is standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    common: Common,
}

/// The settings, from the command line or a file.
fn data(json: Option<&str>, file: Option<&Path>) -> Result<Option<Value>, CliError> {
    let (text, place) = match (json, file) {
        (Some(text), _) => (text.to_owned(), "the settings".to_owned()),
        (None, Some(file)) => (read(file)?, file.display().to_string()),
        (None, None) => return Ok(None),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|cause| CliError::usage(format!("{place} are not JSON")).caused_by(&cause))
}

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read(file: &Path) -> Result<String, CliError> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|cause| {
        CliError::usage(format!("cannot read {}", file.display()))
            .caused_by(&cause)
            .next("check the path, and that this user may read it")
    })
}

/// Creates a config.
pub(crate) async fn create(args: Create) -> Result<ExitCode, CliError> {
    args.labels.answer();
    let data = data(args.json.as_deref(), args.json_file.as_deref())?.unwrap_or_default();
    let config = ServiceConfig { name: args.name, config_type: args.config_type, data };
    common::create(&args.common, Resource::Config(config)).await
}

/// Arguments of `config update`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  adit config update web-host '{\"protocol\":\"tcp\",\"address\":\"127.0.0.1\",\"port\":9090}'")]
pub(crate) struct Update {
    /// Its name.
    #[arg(index = 1, value_name = "NAME")]
    name: Name,
    /// The settings from now on, as JSON.
    #[arg(index = 2, value_name = "JSON", conflicts_with_all = ["json_file", "data"])]
    json: Option<String>,
    /// The same.
    #[arg(short = 'd', long, hide = true, value_name = "JSON", conflicts_with = "json_file")]
    data: Option<String>,
    /// A file with the settings; `-` is standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    common: Common,
}

/// Changes a config.
pub(crate) async fn update(args: Update) -> Result<ExitCode, CliError> {
    args.labels.answer();
    let json = args.json.as_deref().or(args.data.as_deref());
    let data = data(json, args.json_file.as_deref())?;
    let data = data.ok_or_else(|| {
        CliError::usage("there are no settings").next("write them as JSON, or give a file with -f FILE")
    })?;
    common::update(&args.common, Kind::Config, &args.name, |resource| {
        if let Resource::Config(config) = resource {
            config.data = data;
        }
        Ok(())
    })
    .await
}
