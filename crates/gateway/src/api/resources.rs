//! The endpoints that every kind of resource has: list, create, read, replace, delete.

use adit_control::changes::{Action, Batch, Change, Changed, Stored};
use adit_control::model::{Kind, Resource, Role};
use adit_proto::name::Name;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, empty, json, tagged};
use super::asked::{At, Demands, MAX_BODY, Wanted, document, name, resource};
use super::batch::applied;
use super::problem::Problem;
use super::{Api, Asker};
use crate::grants::now;

/// Items of a page, if nothing else is asked for, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// How a list is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    filter: Option<String>,
}

/// The number of items that a page has.
///
/// # Errors
/// It is not between 1 and the most there can be.
pub(super) fn page_size(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(PAGE) {
        limit @ 1..=MAX_PAGE => Ok(limit),
        other => Err(Problem::bad_request(
            "bad_query",
            format!("limit is {other}; it is between 1 and {MAX_PAGE}"),
        )),
    }
}

pub(super) fn list(
    kind: Kind,
    State(api): State<Api>,
    Wanted(query): Wanted<ListQuery>,
) -> Result<Response<Body>, Problem> {
    let limit = page_size(query.limit)?;
    let after = query.after.as_deref().map(name).transpose()?;
    let filters = query.filter.as_deref().map(Filter::all).transpose()?.unwrap_or_default();
    let wanted = |resource: &Resource| filters.iter().all(|filter| filter.fits(resource));
    let (found, more) = api.changes.list(kind, after.as_ref(), limit, wanted);
    let model = api.changes.model();
    let presence = api.presence(&model);
    let items: Vec<Value> = found.iter().map(|stored| answer::item(stored, &presence)).collect();
    let last = found.last().filter(|_| more).map(|stored| stored.resource.name().as_str());
    Ok(json(StatusCode::OK, &json!({ "items": items, "next": last })))
}

pub(super) async fn create(
    kind: Kind,
    State(api): State<Api>,
    asker: Asker,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let resource = resource(kind, document(&headers, request.into_body(), MAX_BODY).await?)?;
    if let Resource::Token(token) = resource {
        let (stored, secret) = api.changes.create_token(&asker.actor(), token, now()).await?;
        api.counted(kind, Action::Create, 1);
        let mut item = api.item(&stored);
        if let Value::Object(fields) = &mut item {
            fields.insert("token".to_owned(), json!(secret.secret.expose()));
        }
        return Ok(created(&stored, &item));
    }
    let stored = one(&api, &asker, Change::Create(resource)).await?.1;
    let stored = stored.ok_or_else(lost)?;
    Ok(created(&stored, &api.item(&stored)))
}

fn created(stored: &Stored, item: &Value) -> Response<Body> {
    let mut response = tagged(StatusCode::CREATED, stored, item);
    let place = format!("/v1/{}/{}", stored.resource.kind().plural(), stored.resource.name());
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

pub(super) fn show(
    kind: Kind,
    State(api): State<Api>,
    At(at): At<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let stored = find(&api, kind, &name(&at)?)?;
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let tag = answer::etag(&stored);
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
        let mut response = empty(StatusCode::NOT_MODIFIED);
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        return Ok(response);
    }
    Ok(tagged(StatusCode::OK, &stored, &api.item(&stored)))
}

pub(super) async fn replace(
    kind: Kind,
    State(api): State<Api>,
    asker: Asker,
    At(at): At<String>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let at = name(&at)?;
    let demands = Demands::of(&headers)?;
    let resource = resource(kind, document(&headers, request.into_body(), MAX_BODY).await?)?;
    if *resource.name() != at {
        let message = format!("the document's name is `{}`, the path's is `{at}`", resource.name());
        let next = "a resource keeps its name; create another one and delete this one instead";
        return Err(Problem::client("name_mismatch", 422, message, next));
    }
    let change = match demands {
        Demands { absent: true, .. } => Change::Create(resource),
        Demands { present: Some(revision), .. } => Change::Update(resource, revision),
        Demands { present: None, .. } => Change::Put(resource),
    };
    let is_precondition = demands.absent || demands.present.is_some();
    let (action, stored) = one(&api, &asker, change).await.map_err(|problem| {
        // What was demanded of the state is not so: that is what 412 says, whatever the state is.
        if is_precondition { problem.into_precondition() } else { problem }
    })?;
    let stored = stored.ok_or_else(lost)?;
    let item = api.item(&stored);
    Ok(if action == Action::Create {
        created(&stored, &item)
    } else {
        tagged(StatusCode::OK, &stored, &item)
    })
}

/// How a deletion is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteQuery {
    #[serde(default)]
    force: bool,
}

pub(super) async fn delete(
    kind: Kind,
    State(api): State<Api>,
    asker: Asker,
    At(at): At<String>,
    Wanted(query): Wanted<DeleteQuery>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let demands = Demands::of(&headers)?;
    let change = Change::Delete(kind, name(&at)?, demands.present.flatten());
    let batch = Batch { changes: vec![change], force: query.force, ..Batch::default() };
    let outcome = api.apply(&asker, batch).await?;
    // By force something else may have changed as well, and whoever asked must hear of it.
    Ok(if query.force { applied(&api, &outcome) } else { empty(StatusCode::NO_CONTENT) })
}

