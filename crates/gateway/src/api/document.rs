//! The description of the interface (OpenAPI 3.1), from the types that are written and read.

use adit_control::audit::AuditRecord;
use adit_control::explain::Explanation;
use adit_control::model::{Identity, NameText, Route, Service, ServiceConfig, ServicePolicy, Token};
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use super::about::{InfoAnswer, Reloaded, WhoAnswer};
use super::credentials::{Rotate, Rotated};
use super::enrolling::{Invite, Invited};
use super::problem::ErrorAnswer;
use super::routes::{Answers, Endpoint, KINDS, Of, Parameter, Takes, endpoints};
use super::shown::SessionView;
use crate::enrolling::{Certified, EnrollRequest, RenewRequest};

/// The description as a JSON value. `adit reference` writes it to `docs/reference/openapi.json`.
#[must_use]
pub fn openapi() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in endpoints() {
        let operations = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Value::Object(operations) = operations {
            let parameters = path_parameters(endpoint.path);
            if !parameters.is_empty() {
                operations.insert("parameters".to_owned(), Value::Array(parameters));
            }
            operations.insert(endpoint.verb.to_owned(), operation(&endpoint));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Adit's admin interface",
            "description": "Resources of a gateway, on its control port. A write is in force when it is answered.",
            "version": "v1",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "security": [{ "bearer": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token with `admin: true`.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "The certificate of an identity with `admin: true`.",
                },
            },
        },
    })
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = match name {
            "name" => reference("NameText"),
            _ => json!({ "type": "string", "pattern": "^[0-9a-f]{1,64}$" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    names.map(parameter).collect()
}

fn reference(component: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{component}") })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut responses = Map::new();
    responses.insert(endpoint.status.to_string(), response(endpoint.answers, "As asked."));
    if let Some(answers) = endpoint.forced {
        responses.insert("200".to_owned(), response(answers, "By force: all that was changed by it."));
    }
    if endpoint.creates {
        responses.insert("201".to_owned(), response(endpoint.answers, "It was not there, and is now."));
    }
    if endpoint.verb == "get" && matches!(endpoint.answers, Answers::Tagged(_)) {
        responses.insert("304".to_owned(), json!({ "description": "As `If-None-Match` knows it." }));
    }
    let no = json!({
        "description": "A no: what is wrong, whose move it is, and what to do.",
        "content": { "application/json": { "schema": reference("ErrorAnswer") } },
    });
    responses.insert("default".to_owned(), no);
    let mut operation = json!({
        "operationId": endpoint.id,
        "tags": [endpoint.tag],
        "summary": endpoint.says,
        "responses": responses,
    });
    if let Value::Object(fields) = &mut operation {
        if !endpoint.parameters.is_empty() {
            let parameters = endpoint.parameters.iter().map(parameter).collect();
            fields.insert("parameters".to_owned(), Value::Array(parameters));
        }
        if endpoint.is_open {
            fields.insert("security".to_owned(), json!([]));
        }
        let body = match endpoint.takes {
            Takes::Nothing => None,
            Takes::Document(component) => Some((component, true)),
            Takes::Optional(component) => Some((component, false)),
        };
        if let Some((component, required)) = body {
            let content = json!({ "application/json": { "schema": reference(component) } });
            fields.insert("requestBody".to_owned(), json!({ "required": required, "content": content }));
        }
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.of {
        Of::Name => reference("NameText"),
        Of::Text => json!({ "type": "string" }),
        Of::Switch => json!({ "type": "boolean" }),
        Of::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Of::Words(words) => json!({ "type": "string", "enum": words }),
        Of::Pattern(pattern) => json!({ "type": "string", "pattern": pattern }),
    };
    json!({
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.is_needed,
        "description": parameter.says,
        "schema": schema,
    })
}

fn response(answers: Answers, says: &str) -> Value {
    let json = |component: &str| json!({ "application/json": { "schema": reference(component) } });
    let etag = json!({
        "ETag": { "description": "The revision, for `If-Match`.", "schema": { "type": "string" } },
    });
    match answers {
        Answers::Json(component) => json!({ "description": says, "content": json(component) }),
        Answers::Tagged(component) => {
            json!({ "description": says, "headers": etag, "content": json(component) })
        }
        Answers::Media(media) => json!({ "description": says, "content": { media: {} } }),
        Answers::Lines(component) => {
            let mut content = json(component);
            if let Value::Object(content) = &mut content {
                content.insert("application/x-ndjson".to_owned(), json!({}));
            }
            json!({ "description": says, "content": content })
        }
        Answers::Nothing => json!({ "description": says }),
    }
}

fn schemas() -> Value {
    let mut all = Map::new();
    add::<Identity>(&mut all);
    add::<ServiceConfig>(&mut all);
    add::<Service>(&mut all);
    add::<ServicePolicy>(&mut all);
    add::<Route>(&mut all);
    add::<Token>(&mut all);
    add::<NameText>(&mut all);
    add::<AuditRecord>(&mut all);
    add::<ErrorAnswer>(&mut all);
    add::<InfoAnswer>(&mut all);
    add::<WhoAnswer>(&mut all);
    add::<Rotate>(&mut all);
    add::<Rotated>(&mut all);
    add::<Reloaded>(&mut all);
    add::<Invite>(&mut all);
    add::<Invited>(&mut all);
    add::<EnrollRequest>(&mut all);
    add::<RenewRequest>(&mut all);
    add::<Certified>(&mut all);
    add::<Explanation>(&mut all);
    add::<SessionView>(&mut all);
    for words in KINDS {
        let Some(document) = all.get(words.document).cloned() else { continue };
        let item = item(&document, words.kind.singular());
        let page = json!({
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": { "type": "array", "items": reference(words.item) },
                "next": {
                    "description": "What to ask for items after; null on the last page.",
                    "type": ["string", "null"],
                },
            },
        });
        if words.created != words.item {
            let mut created = item.clone();
            extend(
                &mut created,
                "token",
                json!({ "type": "string", "description": "The secret. It is told this once." }),
            );
            all.insert(words.created.to_owned(), created);
        }
        all.insert(words.item.to_owned(), item);
        all.insert(words.page.to_owned(), page);
        all.insert(words.document.to_owned(), written(document, words.kind.singular()));
    }
    let any: Vec<Value> =
        KINDS.iter().map(|words| whole(&all, words.document, words.kind.singular())).collect();
    all.insert("AnyResource".to_owned(), json!({ "oneOf": any }));
    all.extend(by_hand());
    let mut all = Value::Object(all);
    without_null(&mut all);
    if let Some(Value::Object(pages)) = all.get_mut("AuditPage") {
        pages.insert("properties".to_owned(), audit_page());
    }
    for words in KINDS {
        if let Some(next) = all.pointer_mut(&format!("/{}/properties/next/type", words.page)) {
            *next = json!(["string", "null"]);
        }
    }
    all
}

fn audit_page() -> Value {
    json!({
        "items": { "type": "array", "items": reference("AuditRecord") },
        "next": { "type": ["integer", "null"], "description": "What to ask for records after; null on the last page." },
        "dropped": { "type": "integer", "minimum": 0, "description": "How many records went for newer ones." },
    })
}

/// What has no type of its own.
fn by_hand() -> Map<String, Value> {
    let revision = json!({ "type": "integer", "minimum": 0 });
    let hand = json!({
        "Anything": { "type": "object" },
        "AuditPage": { "type": "object", "required": ["items", "next", "dropped"] },
        "Revoked": {
            "type": "object",
            "required": ["revoked", "serials", "remaining"],
            "properties": {
                "revoked": { "type": "integer", "minimum": 0, "description": "How many." },
                "serials": { "type": "array", "items": { "type": "string" }, "description": "Which." },
                "remaining": {
                    "type": "array",
                    "items": { "type": "string" },
                    "description": "Those of the identity that are good as before.",
                },
            },
        },
        "Apply": {
            "type": "object",
            "description": "Resources as they shall be, and those that shall not.",
            "additionalProperties": false,
            "properties": {
                "resources": { "type": "array", "items": reference("AnyResource") },
                "delete": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["kind", "name"],
                        "additionalProperties": false,
                        "properties": {
                            "kind": { "type": "string", "enum": super::routes::KIND_WORDS },
                            "name": reference("NameText"),
                        },
                    },
                },
                "ignore_missing": {
                    "type": "boolean",
                    "description": "It is well if what shall be deleted is not there.",
                },
                "prune": {
                    "type": "boolean",
                    "description": "Deletes what is not named, except whoever asks; `resources` must be there.",
                },
                "dry_run": { "type": "boolean", "description": "Only says what would change." },
                "force": { "type": "boolean", "description": "Takes what is deleted out of policies that name it." },
            },
        },
        "Applied": {
            "type": "object",
            "required": ["changes", "revision"],
            "properties": {
                "revision": revision,
                "remarks": remarks(),
                "changes": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["action", "kind", "name"],
                        "properties": {
                            "action": { "type": "string", "enum": ["create", "update", "delete", "none"] },
                            "kind": { "type": "string" },
                            "name": reference("NameText"),
                            "before": reference("AnyResource"),
                            "after": reference("AnyResource"),
                        },
                    },
                },
            },
        },
        "Exported": {
            "type": "object",
            "required": ["resources", "revision"],
            "properties": {
                "resources": { "type": "array", "items": reference("AnyResource") },
                "revision": revision,
            },
        },
    });
    if let Value::Object(hand) = hand { hand } else { Map::new() }
}

