//! Which service a request is for.

use std::sync::Arc;

use ::http::uri::Authority;
use ::http::{Request, Version};
use adit_control::Snapshot;
use adit_proto::name::Name;
use adit_proto::names::{HostPattern, Hostname, ServiceName};
use adit_proto::reason::Reason;

use crate::flow::DataPlane;
use crate::grants::Grant;
use crate::refusal::Refusal;
use crate::sessions::{Service, Sessions};

/// The host a request names: the authority of its target, else its `Host`. `None` for an HTTP/1.0 request that
/// names none; only a catch-all can serve it.
///
/// # Errors
/// [`Reason::BadRequest`] when it is not a host name, when HTTP/2 names none, or when target and `Host` disagree (RFC 9112 §3.2.2: a
/// disagreement is how one hop is made to see another host than the next).
pub(crate) fn host<B>(request: &Request<B>) -> Result<Option<Hostname>, Refusal> {
    let bad = |detail| Refusal::new(Reason::BadRequest, detail);
    let mut fields = request.headers().get_all(::http::header::HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(value), None) => Some(
            Authority::try_from(value.as_bytes())
                .map_err(|_invalid| bad("The Host header is not a host name."))?,
        ),
        (Some(_), Some(_)) => return Err(bad("The request has more than one Host header.")),
    };
    let target = request.uri().authority();
    if let (Some(target), Some(field)) = (target, &field)
        && !same_authority(target, field, request.uri().scheme_str())
    {
        return Err(bad("The request's target and its Host header name different hosts."));
    }
    let Some(authority) = target.or(field.as_ref()) else {
        // The guard sees to HTTP/1.1. HTTP/2 says so for the schemes that are served (RFC 9113 §8.3.1).
        if request.version() == Version::HTTP_2 {
            return Err(bad("The request names no host."));
        }
        return Ok(None);
    };
    if authority.as_str().contains('@') {
        return Err(bad("The request's host has a user in it."));
    }
    if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none() {
        return Err(bad("The request's host has a port that is not a number."));
    }
    authority.host().parse().map(Some).map_err(|_name| bad("The request's host is not a host name."))
}

fn same_authority(a: &Authority, b: &Authority, scheme: Option<&str>) -> bool {
    let default = if scheme == Some("https") { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
    a.host().eq_ignore_ascii_case(b.host()) && port(a) == port(b)
}

/// The service that answers for a host: that of the most specific among routes and what agents offer, and of a route
/// where both say the same; and what its clients' right rests on. Right after a start, waits a moment for agents that are on their way back.
///
/// # Errors
/// [`Reason::NoRoute`].
pub(crate) async fn resolve(
    host: &Option<Hostname>,
    snapshot: &Snapshot,
    plane: &DataPlane,
) -> Result<(Arc<Service>, Arc<Grant>), Refusal> {
    let offered_to_all = |service: Arc<Service>| {
        let grant = Arc::clone(&service.public);
        (service, grant)
    };
    match claimant(host.as_ref(), snapshot, &plane.sessions) {
        Some(Claimant::Offer(service)) => return Ok(offered_to_all(service)),
        Some(Claimant::Route(pattern, name)) => {
            let service = plane.sessions.named(name);
            let by = ServiceName::Host(pattern.clone());
            let grant = service.public_by(&by, snapshot, plane.sessions.grants());
            return Ok((service, grant));
        }
        None => {}
    }
    let agent_wait = plane.live.limits().agent_wait;
    let came_back = plane.sessions.wait_for_service(host.as_ref(), agent_wait).await;
    came_back.map(offered_to_all).ok_or_else(|| {
        let detail = host.as_ref().map_or_else(
            || "The request names no host.".to_owned(),
            |host| format!("No service is offered under the host name {host}."),
        );
        Refusal::new(Reason::NoRoute, detail)
    })
}

/// Who has a host now.
#[derive(Debug)]
pub(crate) enum Claimant<'s> {
    /// A route for these hosts, to the service of this name.
    Route(&'s HostPattern, &'s Name),
    /// Agents, who offer it themselves.
    Offer(Arc<Service>),
}

