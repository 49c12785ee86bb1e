//! What a request says: its query, its path, its document. Whatever is wrong with it is answered in one form.

use std::time::Duration;

use adit_control::model::{Kind, READ_ONLY, Resource};
use adit_control::store::Revision;
use adit_proto::name::Name;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use http::header::{self, HeaderMap};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Deserializer};
use serde_json::{Number, Value, error::Category};

use super::problem::Problem;
use super::strict;

/// Bytes of a document at most.
pub(super) const MAX_BODY: usize = 1024 * 1024;
/// Bytes of a batch at most.
pub(super) const MAX_BATCH: usize = 16 * 1024 * 1024;
/// How long a document may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The query; what it does not know is refused.
#[derive(Debug)]
pub(super) struct Wanted<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Wanted<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(wanted)) => Ok(Self(wanted)),
            Err(error) => Err(Problem::bad_request("bad_query", error.body_text())),
        }
    }
}

/// The parts of the path that are names.
#[derive(Debug)]
pub(super) struct At<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for At<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(at)) => Ok(Self(at)),
            Err(error) => Err(Problem::bad_request("bad_path", error.body_text())),
        }
    }
}

/// A whole document.
///
/// # Errors
/// It is no JSON by its own word (415), too long (413), too slow (408), not well-formed (400), or says something else
/// than what is taken here (422).
pub(super) async fn document<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<T, Problem> {
    let bytes = bytes(headers, body, limit).await?;
    parse(&bytes)
}

/// The same where there need not be one.
pub(super) async fn optional_document<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let has_type = headers.contains_key(header::CONTENT_TYPE);
    if !has_type && http_body::Body::is_end_stream(&body) {
        return Ok(T::default());
    }
    document(headers, body, MAX_BODY).await
}

async fn bytes(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = given.and_then(|text| text.split(';').next()).map(str::trim).unwrap_or_default();
    if !essence.eq_ignore_ascii_case("application/json") {
        let message = format!("the document's type is `{essence}`");
        return Err(Problem::client(
            "unsupported_media_type",
            415,
            message,
            "send JSON, with `Content-Type: application/json`",
        ));
    }
    let whole = tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect()).await;
    match whole {
        Ok(Ok(whole)) => Ok(whole.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::client(
            "too_large",
            413,
            format!("the document is longer than {limit} bytes"),
            "split it up",
        )),
        Ok(Err(error)) => Err(Problem::bad_request("bad_body", format!("the document broke off: {error}"))),
        Err(_elapsed) => Err(Problem::client(
            "too_slow",
            408,
            format!("the document took longer than {} s", BODY_TIME.as_secs()),
            "send it again",
        )),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if let Some(key) = strict::twice(bytes) {
        let message = format!("the key `{key}` stands twice in one object of the document");
        return Err(Problem::client("duplicate_key", 400, message, "say it once"));
    }
    let parsed = serde_json::from_slice(bytes).map_err(|error| unfit(&error))?;
    // The library would take the fields in their order as well, without their names.
    match bytes.trim_ascii_start().first() {
        Some(b'{') => Ok(parsed),
        _ => Err(invalid("the document is no JSON object".to_owned())),
    }
}

fn unfit(error: &serde_json::Error) -> Problem {
    match error.classify() {
        Category::Data => invalid(error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::bad_request("bad_json", format!("the document is not well-formed JSON: {error}"))
        }
    }
}

fn invalid(message: String) -> Problem {
    Problem::client("invalid", 422, message, "correct it; GET /v1/openapi.json says what belongs there")
}

/// A number that may be left out, but is a number if it is there: `20`, or `20.0`, which is the same in JSON.
///
/// # Errors
/// It is something else.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Number::deserialize(deserializer)?;
    let whole = || {
        let text = value.to_string();
        let (whole, fraction) = text.split_once('.')?;
        fraction.bytes().all(|digit| digit == b'0').then(|| whole.parse().ok())?
    };
    let number = value.as_u64().or_else(whole);
    number
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format_args!("{value} is no whole number from 0 on")))
}

