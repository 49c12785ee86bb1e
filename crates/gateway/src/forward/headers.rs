//! What changes in a head on its way through: hop-by-hop fields go, forwarding fields are set, nothing else moves.

use ::http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use ::http::uri::{PathAndQuery, Uri};
use ::http::{Request, Response, StatusCode, Version};
use adit_proto::reason::Reason;

use super::Client;
use crate::refusal::{REASON, Refusal};

/// Fields that belong to one connection (RFC 9110 §7.6.1), beside those that `Connection` names. `Trailer` is not
/// among them: it announces fields that are forwarded.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];
/// Credentials and challenges for a proxy concern nobody behind it.
const PROXY: [HeaderName; 3] = [
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
];
/// Claims about the client that only a trusted proxy may make.
const FORWARDING: [&str; 3] = ["forwarded", "x-real-ip", "true-client-ip"];

/// Whether a client asks to leave HTTP (RFC 9110 §7.8). `h2c` is not passed on: it would carry requests past this
/// gateway unseen.
pub(crate) fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && names(request.headers(), &header::CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
        && request.headers().contains_key(header::UPGRADE)
        && !names(request.headers(), &header::UPGRADE).any(|name| {
            let protocol = name.split('/').next().unwrap_or("");
            protocol.eq_ignore_ascii_case("h2c") || protocol.eq_ignore_ascii_case("http")
        })
}

/// Whether the client waits for a `100 Continue` before it sends its body.
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The comma-separated elements of a field.
fn names<'a>(headers: &'a HeaderMap, field: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(field)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// Fields that a trailer section may not bring (RFC 9110 §6.5.1): what framing, routing and trust rest on was settled
/// with the head.
const NEVER_TRAILERS: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::AUTHORIZATION,
    header::SET_COOKIE,
    header::COOKIE,
    header::TRAILER,
];

/// Removes from a trailer section what it must not bring.
pub(crate) fn clean_trailers(fields: &mut HeaderMap) {
    strip_hop_by_hop(fields);
    for name in NEVER_TRAILERS.iter().chain(&PROXY) {
        fields.remove(name);
    }
    remove_all(fields, |name| is_forwarding(&name.replace('_', "-")));
}

fn remove_all(fields: &mut HeaderMap, is_refused: impl Fn(&str) -> bool) {
    let refused: Vec<HeaderName> = fields.keys().filter(|name| is_refused(name.as_str())).cloned().collect();
    for name in refused {
        fields.remove(name);
    }
}

/// Whether a response's framing can be read in one way only, and a `101` answers what was asked. The HTTP library
/// forgives more than a gateway may: what it would read one way, a client behind us could read another.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_response<B>(
    response: &Response<B>,
    offered: Option<&HeaderValue>,
) -> Result<(), &'static str> {
    let fields = response.headers();
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (Some(_), Some(_)) => return Err("both Transfer-Encoding and Content-Length"),
        (Some(coding), None) => {
            let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !is_chunked || codings.next().is_some() || response.version() != Version::HTTP_11 {
                return Err("a Transfer-Encoding other than chunked");
            }
        }
        (None, Some(length)) => {
            if lengths.next().is_some()
                || length.is_empty()
                || !length.as_bytes().iter().all(u8::is_ascii_digit)
            {
                return Err("a Content-Length that is not one number");
            }
        }
        (None, None) => {}
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let agreed = fields.get(header::UPGRADE).and_then(|value| value.to_str().ok()).map(str::trim);
        let offered = offered.and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_offered =
            |agreed: &str| offered.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case(agreed));
        if !agreed.is_some_and(is_offered) {
            return Err("a 101 to a protocol that was not asked for");
        }
    }
    Ok(())
}

