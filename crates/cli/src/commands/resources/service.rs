//! `adit service …`.

use std::process::ExitCode;

use adit_control::model::{Kind, Resource, Service};
use adit_proto::name::Name;

use super::common::{self, Common, Labels, new_parts, parts};
use crate::error::CliError;
use crate::output;

/// Arguments of `service create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit service create web -a internal
  adit edge create service \"local.prometheus.svc\" --configs \"local.prometheus.svc-intercept.v1\"")]
pub(crate) struct Create {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// What policies can select it by; with commas or repeated.
    #[arg(short = 'a', long, visible_alias = "role-attributes", value_name = "ATTRIBUTE")]
    attributes: Vec<String>,
    /// Its configs, one of each type at most; with commas or repeated.
    #[arg(short, long, value_name = "CONFIG")]
    configs: Vec<String>,
    #[command(flatten)]
    elsewhere: Elsewhere,
    #[command(flatten)]
    common: Common,
}

/// Flags that are understood so that they can be answered.
#[derive(Debug, Clone, Default, clap::Args)]
struct Elsewhere {
    #[arg(short, long, hide = true, value_name = "ON|OFF")]
    encryption: Option<String>,
    #[arg(long, hide = true, value_name = "STRATEGY")]
    terminator_strategy: Option<String>, // tidy: allow(word): the flag of scripts for the other tool
    #[arg(long, hide = true, value_name = "DURATION")]
    max_idle_time: Option<String>,
    #[command(flatten)]
    labels: Labels,
}

impl Elsewhere {
    fn answer(&self) -> Result<(), CliError> {
        self.labels.answer();
        if self.encryption.is_some() {
            output::note("-e changes nothing: everything between an agent and the gateway runs over TLS 1.3");
        }
        // tidy: allow(word): the flag of scripts for the other tool
        match self.terminator_strategy.as_deref() {
            None => {}
            Some("smartrouting" | "random") => {
                output::note("--terminator-strategy changes nothing: whoever offers a service takes turns");
            }
            Some(strategy) => {
                return Err(CliError::usage(format!("--terminator-strategy {strategy} cannot be used"))
                    .because("whoever offers a service takes turns; there is no other way yet")
                    .next("leave it out"));
            }
        }
        match self.max_idle_time.as_deref() {
            None | Some("0" | "0s") => Ok(()),
            Some(_) => Err(CliError::usage("--max-idle-time cannot be used")
                .because("how long a connection may be idle is said in the gateway's configuration, for all services")
                .next("leave it out")),
        }
    }
}

/// Creates a service.
pub(crate) async fn create(args: Create) -> Result<ExitCode, CliError> {
    args.elsewhere.answer()?;
    let (attributes, configs) = (parts("-a", &args.attributes)?, parts("--configs", &args.configs)?);
    common::create(&args.common, Resource::Service(Service { name: args.name, attributes, configs })).await
}

/// Arguments of `service update`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  adit service update web -a internal,metrics --configs web-host")]
pub(crate) struct Update {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Its attributes from now on, in place of those it had.
    #[arg(short = 'a', long, visible_alias = "role-attributes", value_name = "ATTRIBUTE")]
    attributes: Option<Vec<String>>,
    /// Its configs from now on, in place of those it had.
    #[arg(short, long, value_name = "CONFIG")]
    configs: Option<Vec<String>>,
    #[command(flatten)]
    elsewhere: Elsewhere,
    #[command(flatten)]
    common: Common,
}

/// Changes a service.
pub(crate) async fn update(args: Update) -> Result<ExitCode, CliError> {
    args.elsewhere.answer()?;
    let attributes = new_parts("-a", args.attributes.as_deref())?;
    let configs = new_parts("--configs", args.configs.as_deref())?;
    common::update(&args.common, Kind::Service, &args.name, |resource| {
        if let Resource::Service(service) = resource {
            service.attributes = attributes.unwrap_or_else(|| service.attributes.clone());
            service.configs = configs.unwrap_or_else(|| service.configs.clone());
        }
        Ok(())
    })
    .await
}