/// A resource of this kind from its document.
///
/// # Errors
/// It is of another kind, or no such resource.
pub(super) fn resource(kind: Kind, document: Value) -> Result<Resource, Problem> {
    let Value::Object(mut fields) = document else {
        return Err(invalid(format!("a {kind} is a JSON object")));
    };
    for field in READ_ONLY {
        fields.remove(field);
    }
    let word = fields.entry("kind").or_insert_with(|| kind.singular().into());
    if word.as_str() != Some(kind.singular()) {
        return Err(invalid(format!("`kind` is {word}; this is where a {kind} is written")));
    }
    any_resource(Value::Object(fields))
}

/// A resource of any kind from its document.
///
/// # Errors
/// It is no resource.
pub(super) fn any_resource(mut document: Value) -> Result<Resource, Problem> {
    if let Value::Object(fields) = &mut document {
        for field in READ_ONLY {
            fields.remove(field);
        }
    }
    let shown =
        match (document.get("kind").and_then(Value::as_str), document.get("name").and_then(Value::as_str)) {
            (Some(kind), Some(name)) => format!("{kind} `{name}`: "),
            _ => String::new(),
        };
    let nameless =
        ["limits", "data"].into_iter().find(|field| document.get(field).is_some_and(Value::is_array));
    if let Some(field) = nameless {
        return Err(invalid(format!("{shown}{field} is a JSON object")));
    }
    // What is not limited is left out; null would look like a limit that allows nothing.
    if document.get("limits").and_then(Value::as_object).is_some_and(|it| it.values().any(Value::is_null)) {
        return Err(invalid(format!("{shown}limits holds null; leave out what is not limited")));
    }
    serde_json::from_value(document).map_err(|error| invalid(format!("{shown}{error}")))
}

/// A name in a path.
///
/// # Errors
/// It is none.
pub(super) fn name(text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|error| Problem::bad_request("bad_name", format!("`{text}`: {error}")))
}

/// What a request demands of the resource's state.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demands {
    /// `If-Match`: it must be there, at this revision if one is given.
    pub(super) present: Option<Option<Revision>>,
    /// `If-None-Match: *`: it must not be there.
    pub(super) absent: bool,
}

impl Demands {
    /// Reads the headers (RFC 9110 §13.1).
    ///
    /// # Errors
    /// They are not well-formed. A tag that none of ours can be like is answered 412.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = |name: header::HeaderName| -> Result<Option<String>, Problem> {
            let mut values = headers.get_all(&name).iter();
            let Some(value) = values.next() else { return Ok(None) };
            match (value.to_str(), values.next()) {
                (Ok(text), None) => Ok(Some(text.trim().to_owned())),
                _ => Err(Problem::bad_request("bad_header", format!("{name} must be there once, as text"))),
            }
        };
        let present = match text(header::IF_MATCH)? {
            None => None,
            Some(star) if star == "*" => Some(None),
            Some(tag) => Some(Some(revision(&tag)?)),
        };
        let absent = match text(header::IF_NONE_MATCH)? {
            None => false,
            Some(star) if star == "*" => true,
            Some(other) => {
                let message = format!("If-None-Match is {other}; to write, it takes `*`");
                return Err(Problem::bad_request("bad_header", message));
            }
        };
        Ok(Self { present, absent })
    }
}

fn revision(tag: &str) -> Result<Revision, Problem> {
    let never = || {
        let next = "read the resource again; its ETag is what If-Match takes";
        Problem::client("changed_meanwhile", 412, format!("no revision has the tag {tag}"), next)
    };
    // A list of none: nothing fits it.
    if tag.is_empty() {
        return Err(never());
    }
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inner = inner.ok_or_else(|| {
        let message = format!("If-Match is {tag}; it takes one strong entity tag, as in `\"17\"`, or `*`");
        Problem::bad_request("bad_header", message)
    })?;
    inner.parse().map_err(|_not_ours| never())
}