/// Removes what belongs to the connection a head came on.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let nominated: Vec<HeaderName> =
            names(headers, &header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
        for name in nominated {
            // What routing and framing rest on cannot be nominated away.
            if !matches!(
                name,
                header::HOST | header::CONTENT_LENGTH | header::CONTENT_TYPE | header::AUTHORIZATION
            ) {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Rewrites a request for the upstream.
///
/// # Errors
/// [`Reason::BadRequest`] when the request cannot be expressed in HTTP/1.1.
pub(crate) fn to_upstream<B>(
    request: &mut Request<B>,
    client: &Client<'_>,
    is_upgrade: bool,
) -> Result<(), Refusal> {
    let upgrade = is_upgrade.then(|| request.headers().get(header::UPGRADE).cloned()).flatten();
    let version = request.version();
    add_via(request.headers_mut(), version, client.via)?;
    let wants_trailers =
        names(request.headers(), &header::TE).any(|name| name.eq_ignore_ascii_case("trailers"));
    let host = host_value(request)?;
    join_cookies(request.headers_mut());
    let headers = request.headers_mut();
    strip_hop_by_hop(headers);
    for name in &PROXY {
        headers.remove(name);
    }
    drop_twins(headers);
    match host {
        Some(host) => drop(headers.insert(header::HOST, host)),
        None => drop(headers.insert(header::HOST, HeaderValue::from_static(""))),
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    set_forwarding(headers, client);
    let target = target(request.uri())?;
    *request.uri_mut() = target;
    Ok(())
}

/// Adds this gateway to `Via` (RFC 9110 §7.6.3), and refuses a request that has passed it before.
fn add_via(headers: &mut HeaderMap, version: Version, own: &str) -> Result<(), Refusal> {
    let has_passed =
        names(headers, &header::VIA).any(|element| element.split_whitespace().nth(1) == Some(own));
    if has_passed {
        return Err(Refusal::from(Reason::LoopDetected));
    }
    let version = match version {
        Version::HTTP_2 => "2.0",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    if let Ok(element) = HeaderValue::try_from(format!("{version} {own}")) {
        append_list(headers, header::VIA, element);
    }
    Ok(())
}

/// The `Host` the upstream sees: what the client asked for, unchanged.
fn host_value<B>(request: &Request<B>) -> Result<Option<HeaderValue>, Refusal> {
    if let Some(authority) = request.uri().authority() {
        let value = HeaderValue::from_str(authority.as_str());
        return value.map(Some).map_err(|_invalid| Refusal::from(Reason::BadRequest));
    }
    Ok(request.headers().get(header::HOST).cloned())
}

/// The target in origin form, byte for byte what came.
fn target(uri: &Uri) -> Result<Uri, Refusal> {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = ::http::uri::Parts::default();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_invalid| Refusal::from(Reason::BadRequest))
}

/// HTTP/2 lets cookies come in pieces (RFC 9113 §8.2.3); HTTP/1.1 has one field.
fn join_cookies(headers: &mut HeaderMap) {
    let Entry::Occupied(cookies) = headers.entry(header::COOKIE) else { return };
    if cookies.iter().count() < 2 {
        return;
    }
    let joined = cookies.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Some upstreams read `X_Forwarded_For` and `X-Forwarded-For` as the same variable, so an underscore twin of a
/// field the gateway vouches for is a forgery.
fn drop_twins(headers: &mut HeaderMap) {
    remove_all(headers, |name| name.contains('_') && is_forwarding(&name.replace('_', "-")));
}

fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || FORWARDING.contains(&name)
}

/// Sets `X-Forwarded-{For,Proto,Host}` and `Forwarded` (RFC 7239) from what the gateway saw. From a trusted proxy
/// the lists are extended and its word on protocol and host is kept.
fn set_forwarding(headers: &mut HeaderMap, client: &Client<'_>) {
    const XFF: HeaderName = HeaderName::from_static("x-forwarded-for");
    const XFP: HeaderName = HeaderName::from_static("x-forwarded-proto");
    const XFH: HeaderName = HeaderName::from_static("x-forwarded-host");
    if !client.trusted {
        let claims: Vec<HeaderName> =
            headers.keys().filter(|name| is_forwarding(name.as_str())).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }
    let (forwarded_for, node, proto) =
        (&client.connection.forwarded_for, &client.connection.node, client.connection.scheme);
    let host = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned();
    let element = match host.as_ref().and_then(|host| host.to_str().ok()) {
        Some(host) => format!("for={node};host=\"{host}\";proto={proto}"),
        None => format!("for={node};proto={proto}"),
    };
    append_list(headers, XFF, forwarded_for.clone());
    if let Ok(element) = HeaderValue::try_from(element) {
        append_list(headers, header::FORWARDED, element);
    }
    headers.entry(XFP).or_insert(HeaderValue::from_static(proto));
    if let Some(host) = host {
        headers.entry(XFH).or_insert(host);
    }
}

/// Appends an element to a list field, which becomes one field if it was several.
fn append_list(headers: &mut HeaderMap, name: HeaderName, element: HeaderValue) {
    let known: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    let value = if known.is_empty() {
        Ok(element)
    } else {
        HeaderValue::from_bytes(&[known.join(&b", "[..]).as_slice(), element.as_bytes()].join(&b", "[..]))
    };
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

/// Rewrites a response's fields for the client.
pub(crate) fn to_client(headers: &mut HeaderMap, is_upgrade: bool) {
    let upgrade = is_upgrade.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    strip_hop_by_hop(headers);
    // The gateway's own word; an upstream cannot speak for it.
    headers.remove(REASON);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

#[cfg(test)]
mod tests {
    use adit_control::Who;
    use adit_proto::names::ServiceName;

    use super::*;
    use crate::flow::Connection;
    use crate::grants::Grants;

    fn rewritten(request: Request<()>, trusted: bool) -> Request<()> {
        let connection = Connection::new("203.0.113.7:1".parse().unwrap(), "https", None);
        let grant = Grants::default().of(&Who::Public, &ServiceName::Tcp(1), None);
        let client = Client {
            connection: &connection,
            subject: &adit_control::Subject::public(None),
            grant: &grant,
            trusted,
            via: "adit-test",
        };
        let mut request = request;
        let is_upgrade = wants_upgrade(&request);
        to_upstream(&mut request, &client, is_upgrade).unwrap();
        request
    }

    fn field<'a>(request: &'a Request<()>, name: &str) -> Option<&'a str> {
        request.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn hop_by_hop_fields_and_what_connection_names_do_not_pass() {
        let request = rewritten(
            Request::builder()
                .uri("/x")
                .header("host", "a.example")
                .header("connection", "close, X-Hop , x-forwarded-for, host")
                .header("x-hop", "1")
                .header("keep-alive", "timeout=5")
                .header("proxy-authorization", "Basic eA==")
                .header("te", "gzip")
                .header("x-end", "kept")
                .body(())
                .unwrap(),
            false,
        );
        for gone in ["connection", "x-hop", "keep-alive", "proxy-authorization", "te"] {
            assert_eq!(field(&request, gone), None, "{gone}");
        }
        assert_eq!(field(&request, "x-end"), Some("kept"));
        assert_eq!(field(&request, "host"), Some("a.example"));
        assert_eq!(field(&request, "x-forwarded-for"), Some("203.0.113.7"));
    }

    #[test]
    fn claims_of_an_untrusted_client_are_replaced_and_their_twins_dropped() {
        let request = rewritten(
            Request::builder()
                .uri("/")
                .header("host", "a.example")
                .header("x-forwarded-for", "10.0.0.1")
                .header("x_forwarded_for", "10.0.0.1")
                .header("x-forwarded-proto", "gopher")
                .header("x-forwarded-host", "evil.example")
                .header("x-forwarded-port", "1")
                .header("x-real-ip", "10.0.0.1")
                .header("forwarded", "for=10.0.0.1")
                .body(())
                .unwrap(),
            false,
        );
        assert_eq!(field(&request, "x-forwarded-for"), Some("203.0.113.7"));
        assert_eq!(field(&request, "x-forwarded-proto"), Some("https"));
        assert_eq!(field(&request, "x-forwarded-host"), Some("a.example"));
        assert_eq!(field(&request, "forwarded"), Some("for=203.0.113.7;host=\"a.example\";proto=https"));
        for gone in ["x_forwarded_for", "x-forwarded-port", "x-real-ip"] {
            assert_eq!(field(&request, gone), None, "{gone}");
        }
    }

    #[test]
    fn a_trusted_proxys_lists_are_extended() {
        let request = rewritten(
            Request::builder()
                .uri("/")
                .header("host", "a.example")
                .header("x-forwarded-for", "198.51.100.1")
                .header("x-forwarded-proto", "http")
                .body(())
                .unwrap(),
            true,
        );
        assert_eq!(field(&request, "x-forwarded-for"), Some("198.51.100.1, 203.0.113.7"));
        assert_eq!(field(&request, "x-forwarded-proto"), Some("http"));
    }

    #[test]
    fn targets_pass_byte_for_byte() {
        for (from, to) in [
            ("/a%2Fb//../c;d?x=%20&y=a/../b", "/a%2Fb//../c;d?x=%20&y=a/../b"),
            ("http://a.example/p?q", "/p?q"),
            ("http://a.example", "/"),
            ("/?", "/?"),
        ] {
            let request =
                rewritten(Request::builder().uri(from).header("host", "a.example").body(()).unwrap(), false);
            assert_eq!(request.uri().to_string(), to);
        }
        let request = rewritten(
            Request::builder().method("OPTIONS").uri("*").header("host", "a").body(()).unwrap(),
            false,
        );
        assert_eq!(request.uri().to_string(), "*");
    }

    #[test]
    fn only_upgrades_that_leave_http_are_passed_on() {
        let wants = |upgrade: &str| {
            let request =
                Request::builder().header("connection", "keep-alive, Upgrade").header("upgrade", upgrade);
            wants_upgrade(&request.body(()).unwrap())
        };
        assert!(wants("websocket"));
        assert!(!wants("h2c"));
        assert!(!wants("HTTP/2.0, websocket"));
        let without_connection = Request::builder().header("upgrade", "websocket").body(()).unwrap();
        assert!(!wants_upgrade(&without_connection));
    }

    #[test]
    fn cookies_in_pieces_become_one_field() {
        let request = rewritten(
            Request::builder().uri("/").header("cookie", "a=1").header("cookie", "b=2").body(()).unwrap(),
            false,
        );
        assert_eq!(field(&request, "cookie"), Some("a=1; b=2"));
    }
}
