//! `adit tcp client`: an agent that offers TCP services from flags alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use adit_agent::config::{Forward, To};

use crate::commands::client_args::{ClientArgs, Offered};
use crate::error::CliError;
use crate::flags::{PortRange, port_range};
use crate::tcp_upstreams;

/// Flags of `adit tcp client`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is exposed: a host, whose ports are named by --ports; or PORT=HOST:PORT, with the public port in front;
    /// repeat, or separate with commas.
    #[arg(long, value_name = "HOST|PORT=HOST:PORT")]
    upstream: Vec<String>,
    /// Ports and ranges of the host that are exposed under the same numbers, as in 80,443,8000-8010.
    #[arg(short = 'p', long, visible_aliases = ["port", "tcp-ports"], value_name = "PORT|RANGE")]
    #[arg(value_delimiter = ',', value_parser = port_range)]
    ports: Vec<PortRange>,
    /// The other way round: listen on 127.0.0.1 and this port, and have the gateway connect to HOST:PORT on its side;
    /// it has to permit that with --client-forwarding.
    #[arg(long, value_name = "PORT:HOST:PORT", value_delimiter = ',', value_parser = forward)]
    local: Vec<Forward>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the agent, or prints what would run it elsewhere.
///
/// # Errors
/// The flags are wrong, or the agent could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let offered = args.offered()?;
    args.client.run("tcp client", offered).await
}

impl Args {
    fn offered(&self) -> Result<Offered, CliError> {
        let services = if self.upstream.is_empty() && self.ports.is_empty() && !self.local.is_empty() {
            Vec::new()
        } else {
            tcp_upstreams::parse(&self.upstream, &self.ports)?
        };
        let upstreams = services.iter().map(|service| format!("--upstream={}", tcp_upstreams::show(service)));
        let local =
            self.local.iter().map(|forward| format!("--local={}:{}", forward.listen.port(), forward.to));
        let flags = upstreams.chain(local).collect();
        Ok(Offered { services, forwards: self.local.clone(), flags })
    }
}

/// Reads `3000:127.0.0.1:3000`.
fn forward(text: &str) -> Result<Forward, String> {
    let form = "write PORT:HOST:PORT, as in 3000:127.0.0.1:3000";
    let (port, to) = text.split_once(':').ok_or(form)?;
    let port: u16 = port.parse().map_err(|_not_a_port| format!("`{port}` is not a port; {form}"))?;
    let to = to.parse().map_err(|cause| format!("`{to}` is not a host and a port ({cause}); {form}"))?;
    Ok(Forward { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), to: To::Address(to) })
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

    fn offered(line: &str) -> Result<Offered, CliError> {
        Line::parse_from(std::iter::once("client").chain(line.split(' '))).args.offered()
    }

    #[test]
    fn flags_become_services_and_forwards_and_flags_again() {
        let both = offered("--token T --upstream h -p 22 --local 3000:127.0.0.1:3001,4000:[::1]:1").unwrap();
        assert_eq!(both.flags, ["--upstream=22=h:22", "--local=3000:127.0.0.1:3001", "--local=4000:[::1]:1"]);
        assert_eq!(both.forwards[0].listen.to_string(), "127.0.0.1:3000");
        assert!(offered("--token T --local 3000:h:1").unwrap().services.is_empty());
        assert!(offered("--token T").unwrap_err().to_string().contains("no upstream"));
        for text in ["3000", "x:h:1", "3000:h", "3000:h:0", "3000::1"] {
            assert!(forward(text).is_err(), "{text}");
        }
    }
}
