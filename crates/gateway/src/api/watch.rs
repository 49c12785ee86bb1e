//! Changes as they happen: server-sent events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use adit_control::changes::{Feed, Told};
use adit_control::store::Revision;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::answer;
use super::asked::Wanted;
use super::problem::Problem;
use super::{Api, Asker, Streaming};

/// Watches at once.
pub(super) const MAX_WATCHES: usize = 64;
/// How often a comment is sent where nothing happens, so that everybody on the way knows that it stands.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where a watch begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    since: Option<Revision>,
}

pub(super) async fn watch(
    State(api): State<Api>,
    asker: Asker,
    Wanted(Since { since }): Wanted<Since>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let permit = Arc::clone(&api.watches).try_acquire_owned().map_err(|_full| {
        Problem::gateway("busy", 503, format!("{MAX_WATCHES} watches stand already"), "end one, or try again")
    })?;
    let last = headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default());
    let since = match last.filter(|last| !last.is_empty()).map(str::parse) {
        Some(Ok(last)) => Some(last),
        Some(Err(_not_a_number)) => {
            return Err(Problem::bad_request("bad_header", "Last-Event-ID is the number of a revision"));
        }
        None => since,
    };
    let feed = api.changes.feed(since)?;
    // The first line tells where it begins, so that who loses the connection can come back to there.
    let begin = format!(": changes from here on\nid: {}\n\n", feed.at()).into();
    let standing = Standing { api, asker, feed, waiting: VecDeque::from([begin]), _permit: permit };
    let events = stream::unfold(standing, |mut standing| async move {
        let next = standing.next().await?;
        Some((Ok::<_, std::convert::Infallible>(next), standing))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.extensions_mut().insert(Streaming);
    Ok(response)
}

/// A watch that stands.
struct Standing {
    api: Api,
    asker: Asker,
    feed: Feed,
    waiting: VecDeque<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Standing {
    /// The next bytes. `None` ends it: when the gateway drains, when whoever watches may not any more, and when it was
    /// too slow.
    async fn next(&mut self) -> Option<Bytes> {
        let mut decisions = self.api.snapshots.changes();
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                // It reads what it is sent: the connection is not one that was forgotten.
                self.asker.caller.proved();
                return Some(bytes);
            }
            if !self.asker.proven.is_admin(&self.api.snapshots.current()) {
                return None;
            }
            tokio::select! {
                () = self.api.draining.cancelled() => return None,
                told = self.feed.next() => {
                    let told = told?;
                    self.waiting.extend(events(&self.api, &told));
                }
                // A right that ends with time, such as a certificate's, is looked at with each heartbeat.
                changed = decisions.changed() => changed.ok()?,
                () = tokio::time::sleep(HEARTBEAT) => self.waiting.push_back(Bytes::from_static(b": here\n\n")),
            }
        }
    }
}

fn events(api: &Api, told: &[Arc<Told>]) -> Vec<Bytes> {
    let model = api.changes.model();
    let presence = api.presence(&model);
    let mut events = Vec::with_capacity(told.len());
    for (index, one) in told.iter().enumerate() {
        let data = match &one.after {
            Some(stored) => answer::item(stored, &presence),
            None => json!({ "kind": one.kind, "name": one.name, "revision": one.revision }),
        };
        // Only the last event of a transaction has its number: who comes back never gets half of one.
        let is_last = told.get(index + 1).is_none_or(|next| next.revision != one.revision);
        let id = if is_last { format!("id: {}\n", one.revision) } else { String::new() };
        events.push(format!("event: {}\n{id}data: {data}\n\n", one.action.label()).into());
    }
    events
}
