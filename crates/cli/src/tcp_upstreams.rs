//! TCP upstreams on the command line: a host with `--ports`, or `PORT=HOST:PORT` pairs.

use adit_agent::config::{Service, Upstream};
use adit_proto::limits::MAX_OFFERS;
use adit_proto::names::ServiceName;

use crate::error::CliError;
use crate::flags::PortRange;

/// Reads the values of `--upstream` and `--ports`.
///
/// # Errors
/// Nothing at all, something that is not an upstream, a host without ports or ports without a host, or one port
/// twice.
pub(crate) fn parse(values: &[String], ports: &[PortRange]) -> Result<Vec<Service>, CliError> {
    let mut services: Vec<Service> = Vec::new();
    let mut host = None;
    for item in
        values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
    {
        if let Some((port, upstream)) = item.split_once('=') {
            add(&mut services, pair(item, port.trim(), upstream.trim())?)?;
        } else if let Some(first) = host.replace(item) {
            return Err(CliError::usage(format!("--upstream names two hosts, {first} and {item}"))
                .because("--ports are ports of one host")
                .next("write pairs: --upstream PORT=HOST:PORT"));
        }
    }
    match (host, ports.is_empty()) {
        (None, true) => {}
        (Some(host), false) => {
            for port in ports.iter().flat_map(|range| range.as_inner().clone()) {
                add(&mut services, of_host(host, port)?)?;
            }
        }
        (Some(host), true) if is_http(host) => return Err(for_http(host)),
        (Some(host), true) => {
            return Err(CliError::usage(format!(
                "--upstream {host} does not say which port of the gateway is meant"
            ))
            .because("a TCP service is reached by its port")
            .next("add --ports, as in --ports 5432; or write --upstream PORT=HOST:PORT"));
        }
        (None, false) => {
            return Err(CliError::usage("--ports without a host in --upstream")
                .because("nobody knows whose ports they are")
                .next("add --upstream 127.0.0.1"));
        }
    }
    if services.is_empty() {
        return Err(CliError::usage("no upstream")
            .because("there is nothing to expose")
            .next("give --upstream 127.0.0.1 --ports 5432, or --upstream 5432=127.0.0.1:5432"));
    }
    Ok(services)
}

fn add(services: &mut Vec<Service>, service: Service) -> Result<(), CliError> {
    if services.iter().any(|other| other.name == service.name) {
        let port = service.name.tcp_port().unwrap_or(0);
        return Err(CliError::usage(format!("port {port} is named twice"))
            .because("one port has one upstream")
            .next("start one client per upstream to balance between them"));
    }
    if services.len() >= MAX_OFFERS {
        return Err(CliError::usage(format!("more than {MAX_OFFERS} ports"))
            .because("that is how many services one agent may offer")
            .next("start a second client for the rest"));
    }
    services.push(service);
    Ok(())
}

fn wrong(item: &str, cause: &dyn std::error::Error, next: &str) -> CliError {
    CliError::usage(format!("--upstream {item} is not an upstream")).caused_by(cause).next(next)
}

/// An HTTP upstream where a TCP one belongs.
fn is_http(upstream: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| upstream.contains(scheme))
}

fn for_http(item: &str) -> CliError {
    CliError::usage(format!("--upstream {item} is not a TCP upstream"))
        .because("it is one for HTTP, by host names")
        .next("use adit http client; or write PORT=HOST:PORT, as in 8080=127.0.0.1:8080, for its bytes as they are")
}

fn pair(item: &str, port: &str, upstream: &str) -> Result<Service, CliError> {
    if is_http(upstream) {
        return Err(for_http(item));
    }
    if port.parse::<u16>().is_err() {
        return Err(CliError::usage(format!("--upstream {item} is not an upstream"))
            .because(format!("`{port}` is no port, and the gateway's port stands in front of the ="))
            .next("write PORT=HOST:PORT, as in 2222=127.0.0.1:22"));
    }
    let next = "write PORT=HOST:PORT, as in 2222=127.0.0.1:22";
    let name: ServiceName = format!("tcp:{port}").parse().map_err(|cause| wrong(item, &cause, next))?;
    let has_scheme = upstream.contains("://") || upstream.starts_with("unix:");
    let upstream = if has_scheme { upstream.to_owned() } else { format!("tcp://{upstream}") };
    let upstream: Upstream = upstream.parse().map_err(|cause| wrong(item, &cause, next))?;
    let service = Service { name, upstream };
    service.check().map_err(|cause| wrong(item, &cause, next))?;
    Ok(service)
}

