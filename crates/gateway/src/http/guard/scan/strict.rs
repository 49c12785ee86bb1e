//! The same rules for a request that came over HTTP/2, whose fields a library has read already.
//!
//! Framing cannot be attacked there, but what goes on is HTTP/1.1: a request that could not have come in that form
//! must not leave in it (RFC 9113 §10.3).

use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, Method, Request, Uri, header};
use adit_proto::reason::Reason;

use super::{Limits, MAX_METHOD, Refusal, bad, syntax, target_too_long, too_large};

/// Bytes of a field beside its name and value, as HTTP/1.1 writes it: a colon, a space, and the line's end.
const FIELD_OVERHEAD: usize = 4;

/// Whether the request keeps the rules that [`super::Scanner`] sees to in HTTP/1.x.
///
/// # Errors
/// The rule it breaks.
pub(crate) fn check<B>(request: &Request<B>, limits: &Limits) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal { reason: Reason::NotImplemented, detail: "CONNECT is not served here." });
    }
    if request.method().as_str().len() > MAX_METHOD {
        return Err(bad("The method is not a token of at most 32 bytes."));
    }
    check_target(request.method(), request.uri(), limits)?;
    check_size(request, limits)?;
    check_length(request.headers())?;
    check_authority(request.uri(), request.headers())
}

fn check_target(method: &Method, uri: &Uri, limits: &Limits) -> Result<(), Refusal> {
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad("The scheme is neither http nor https."));
    }
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    if target.len() > limits.max_target {
        return Err(target_too_long());
    }
    let is_asterisk = target == "*" && method == Method::OPTIONS;
    if !is_asterisk && !syntax::is_path_form(target.as_bytes()) {
        return Err(bad("The path is malformed."));
    }
    Ok(())
}

fn check_size<B>(request: &Request<B>, limits: &Limits) -> Result<(), Refusal> {
    let fields = request.headers();
    // A client may send each cookie in a field of its own; they go on as one (RFC 9113 §8.2.3).
    let cookies = fields.get_all(header::COOKIE).iter().count();
    let count = fields.len() - cookies.saturating_sub(1);
    let sizes = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
    if count > limits.max_headers || sizes.sum::<usize>() > limits.max_header_bytes {
        return Err(too_large());
    }
    Ok(())
}

/// One number, as in HTTP/1.1: also a list of equal ones is refused (RFC 9110 §8.6).
fn check_length(fields: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if syntax::decimal(length.as_bytes()).is_some() => Ok(()),
        (Some(_), None) => Err(bad("Content-Length is not one number of bytes.")),
        (Some(_), Some(_)) => Err(bad("There is more than one Content-Length field.")),
    }
}

/// Whether somebody is named, and every name is one. That they agree is the router's to see to.
fn check_authority(uri: &Uri, fields: &HeaderMap) -> Result<(), Refusal> {
    let host = fields.get(header::HOST);
    if uri.authority().is_none() && host.is_none() {
        return Err(bad("The request names no host."));
    }
    if uri.authority().is_some_and(|authority| syntax::authority(authority.as_str().as_bytes()).is_none()) {
        return Err(bad("The authority is not a host with an optional port."));
    }
    if host.is_some_and(|host| syntax::authority(host.as_bytes()).is_none()) {
        return Err(bad("The Host field is not a host with an optional port."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_headers: 4, max_header_bytes: 200, max_target: 10 };

    /// Method, target, fields and the status of the refusal.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);

    fn verdict(method: &str, uri: &str, fields: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), &LIMITS).err().map(|refusal| refusal.reason.status())
    }

    #[test]
    fn ordinary_requests_pass() {
        for uri in ["http://a.example/", "https://a.example:8443/p?q=/?", "http://[::1]/", "http://a_b/%2F"] {
            assert_eq!(verdict("GET", uri, &[("content-length", "5")]), None, "{uri}");
        }
        let mut asterisk = Request::new(());
        *asterisk.method_mut() = Method::OPTIONS;
        let parts = Uri::builder().scheme("http").authority("a.example").path_and_query("*");
        *asterisk.uri_mut() = parts.build().unwrap();
        assert_eq!(check(&asterisk, &LIMITS), Ok(()));
        *asterisk.method_mut() = Method::GET;
        assert!(check(&asterisk, &LIMITS).is_err(), "only OPTIONS asks about the server");
        let crumbs = [("cookie", "a=b"); 9];
        assert_eq!(verdict("GET", "http://a.example/", &crumbs), None, "cookies count once");
    }

    #[test]
    fn what_could_not_have_come_over_http1_is_refused() {
        let good = "http://a.example/";
        let long = "x".repeat(200);
        let rows: [Row<'_>; 11] = [
            ("GET", good, &[("content-length", "5"), ("content-length", "5")], 400),
            ("GET", good, &[("content-length", "5, 5")], 400),
            ("GET", good, &[("x", "1"); 5], 431),
            ("GET", good, &[("x", &long)], 431),
            (&long, good, &[], 400),
            ("GET", "http://a.example/0123456789", &[], 414),
            ("GET", "ftp://a.example/", &[], 400),
            ("GET", "/", &[("host", "a.example")], 400),
            ("GET", "http://user@a.example/", &[], 400),
            ("GET", good, &[("host", "a b")], 400),
            ("CONNECT", good, &[], 501),
        ];
        for (method, uri, fields, status) in rows {
            assert_eq!(verdict(method, uri, fields), Some(status), "{method} {uri} {fields:?}");
        }
    }
}