/// A type with those that it is made of.
fn add<T: ToSchema>(all: &mut Map<String, Value>) {
    let mut parts: Vec<(String, RefOr<Schema>)> =
        vec![(T::name().into_owned(), <T as PartialSchema>::schema())];
    T::schemas(&mut parts);
    for (name, schema) in parts {
        all.insert(name, serde_json::to_value(schema).unwrap_or_default());
    }
}

fn extend(schema: &mut Value, field: &str, of: Value) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert(field.to_owned(), of);
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.push(json!(field));
    }
}

/// A resource as it is shown.
fn item(document: &Value, kind: &str) -> Value {
    let mut item = document.clone();
    let time = json!({ "type": "string", "format": "date-time" });
    let says = "Those that it was renewed from, the first one first, as far as they were still good then.";
    let before = json!({ "type": "array", "items": { "type": "string" }, "description": says });
    let certificate = json!({
        "type": "object",
        "required": ["serial", "issued_at", "not_after"],
        "properties": {
            "serial": { "type": "string" }, "issued_at": time, "not_after": time, "renewed_from": before,
        },
    });
    extend(&mut item, "kind", json!({ "type": "string", "enum": [kind] }));
    extend(&mut item, "id", json!({ "type": "string" }));
    extend(&mut item, "revision", json!({ "type": "integer", "minimum": 0 }));
    extend(&mut item, "created_at", time.clone());
    extend(&mut item, "updated_at", time.clone());
    if matches!(kind, "identity" | "token") {
        let says = "Whether it has a session now.";
        extend(&mut item, "online", json!({ "type": "boolean", "description": says }));
    }
    let alone: &[(&str, &str, &str)] = match kind {
        "identity" | "token" => &[("sessions", "SessionView", "Its sessions now.")],
        "service" => &[
            ("dial_policies", "PolicyView", "Policies that let somebody reach it."),
            ("bind_policies", "PolicyView", "Policies that let somebody offer it."),
            ("endpoints", "EndpointView", "Who offers it now."),
        ],
        _ => &[],
    };
    if let Some(Value::Object(properties)) = item.get_mut("properties") {
        for &(field, of, says) in alone {
            let says = format!("{says} Not in lists.");
            let list = json!({ "type": "array", "items": reference(of), "description": says });
            properties.insert(field.to_owned(), list);
        }
    }
    if kind == "identity" {
        let says = "Whether it has a certificate that is good.";
        extend(&mut item, "enrolled", json!({ "type": "boolean", "description": says }));
        extend(&mut item, "credentials", json!({ "type": "array", "items": certificate }));
    }
    if kind == "token" {
        let secret = json!({
            "type": "object",
            "description": "Since when it is taken, and until when if that has an end; never the secret itself.",
            "required": ["issued_at"],
            "properties": { "issued_at": time, "not_after": time },
        });
        let says = "Its secrets: none when they are revoked, two while it is rotated.";
        extend(&mut item, "secrets", json!({ "type": "array", "items": secret, "description": says }));
    }
    if let (Some(Value::Object(properties)), "route") = (item.get_mut("properties"), kind) {
        properties.insert("remarks".to_owned(), remarks());
    }
    item
}