fn of_host(host: &str, port: u16) -> Result<Service, CliError> {
    if is_http(host) {
        return Err(for_http(host));
    }
    let bare = host.strip_prefix("tcp://").unwrap_or(host);
    if let Some((name, own)) = bare.rsplit_once(':').filter(|(name, _)| !name.contains(':'))
        && own.parse::<u16>().is_ok()
    {
        return Err(CliError::usage(format!(
            "--upstream {host} names a port, and --ports names ports as well"
        ))
        .because("--ports are those of the gateway and of the upstream alike")
        .next(format!("write --upstream {name}, or leave --ports out: --upstream {port}={bare}")));
    }
    let bracketed =
        if bare.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{bare}]") } else { bare.to_owned() };
    let upstream = format!("tcp://{bracketed}:{port}").parse().map_err(|cause| {
        wrong(host, &cause, "write a host name or an address, and its ports with --ports")
    })?;
    Ok(Service { name: ServiceName::Tcp(port), upstream })
}

/// A service as `--upstream` writes it.
pub(crate) fn show(service: &Service) -> String {
    let upstream = service.upstream.to_string();
    let upstream = upstream.strip_prefix("tcp://").unwrap_or(&upstream);
    service
        .name
        .tcp_port()
        .map_or_else(|| format!("{}={upstream}", service.name), |port| format!("{port}={upstream}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::port_range;

    fn read(upstreams: &[&str], ports: &[&str]) -> Result<Vec<String>, String> {
        let upstreams: Vec<String> = upstreams.iter().map(|&text| text.to_owned()).collect();
        let ports: Vec<PortRange> = ports.iter().map(|text| port_range(text).unwrap()).collect();
        let services = parse(&upstreams, &ports).map_err(|error| error.to_string())?;
        Ok(services.iter().map(show).collect())
    }

    #[test]
    fn a_host_has_the_ports_that_are_named() {
        let shown = read(&["localhost"], &["22", "8000-8002"]).unwrap();
        assert_eq!(
            shown,
            ["22=localhost:22", "8000=localhost:8000", "8001=localhost:8001", "8002=localhost:8002"]
        );
        assert_eq!(read(&["::1"], &["1"]).unwrap(), ["1=[::1]:1"]);
        assert_eq!(read(&["[::1]"], &["1"]).unwrap(), ["1=[::1]:1"]);
    }

    #[test]
    fn pairs_have_a_public_port_of_their_own() {
        let expected = ["2222=127.0.0.1:22", "5432=db:5432"];
        assert_eq!(read(&["2222=127.0.0.1:22, 5432=db:5432,"], &[]).unwrap(), expected);
        assert_eq!(read(&["2222=127.0.0.1:22", "5432=db:5432"], &[]).unwrap(), expected);
        assert_eq!(read(&["1=unix:/run/a.sock", "h"], &["2"]).unwrap(), ["1=unix:/run/a.sock", "2=h:2"]);
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_do() {
        for (upstreams, ports, told) in [
            (&[][..], &[][..], "no upstream"),
            (&["h"], &[], "does not say which port"),
            (&[], &["1"], "without a host"),
            (&["h", "i"], &["1"], "two hosts"),
            (&["1=h:1,1=i:1"], &[], "port 1 is named twice"),
            (&["h"], &["1-300"], "more than 256 ports"),
            (&["127.0.0.1:80"], &["81"], "leave --ports out: --upstream 81=127.0.0.1:80"),
            (&["http://h:1"], &["80"], "use adit http client"),
            (&["a.example=http://h:1"], &[], "use adit http client"),
            (&["x=h:1"], &[], "`x` is no port"),
            (&["1=h"], &[], "the port is missing"),
            (&["1=http://h:1"], &[], "8080=127.0.0.1:8080"),
        ] {
            let error = read(upstreams, ports).unwrap_err();
            assert!(error.contains(told), "{upstreams:?} {ports:?}: {error}");
        }
    }
}
