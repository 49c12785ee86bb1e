//! Upstreams on the command line: `domain=url`, comma lists, repeats, and a bare URL for every domain.

use adit_agent::config::{Service, Upstream};
use adit_proto::names::HostPattern;

use crate::error::CliError;

/// Reads the values of `--upstream`.
///
/// # Errors
/// None at all, one that is not an upstream, or one domain twice.
pub(crate) fn parse(values: &[String]) -> Result<Vec<Service>, CliError> {
    let mut services: Vec<Service> = Vec::new();
    for item in
        values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
    {
        let service = one(item)?;
        if services.iter().any(|other| other.name == service.name) {
            return Err(CliError::usage(format!("--upstream names {} twice", service.name))
                .because("one domain has one upstream")
                .next("start one client per upstream to balance between them"));
        }
        services.push(service);
    }
    if services.is_empty() {
        return Err(CliError::usage("no upstream")
            .because("there is nothing to expose")
            .next("give --upstream http://127.0.0.1:8080, or --upstream example.com=http://127.0.0.1:8080"));
    }
    Ok(services)
}

/// A bare upstream has a scheme or a port before any `=`; a domain has neither.
fn split(item: &str) -> (&str, &str) {
    match item.split_once('=') {
        Some((host, upstream)) if !host.contains([':', '/']) => (host.trim(), upstream.trim()),
        Some(_) | None => ("*", item),
    }
}

fn one(item: &str) -> Result<Service, CliError> {
    let (host, upstream) = split(item);
    let wrong = |cause: &dyn std::error::Error| {
        CliError::usage(format!("--upstream {item} is not an upstream"))
            .caused_by(cause)
            .next("write domain=url or url, with a url such as http://127.0.0.1:8080")
    };
    let host: HostPattern = host.parse().map_err(|cause| wrong(&cause))?;
    let upstream: Upstream = upstream.parse().map_err(|cause| wrong(&cause))?;
    let service = Service { name: host.into(), upstream };
    service.check().map_err(|cause| wrong(&cause))?;
    Ok(service)
}

/// A service as `--upstream` and `/status` write it.
pub(crate) fn show(service: &Service) -> String {
    format!("{}={}", service.name, service.upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Vec<String> {
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        parse(&values).unwrap().iter().map(show).collect()
    }

    fn failed(value: &str) -> String {
        parse(&[value.to_owned()]).unwrap_err().to_string()
    }

    #[test]
    fn a_bare_url_stands_for_every_domain() {
        assert_eq!(read(&["http://127.0.0.1:8080"]), ["*=http://127.0.0.1:8080"]);
        assert_eq!(read(&["file:/srv/a=b"]), ["*=file:/srv/a=b"]);
        assert_eq!(read(&["localhost:3000"]), ["*=http://localhost:3000"]);
    }

    #[test]
    fn domains_come_as_a_list_or_as_repeats() {
        let expected = ["a.com=http://127.0.0.1:1", "b.com=http://127.0.0.1:2"];
        assert_eq!(read(&["A.com=http://127.0.0.1:1, b.com=http://127.0.0.1:2,"]), expected);
        assert_eq!(read(&["a.com=http://127.0.0.1:1", "b.com=http://127.0.0.1:2"]), expected);
        assert_eq!(read(&["*.a.com=https://h"]), ["*.a.com=https://h:443"]);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert!(failed("").starts_with("error: no upstream"));
        assert!(failed("a.com=ftp://x").contains("--upstream a.com=ftp://x is not an upstream"));
        assert!(failed("a b=http://x").contains("is not allowed in a host name"));
        assert!(failed("a.com=http://x,A.COM=http://y").contains("names a.com twice"));
    }
}
