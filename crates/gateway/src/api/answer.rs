//! Answers in JSON, and how resources look in them.

use std::collections::HashSet;

use adit_control::changes::Stored;
use adit_control::model::{Credential, Kind, Model, TokenSecret, rfc3339};
use adit_proto::name::Name;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{self, HeaderValue};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Api;

/// A JSON answer. It is never kept by anybody in between.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let mut text = serde_json::to_vec(body).unwrap_or_default();
    text.push(b'\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON answer about one resource, with its revision.
pub(super) fn tagged(status: StatusCode, stored: &Stored, body: &impl Serialize) -> Response<Body> {
    let mut response = json(status, body);
    if let Ok(tag) = HeaderValue::from_str(&etag(stored)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// What `If-Match` is compared with.
pub(super) fn etag(stored: &Stored) -> String {
    format!("\"{}\"", stored.revision)
}

pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// What items say beside the fields of their resources.
pub(super) struct Presence<'a> {
    pub(super) model: &'a Model,
    /// Knows what of a resource comes to nothing here.
    pub(super) api: &'a Api,
    /// Folded names of whoever has a session now.
    pub(super) online: HashSet<String>,
}

/// A resource as the interface shows it: its fields, and what is known about it.
pub(super) fn item(stored: &Stored, presence: &Presence<'_>) -> Value {
    let mut fields = match serde_json::to_value(&stored.resource) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    fields.insert("id".to_owned(), json!(*stored.id));
    fields.insert("revision".to_owned(), json!(stored.revision));
    fields.insert("created_at".to_owned(), json!(rfc3339(stored.created_at)));
    fields.insert("updated_at".to_owned(), json!(rfc3339(stored.updated_at)));
    let name = stored.resource.name();
    if matches!(stored.resource.kind(), Kind::Identity | Kind::Token) {
        fields.insert("online".to_owned(), json!(presence.online.contains(name.folded())));
    }
    if stored.resource.kind() == Kind::Identity {
        let credentials = credentials(presence.model, name);
        fields.insert("enrolled".to_owned(), json!(!credentials.is_empty()));
        fields.insert("credentials".to_owned(), Value::Array(credentials));
    }
    if stored.resource.kind() == Kind::Token {
        fields.insert("secrets".to_owned(), Value::Array(secrets(presence.model, name)));
    }
    let remarks = presence.api.remarks(&stored.resource);
    if !remarks.is_empty() {
        fields.insert("remarks".to_owned(), json!(remarks));
    }
    Value::Object(fields)
}

fn credentials(model: &Model, name: &Name) -> Vec<Value> {
    let show = |Credential { serial, issued_at, not_after, renewed_from }: &Credential| {
        let mut shown =
            json!({ "serial": serial, "issued_at": rfc3339(*issued_at), "not_after": rfc3339(*not_after) });
        if let (Value::Object(fields), false) = (&mut shown, renewed_from.is_empty()) {
            fields.insert("renewed_from".to_owned(), json!(renewed_from));
        }
        shown
    };
    model.credentials.get(name).map_or_else(Vec::new, |held| held.iter().map(show).collect())
}

/// Since when and until when each secret of a token is taken; never the secret. Those that have ended are left
/// out, and the one that stays is the first.
fn secrets(model: &Model, name: &Name) -> Vec<Value> {
    let now = crate::grants::now();
    let all = model.secrets.get(name).into_iter().flat_map(|secrets| secrets.iter());
    let mut live: Vec<_> = all.filter(|secret| secret.not_after.is_none_or(|end| now < end)).collect();
    live.sort_by_key(|secret| secret.not_after.is_some());
    let show = |secret: &TokenSecret| {
        let mut shown = json!({ "issued_at": rfc3339(secret.issued_at) });
        if let Some(end) = secret.not_after {
            shown["not_after"] = json!(rfc3339(end));
        }
        shown
    };
    live.into_iter().map(show).collect()
}
