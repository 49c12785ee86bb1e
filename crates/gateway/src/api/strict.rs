//! What every request to the interface has to be, whatever it asks for: sent as it is, and content with what there is to
//! answer; and documents in which nothing stands twice.

use std::collections::HashSet;
use std::fmt;

use axum::body::Body;
use http::Request;
use http::header::{self, HeaderMap, HeaderValue};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor}; // tidy: allow(word): serde's

use super::problem::Problem;
use super::routes;

/// Checks the head of a request.
///
/// # Errors
/// 415 if its document is packed in some way, 406 if it takes nothing that there is to answer.
pub(super) fn check(request: &Request<Body>) -> Result<(), Problem> {
    let (headers, path) = (request.headers(), request.uri().path());
    if let Some(coding) = coding(headers) {
        let message =
            format!("the document is sent with Content-Encoding `{coding}`, and nothing is unpacked here");
        let next = "send it as it is, without Content-Encoding";
        return Err(Problem::client("unsupported_media_type", 415, message, next)
            .with(header::ACCEPT_ENCODING, "identity"));
    }
    let answers = routes::media(request.method(), path);
    if answers.is_empty() || answers.iter().any(|media| is_accepted(headers, media)) {
        return Ok(());
    }
    let message = format!("this answers {}, and the header Accept takes none of that", answers.join(" or "));
    Err(Problem::client("not_acceptable", 406, message, "leave Accept out, or put `*/*` into it"))
}

/// How a document is packed, if it is.
fn coding(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::CONTENT_ENCODING).iter();
    all.find_map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let mut words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.find(|word| !word.eq_ignore_ascii_case("identity")).map(str::to_owned)
    })
}

/// Whether somebody takes this type: of the ranges that fit, the closest one decides (RFC 9110 §12.5.1).
fn is_accepted(headers: &HeaderMap, media: &str) -> bool {
    let all: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(text).collect();
    let (mut says_something, mut best) = (false, None);
    for range in all.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|it| !it.is_empty()) {
        says_something = true;
        let mut parts = range.split(';').map(str::trim);
        let Some(closeness) = closeness(parts.next().unwrap_or_default(), media) else { continue };
        let weight = parts.find_map(|part| {
            let (name, weight) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then_some(weight.trim())
        });
        // A range whose weight is none says nothing.
        let Some(is_taken) = weight.map_or(Some(true), is_taken) else { continue };
        if best.is_none_or(|(closest, _)| closest < closeness) {
            best = Some((closeness, is_taken));
        }
    }
    best.map_or(!says_something, |(_, takes)| takes)
}

/// Whether a range with this weight is taken; `None`: it is no number from 0 to 1 (RFC 9110 §12.4.2; that it has three
/// decimals at most is not insisted on).
fn is_taken(weight: &str) -> Option<bool> {
    let is_decimal = weight.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let weight: f32 = weight.parse().ok().filter(|_| is_decimal)?;
    (0.0..=1.0).contains(&weight).then_some(weight > 0.0)
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// How closely a range names a type; `None`: not at all.
fn closeness(range: &str, media: &str) -> Option<u8> {
    let (kind, _) = media.split_once('/')?;
    if range.eq_ignore_ascii_case(media) {
        Some(2)
    } else if range.strip_suffix("/*").is_some_and(|it| it.eq_ignore_ascii_case(kind)) {
        Some(1)
    } else {
        (range == "*/*" || range == "*").then_some(0)
    }
}

/// The key that stands twice in one object of a document, at any depth: who reads it would take the one, who checks it
/// the other. A document that is not well-formed has none.
pub(super) fn twice(document: &[u8]) -> Option<String> {
    let mut found = None;
    let mut reader = serde_json::Deserializer::from_slice(document);
    let _told_by_whoever_reads_it = Once { found: &mut found }.deserialize(&mut reader);
    found
}

/// Reads a value and keeps nothing of it but a key that stands twice.
struct Once<'f> {
    found: &'f mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

// tidy: allow(word): serde's
impl<'de> Visitor<'de> for Once<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Once { found: self.found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(Once { found: self.found })?;
            if let Some(key) = keys.replace(key) {
                *self.found = Some(key);
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(accept: &str, media: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        is_accepted(&headers, media)
    }

    #[test]
    fn the_closest_range_says_what_is_taken() {
        for (accept, json, events) in [
            ("", true, true),
            ("*/*", true, true),
            ("application/*", true, false),
            ("application/json", true, false),
            ("APPLICATION/JSON; charset=utf-8", true, false),
            ("text/event-stream", false, true),
            ("text/html, */*;q=0.1", true, true),
            ("*/*, application/json;q=0", false, true),
            ("application/json, */*;q=0", true, false),
            ("text/html", false, false),
            ("*/*;q=abc", false, false),
            ("*/*;q=nan", false, false),
            ("*/*;q=-1", false, false),
            ("*/*;q=1.5", false, false),
            ("*/*;q=", false, false),
            ("application/json;q=inf, */*;q=0", false, false),
            ("application/json;q=1e0, */*", true, true),
            ("*/*; Q = 1.000", true, true),
            ("nonsense", false, false),
        ] {
            let got = (accepts(accept, "application/json"), accepts(accept, "text/event-stream"));
            assert_eq!(got, (json, events), "{accept}");
        }
        assert!(is_accepted(&HeaderMap::new(), "application/json"));
    }

    #[test]
    fn what_is_packed_is_found_however_it_is_said() {
        let coding = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            coding(&headers)
        };
        assert_eq!((coding(&[]), coding(&["identity"]), coding(&["Identity, "])), (None, None, None));
        assert_eq!(coding(&["gzip"]).as_deref(), Some("gzip"));
        assert_eq!(coding(&["identity", "br"]).as_deref(), Some("br"));
        assert_eq!(coding(&["identity,deflate"]).as_deref(), Some("deflate"));
    }

    #[test]
    fn a_key_that_stands_twice_is_found_at_every_depth() {
        for (document, key) in [
            (r#"{"a":1,"b":{"a":2}}"#, None),
            (r#"[{"a":1},{"a":1}]"#, None),
            (r#"{"a":1,"b":2,"a":1}"#, Some("a")),
            (r#"{"x":[{"y":{"k":1,"k":2}}]}"#, Some("k")),
            (r#"{"a":1,"\u0061":2}"#, Some("a")),
            (r#"{"":1,"":2}"#, Some("")),
            (r#"{"a":1,"a":"#, None),
            ("", None),
        ] {
            assert_eq!(twice(document.as_bytes()).as_deref(), key, "{document}");
        }
        assert_eq!(twice("[".repeat(100_000).as_bytes()), None);
    }
}
