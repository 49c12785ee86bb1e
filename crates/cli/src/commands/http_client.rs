//! `adit http client`: an agent from flags alone.

use std::process::ExitCode;

use adit_agent::config::Upstream;

use crate::commands::client_args::{ClientArgs, Offered};
use crate::error::CliError;
use crate::{generate, upstreams};

/// Flags of `adit http client`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is exposed: `domain=url`, or a bare url for every domain; repeat, or separate with commas.
    #[arg(long, value_name = "[DOMAIN=]URL")]
    upstream: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the agent, or prints what would run it elsewhere.
///
/// # Errors
/// The flags are wrong, or the agent could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let offered = args.offered()?;
    args.client.run("http client", offered).await
}

impl Args {
    fn offered(&self) -> Result<Offered, CliError> {
        let services = upstreams::parse(&self.upstream)?;
        let mut flags = Vec::new();
        for service in &services {
            let mut elsewhere = service.clone();
            if let Upstream::Files { root, .. } = &mut elsewhere.upstream {
                *root = generate::absolute(root)?;
            }
            flags.push(format!("--upstream={}", upstreams::show(&elsewhere)));
        }
        Ok(Offered { services, forwards: Vec::new(), flags })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Args {
        Line::parse_from(std::iter::once("client").chain(line.split(' '))).args
    }

    #[test]
    fn upstreams_become_services() {
        let offered =
            parse("--token T --url wss://h --upstream a.com=http://x:1,http://y:2").offered().unwrap();
        let shown: Vec<String> = offered.services.iter().map(upstreams::show).collect();
        assert_eq!(shown, ["a.com=http://x:1", "*=http://y:2"]);
        assert_eq!(offered.flags, ["--upstream=a.com=http://x:1", "--upstream=*=http://y:2"]);
        assert!(parse("--token T --url wss://h").offered().unwrap_err().to_string().contains("no upstream"));
    }
}