/// Who has a host, of routes and what agents offer; `None`: nobody yet.
pub(crate) fn claimant<'s>(
    host: Option<&Hostname>,
    snapshot: &'s Snapshot,
    sessions: &Sessions,
) -> Option<Claimant<'s>> {
    let routed = host.and_then(|host| snapshot.route_for_host(host));
    match (routed, sessions.service_for(host)) {
        (None, offered) => offered.map(Claimant::Offer),
        (Some((pattern, _)), Some(service)) if service.is_held() && is_narrower(&service.name, pattern) => {
            Some(Claimant::Offer(service))
        }
        (Some((pattern, name)), _) => Some(Claimant::Route(pattern, name)),
    }
}

/// Whether what is offered is for fewer hosts than a route that is for the same host.
fn is_narrower(offered: &ServiceName, route: &HostPattern) -> bool {
    let ServiceName::Host(offered) = offered else { return false };
    match (offered, route) {
        (HostPattern::Exact(_), HostPattern::Exact(_)) | (HostPattern::Any, _) => false,
        (HostPattern::Exact(_) | HostPattern::Suffix(_), HostPattern::Any)
        | (HostPattern::Exact(_), HostPattern::Suffix(_)) => true,
        (HostPattern::Suffix(offered), HostPattern::Suffix(route)) => {
            offered.as_str().len() > route.as_str().len()
        }
        (HostPattern::Suffix(_), HostPattern::Exact(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_of_offer_and_route_wins_and_a_route_wins_a_tie() {
        let narrower =
            |offered: &str, route: &str| is_narrower(&offered.parse().unwrap(), &route.parse().unwrap());
        assert!(narrower("a.b.example", "*.b.example") && narrower("*.b.example", "*.example"));
        assert!(narrower("a.example", "*") && narrower("*.example", "*"));
        for (offered, route) in [("a.example", "a.example"), ("*.example", "*.example"), ("*", "*")] {
            assert!(!narrower(offered, route), "{offered}");
        }
        assert!(!narrower("*.example", "*.b.example") && !narrower("*", "a.example"));
    }

    fn host_of(target: &str, fields: &[&str]) -> Result<Option<String>, Reason> {
        let mut request = Request::builder().uri(target);
        for field in fields {
            request = request.header("host", *field);
        }
        host(&request.body(()).unwrap()).map(|h| h.map(|h| h.to_string())).map_err(|r| r.reason)
    }

    #[test]
    fn the_host_is_folded_and_its_port_dropped() {
        assert_eq!(host_of("/", &["Example.COM.:8080"]), Ok(Some("example.com".into())));
        assert_eq!(host_of("http://a.example/x", &[]), Ok(Some("a.example".into())));
        assert_eq!(host_of("/", &[]), Ok(None));
        assert_eq!(host_of("/", &["[::1]:80"]), Ok(Some("[::1]".into())));
    }

    #[test]
    fn a_target_and_a_host_that_disagree_are_refused() {
        assert_eq!(host_of("http://a.example/", &["A.example:80"]), Ok(Some("a.example".into())));
        assert_eq!(host_of("https://a.example/", &["a.example:443"]), Ok(Some("a.example".into())));
        for (target, field) in [
            ("http://a.example/", "b.example"),
            ("http://a.example/", "a.example:81"),
            ("http://a.example:81/", "a.example"),
        ] {
            assert_eq!(host_of(target, &[field]), Err(Reason::BadRequest), "{target} {field}");
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for field in ["", "a b", "user@a.example", "a/b", "a..b", "*", "a.example:x"] {
            assert_eq!(host_of("/", &[field]), Err(Reason::BadRequest), "{field:?}");
        }
        assert_eq!(host_of("/", &["a.example", "a.example"]), Err(Reason::BadRequest));
    }
}
