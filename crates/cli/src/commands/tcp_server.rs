//! `adit tcp server`: a gateway for TCP services from flags alone.

use std::process::ExitCode;

use adit_gateway::config::TcpServices;

use crate::commands::server_args::{Carried, ServerArgs};
use crate::error::CliError;
use crate::flags::{PortRange, go_bool, port_range};
use crate::generate::PublicPort;

/// Flags of `adit tcp server`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ports and ranges that agents may offer, as in 5432,8000-8010; any that can be bound when left out. A port is
    /// bound while an agent offers it.
    #[arg(long, visible_alias = "port", value_name = "PORT|RANGE", value_delimiter = ',', value_parser = port_range)]
    ports: Vec<PortRange>,
    /// Tell upstreams who connected, by a PROXY header of this version in front of the client's first byte.
    #[arg(long, value_name = "v1|v2", value_parser = ["", "v1", "v2"])]
    proxy_protocol: Option<String>,
    /// Permit the client's --local: agents may have this gateway connect to addresses of its own network.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false)]
    #[arg(default_missing_value = "true", value_parser = go_bool, action = clap::ArgAction::Set)]
    client_forwarding: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the gateway, or prints what would run it elsewhere.
///
/// # Errors
/// The flags are wrong, or the gateway could not be started.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let carried = args.carried()?;
    args.server.run("tcp server", carried).await
}

impl Args {
    fn carried(&self) -> Result<Carried, CliError> {
        let control = self.server.control().port();
        if self.ports.iter().any(|range| *range.as_inner() == (control..=control)) {
            return Err(CliError::usage(format!("--control-port and --ports are both {control}"))
                .because("one address cannot serve both")
                .next("choose two ports"));
        }
        // An empty version is none, as it is for the neighbours.
        let version = self.proxy_protocol.as_deref().filter(|version| !version.is_empty());
        let mut flags: Vec<_> = self.ports.iter().map(|range| format!("--ports={range}")).collect();
        flags.extend(version.map(|version| format!("--proxy-protocol={version}")));
        flags.extend(self.client_forwarding.then(|| "--client-forwarding".to_owned()));
        let public = self.ports.iter().flat_map(|range| range.as_inner().clone());
        Ok(Carried {
            tcp: Some(TcpServices {
                listen: self.server.data_addr(),
                ports: self.ports.iter().map(|range| range.as_inner().clone()).collect(),
                proxy_protocol: version.and_then(|version| version.parse().ok()),
                lb_proxy_protocol: self.server.lb_proxy_protocol()?,
            }),
            public: public.map(|port| PublicPort { name: format!("tcp-{port}"), port }).collect(),
            client_forwarding: self.client_forwarding,
            flags,
            ..Carried::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use adit_proto::proxy_header::Version;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn carried(line: &str) -> Result<Carried, CliError> {
        Line::parse_from(std::iter::once("server").chain(line.split(' '))).args.carried()
    }

    #[test]
    fn ports_become_what_may_be_offered() {
        let some = carried("--token T --data-addr 127.0.0.1 --ports 5432,8000-8002 --port 22").unwrap();
        let tcp = some.tcp.unwrap();
        assert_eq!(
            (tcp.listen.to_string().as_str(), tcp.ports),
            ("127.0.0.1", vec![5432..=5432, 8000..=8002, 22..=22])
        );
        assert_eq!(some.flags, ["--ports=5432", "--ports=8000-8002", "--ports=22"]);
        assert_eq!(some.public.len(), 5);
        assert!(some.http.is_empty());
        assert_eq!(tcp.proxy_protocol, None);
        let both =
            carried("--token T --proxy-protocol v2 --lb-proxy-protocol --trusted-proxy 10.0.0.0/8").unwrap();
        assert_eq!(both.flags, ["--proxy-protocol=v2"]);
        let tcp = both.tcp.unwrap();
        assert_eq!((tcp.proxy_protocol, tcp.lb_proxy_protocol), (Some(Version::V2), true));
        assert!(
            carried("--token T --lb-proxy-protocol")
                .unwrap_err()
                .to_string()
                .contains("needs --trusted-proxy")
        );
        assert!(carried("--token T").unwrap().tcp.unwrap().ports.is_empty());
        assert!(carried("--token T --ports 8123").unwrap_err().to_string().contains("both 8123"));
    }
}
