//! The audit log: pages in JSON, all of it as JSON lines.

use adit_control::audit::{AuditQuery, AuditRecord};
use adit_control::model::Kind;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::answer::json;
use super::asked::{Wanted, name};
use super::problem::Problem;
use super::resources::page_size;
use super::routes::LINES;
use super::{Api, Streaming};

/// Records that are read at a time for an export.
const CHUNK: usize = 1000;

/// Which records are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Records {
    after: Option<u64>,
    limit: Option<usize>,
    kind: Option<Kind>,
    name: Option<String>,
    actor: Option<String>,
    order: Option<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    Asc,
    Desc,
}

pub(super) async fn audit(
    State(api): State<Api>,
    Wanted(asked): Wanted<Records>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wants_lines =
        accepted.split(',').any(|one| one.split(';').next().is_some_and(|it| it.trim() == LINES));
    let limit = match asked.limit {
        None if wants_lines => usize::MAX,
        limit => page_size(limit)?,
    };
    let query = AuditQuery {
        after: asked.after,
        limit,
        newest_first: asked.order == Some(Order::Desc),
        kind: asked.kind,
        name: asked.name.as_deref().map(name).transpose()?,
        actor: asked.actor,
    };
    if wants_lines {
        return Ok(lines(api, query));
    }
    let page = api.changes.audit(&query).await?;
    Ok(json(StatusCode::OK, &json!({ "items": page.records, "next": page.next, "dropped": page.dropped })))
}

/// Every record as a line, read as it is sent.
fn lines(api: Api, query: AuditQuery) -> Response<Body> {
    let all = stream::try_unfold((api, query), |(api, mut query)| async move {
        if query.limit == 0 {
            return Ok(None);
        }
        let chunk = AuditQuery { limit: query.limit.min(CHUNK), ..query.clone() };
        let page = api.changes.audit(&chunk).await?;
        query.limit = page.next.map_or(0, |_| query.limit.saturating_sub(page.records.len()));
        query.after = page.next;
        Ok::<_, adit_control::ChangeError>(Some((text(&page.records), (api, query))))
    });
    let mut response = Response::new(Body::from_stream(all));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    response.extensions_mut().insert(Streaming);
    response
}

fn text(records: &[AuditRecord]) -> Bytes {
    let mut text = Vec::new();
    for record in records {
        text.extend(serde_json::to_vec(record).unwrap_or_default());
        text.push(b'\n');
    }
    text.into()
}
