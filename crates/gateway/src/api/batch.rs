//! Many resources at once: apply and export.

use adit_control::changes::{Batch, Change, Changed, Outcome};
use adit_control::model::{Kind, Resource};
use adit_proto::name::Name;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::HeaderMap;
use http::{Request, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::answer::json;
use super::asked::{MAX_BATCH, any_resource, document};
use super::problem::Problem;
use super::{Api, Asker};

/// A resource that shall not be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gone {
    kind: Kind,
    name: Name,
}

/// Resources as they shall be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, in any combination")]
struct Apply {
    #[serde(default, deserialize_with = "present")]
    resources: Option<Vec<Value>>,
    #[serde(default)]
    delete: Vec<Gone>,
    #[serde(default)]
    ignore_missing: bool,
    #[serde(default)]
    prune: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

/// What is there; null is no list.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Value>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}

pub(super) async fn apply(
    State(api): State<Api>,
    asker: Asker,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let Apply { resources, delete, ignore_missing, prune, dry_run, force } =
        document(&headers, request.into_body(), MAX_BATCH).await?;
    // A document in which a key is misspelt, or a filter found nothing, would delete everything.
    if prune && resources.is_none() {
        let next = "send `resources`; an empty list if nothing is to be left";
        return Err(Problem::client(
            "invalid",
            422,
            "`prune` without `resources` would delete all there is",
            next,
        ));
    }
    let resources =
        resources.unwrap_or_default().into_iter().map(any_resource).collect::<Result<Vec<_>, _>>()?;
    let gone = delete.into_iter().map(|Gone { kind, name }| Change::Delete(kind, name, None));
    let changes = resources.into_iter().map(Change::Put).chain(gone).collect();
    let outcome = api.apply(&asker, Batch { changes, dry_run, prune, force, ignore_missing }).await?;
    Ok(applied(&api, &outcome))
}

/// All that a transaction did.
pub(super) fn applied(api: &Api, outcome: &Outcome) -> Response<Body> {
    let changes: Vec<Value> = outcome.changes.iter().map(shown).collect();
    let mut answer = json!({ "changes": changes, "revision": outcome.revision });
    let after = outcome.changes.iter().filter_map(|changed| changed.after.as_ref());
    let remarks: Vec<String> = after
        .flat_map(|stored| {
            let (kind, name) = (stored.resource.kind(), stored.resource.name());
            api.remarks(&stored.resource).into_iter().map(move |remark| format!("{kind} {name}: {remark}"))
        })
        .collect();
    if !remarks.is_empty() {
        answer["remarks"] = json!(remarks);
    }
    json(StatusCode::OK, &answer)
}

fn shown(changed: &Changed) -> Value {
    let mut fields = Map::new();
    fields.insert("action".to_owned(), json!(changed.action));
    fields.insert("kind".to_owned(), json!(changed.kind));
    fields.insert("name".to_owned(), json!(changed.name));
    if let Some(before) = &changed.before {
        fields.insert("before".to_owned(), json!(before.resource));
    }
    if let Some(after) = &changed.after {
        fields.insert("after".to_owned(), json!(after.resource));
    }
    Value::Object(fields)
}

/// Everything there is; nothing of it is copied for that.
#[derive(Serialize)]
struct Exported<'a> {
    resources: Vec<&'a Resource>,
    revision: u64,
}

pub(super) async fn export(State(api): State<Api>) -> Response<Body> {
    let (all, revision) = api.changes.export();
    let resources: Vec<&Resource> = all.iter().map(|stored| &stored.resource).collect();
    json(StatusCode::OK, &Exported { resources, revision })
}
