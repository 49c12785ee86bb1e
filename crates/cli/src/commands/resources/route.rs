//! `adit route …`.

use std::process::ExitCode;
use std::str::FromStr;

use adit_control::model::{Kind, Resource, Route};
use adit_proto::name::Name;

use super::common::{self, Common, new_parts, parts};
use crate::error::CliError;

/// Arguments of `route create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit route create web --hosts app.example.com,*.app.example.com --service web
  adit route create db --ports 5432 --service db

Clients of public listeners are the identity `public`; a Dial policy with @public lets them reach the service.")]
pub(crate) struct Create {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Hosts: app.example.com, *.example.com or *; with commas or repeated.
    #[arg(long, visible_alias = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// TCP ports; with commas or repeated.
    #[arg(long, visible_alias = "port", value_name = "PORT")]
    ports: Vec<String>,
    /// The service it leads to.
    #[arg(long, value_name = "SERVICE")]
    service: Name,
    #[command(flatten)]
    common: Common,
}

/// A port of a route.
#[derive(Debug)]
struct Port(u16);

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.parse().ok().filter(|&port: &u16| port != 0).map(Port);
        port.ok_or_else(|| "a route leads from single ports, 1 to 65535".to_owned())
    }
}

fn numbers(ports: Vec<Port>) -> Vec<u16> {
    ports.into_iter().map(|Port(number)| number).collect()
}

/// Creates a route.
pub(crate) async fn create(args: Create) -> Result<ExitCode, CliError> {
    let (hosts, ports) = (parts("--hosts", &args.hosts)?, numbers(parts("--ports", &args.ports)?));
    let route = Route { name: args.name, hosts, ports, service: args.service };
    common::create(&args.common, Resource::Route(route)).await
}

/// Arguments of `route update`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  adit route update web --hosts app.example.com,www.example.com")]
pub(crate) struct Update {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Its hosts from now on.
    #[arg(long, visible_alias = "host", value_name = "HOST")]
    hosts: Option<Vec<String>>,
    /// Its ports from now on.
    #[arg(long, visible_alias = "port", value_name = "PORT")]
    ports: Option<Vec<String>>,
    /// The service it leads to from now on.
    #[arg(long, value_name = "SERVICE")]
    service: Option<Name>,
    #[command(flatten)]
    common: Common,
}

/// Changes a route.
pub(crate) async fn update(args: Update) -> Result<ExitCode, CliError> {
    let hosts = new_parts("--hosts", args.hosts.as_deref())?;
    let ports = new_parts("--ports", args.ports.as_deref())?.map(numbers);
    common::update(&args.common, Kind::Route, &args.name, |resource| {
        if let Resource::Route(route) = resource {
            route.hosts = hosts.unwrap_or_else(|| route.hosts.clone());
            route.ports = ports.unwrap_or_else(|| route.ports.clone());
            route.service = args.service.unwrap_or_else(|| route.service.clone());
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_port_is_told_as_that() {
        let wrong = |text: &str| parts::<Port>("--ports", &[text.to_owned()]).unwrap_err().to_string();
        for text in ["99999", "0", "x", "8000-8010"] {
            assert_eq!(
                wrong(text),
                format!(
                    "error: --ports `{text}` cannot be used: a route leads from single ports, 1 to 65535"
                )
            );
        }
        assert_eq!(numbers(parts("--ports", &["80,443".to_owned()]).unwrap()), [80, 443]);
    }
}