/// What of resources comes to nothing, if anything does.
fn remarks() -> Value {
    let says = "What of it comes to nothing at this gateway, for people.";
    json!({ "type": "array", "items": { "type": "string" }, "description": says })
}

/// A resource as it is written: its kind may be said, and what items have beside it is ignored.
fn written(mut document: Value, kind: &str) -> Value {
    if let Some(Value::Object(properties)) = document.get_mut("properties") {
        properties.insert("kind".to_owned(), json!({ "type": "string", "enum": [kind] }));
        for field in adit_control::model::READ_ONLY {
            let says = "Ignored, so that what was read can be written back.";
            properties.insert(field.to_owned(), json!({ "description": says }));
        }
    }
    document
}

/// The same where the kind must be said.
fn whole(all: &Map<String, Value>, document: &str, kind: &str) -> Value {
    let mut whole = all.get(document).cloned().unwrap_or_default();
    extend(&mut whole, "kind", json!({ "type": "string", "enum": [kind] }));
    whole
}

/// What may be left out is left out, never null: in no answer, and nobody need send it.
fn without_null(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for word in ["oneOf", "anyOf"] {
                if let Some(Value::Array(choices)) = fields.get_mut(word) {
                    choices.retain(|choice| choice.get("type") != Some(&json!("null")));
                }
            }
            if let Some(only) = fields.get("oneOf").and_then(Value::as_array).filter(|it| it.len() == 1) {
                let only = only.first().cloned();
                fields.remove("oneOf");
                if let Some(Value::Object(only)) = only {
                    fields.extend(only);
                }
            }
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|word| *word != json!("null"));
                if let [only] = &types[..] {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(elements) => elements.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use adit_control::model::Resource;

    use super::*;

    #[test]
    fn every_component_that_is_referred_to_is_described() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    for (key, value) in fields {
                        match (key.as_str(), value) {
                            ("$ref", Value::String(to)) => found.push(to.clone()),
                            (_, value) => references(value, found),
                        }
                    }
                }
                Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
                _ => {}
            }
        }
        let document = openapi();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for to in found {
            assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
        }
        let identity = &document["components"]["schemas"]["Identity"];
        assert_eq!(identity["additionalProperties"], json!(false));
        assert_eq!(identity["required"], json!(["name"]));
    }

    #[test]
    fn documents_and_their_description_agree() {
        let document = json!({ "kind": "identity", "name": "a" });
        assert!(serde_json::from_value::<Resource>(document).is_ok());
    }
}