/// Makes one change.
async fn one(api: &Api, asker: &Asker, change: Change) -> Result<(Action, Option<Stored>), Problem> {
    let batch = Batch { changes: vec![change], ..Batch::default() };
    let outcome = api.apply(asker, batch).await?;
    let first = outcome.changes.into_iter().next().ok_or_else(lost)?;
    let Changed { action, after, .. } = first;
    Ok((action, after))
}

fn lost() -> Problem {
    Problem::gateway(
        "internal",
        500,
        "the change left nothing to show",
        "report this; it is a mistake in Adit",
    )
}

/// The resource of this name.
///
/// # Errors
/// There is none.
pub(super) fn find(api: &Api, kind: Kind, name: &Name) -> Result<Stored, Problem> {
    let found = api.changes.get(kind, name);
    found.ok_or_else(|| adit_control::ChangeError::not_found(kind, name).into())
}

/// One condition of a list.
#[derive(Debug, PartialEq, Eq)]
enum Filter {
    /// `name~text`: the name holds it, without regard to case.
    Holds(String),
    /// `attribute=x`.
    Attribute(Name),
    /// `service=x`: a route or policy that names it.
    Service(Name),
    /// `identity=x`: a policy that names it.
    Identity(Name),
    /// `type=x`: of a config or a policy.
    Type(String),
    /// `admin=true`.
    Admin(bool),
    /// `metrics=true`.
    Metrics(bool),
    /// `disabled=true`.
    Disabled(bool),
}

impl Filter {
    fn all(text: &str) -> Result<Vec<Self>, Problem> {
        text.split(',').map(Self::read).collect()
    }

    fn read(text: &str) -> Result<Self, Problem> {
        let bad = || {
            let what = format!(
                "`{text}` is no filter; there are name~TEXT, attribute=NAME, service=NAME, identity=NAME, type=TYPE, \
                 admin=true|false, metrics=true|false and disabled=true|false, with commas between them"
            );
            Problem::bad_request("bad_query", what)
        };
        if let Some(part) = text.strip_prefix("name~") {
            return Ok(Self::Holds(part.to_ascii_lowercase()));
        }
        let (field, value) = text.split_once('=').ok_or_else(bad)?;
        match field {
            "attribute" => name(value).map(Self::Attribute),
            "service" => name(value).map(Self::Service),
            "identity" => name(value).map(Self::Identity),
            "type" => Ok(Self::Type(value.to_ascii_lowercase())),
            "admin" => value.parse().map(Self::Admin).map_err(|_not_a_bool| bad()),
            "metrics" => value.parse().map(Self::Metrics).map_err(|_not_a_bool| bad()),
            "disabled" => value.parse().map(Self::Disabled).map_err(|_not_a_bool| bad()),
            _ => Err(bad()),
        }
    }

    fn fits(&self, resource: &Resource) -> bool {
        let named = |roles: &[Role], name: &Name| roles.contains(&Role::Entity(name.clone()));
        match (self, resource) {
            (Self::Holds(text), it) => it.name().folded().contains(text),
            (Self::Attribute(name), Resource::Identity(it)) => it.attributes.contains(name),
            (Self::Attribute(name), Resource::Token(it)) => it.attributes.contains(name),
            (Self::Attribute(name), Resource::Service(it)) => it.attributes.contains(name),
            (Self::Service(name), Resource::Route(it)) => it.service == *name,
            (Self::Service(name), Resource::ServicePolicy(it)) => named(&it.service_roles, name),
            (Self::Identity(name), Resource::ServicePolicy(it)) => named(&it.identity_roles, name),
            (Self::Type(text), Resource::Config(it)) => it.config_type.to_string() == *text,
            (Self::Type(text), Resource::ServicePolicy(it)) => it.verb.to_string().eq_ignore_ascii_case(text),
            (Self::Admin(admin), Resource::Identity(it)) => it.admin == *admin,
            (Self::Admin(admin), Resource::Token(it)) => it.admin == *admin,
            (Self::Metrics(metrics), Resource::Identity(it)) => it.metrics == *metrics,
            (Self::Metrics(metrics), Resource::Token(it)) => it.metrics == *metrics,
            (Self::Disabled(disabled), Resource::Identity(it)) => it.disabled == *disabled,
            (Self::Disabled(disabled), Resource::Token(it)) => it.disabled == *disabled,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_say_what_a_list_holds() {
        let resource = |value: Value| serde_json::from_value::<Resource>(value).unwrap();
        let alice = resource(json!({ "kind": "identity", "name": "Dev.Alice", "attributes": ["ops"] }));
        let policy = resource(json!({
            "kind": "service-policy", "name": "p", "type": "Dial",
            "service_roles": ["@web"], "identity_roles": ["@dev.alice"],
        }));
        let fits = |text: &str, resource: &Resource| {
            Filter::all(text).unwrap().iter().all(|filter| filter.fits(resource))
        };
        assert!(fits("name~ALI", &alice) && fits("attribute=OPS,disabled=false", &alice));
        assert!(!fits("attribute=dev", &alice) && !fits("admin=true", &alice) && !fits("type=dial", &alice));
        assert!(fits("service=WEB,identity=Dev.alice,type=dial", &policy) && !fits("type=bind", &policy));
        for bad in ["", "name", "colour=red", "admin=maybe", "attribute=a b"] {
            assert!(Filter::all(bad).is_err(), "{bad}");
        }
    }
}
