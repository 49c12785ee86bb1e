//! The gateway's interface for resources, as commands use it: typed questions, and refusals told in our usual form.

use adit_control::model::{Kind, READ_ONLY, Resource};
use adit_proto::name::Name;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::control_client::{Answer, Client, Question};
use crate::error::CliError;
use crate::output::printable;

/// How many items are asked for at a time.
const PAGE: usize = 500;

/// One gateway's interface.
#[derive(Debug)]
pub(crate) struct Interface {
    client: Client,
}

/// A resource with what the gateway adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item(pub(crate) Map<String, Value>);

/// Who the gateway takes the caller for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Whoami {
    /// `identity:alice`, `token:ops`.
    pub(crate) name: String,
    /// Whether it may change resources.
    #[serde(default)]
    pub(crate) admin: bool,
}

/// A token that lets an identity enroll once.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Invitation {
    /// The token.
    pub(crate) jwt: String,
    /// Until when it can be used: seconds since 1970, or RFC 3339.
    #[serde(default)]
    pub(crate) expires_at: Value,
}

/// A token's new secret.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Rotated {
    /// The new secret.
    pub(crate) token: String,
    /// Until when the old one is taken.
    #[serde(default)]
    pub(crate) old_until: Value,
}

/// What an apply did, or would do.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Applied {
    /// Each resource that was looked at.
    pub(crate) changes: Vec<Change>,
    /// The revision that holds it all.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) revision: Value,
    /// What of it comes to nothing at this gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remarks: Vec<String>,
}

/// What happens to one resource.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Change {
    /// What.
    pub(crate) action: Action,
    /// Of which kind.
    pub(crate) kind: Kind,
    /// Its name.
    pub(crate) name: String,
    /// As it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Map<String, Value>>,
    /// As it will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Map<String, Value>>,
}

/// What can happen to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It is new.
    Create,
    /// It differs.
    Update,
    /// It goes.
    Delete,
    /// It stays as it is.
    None,
}

/// Which certificates were revoked.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Revoked {
    /// These.
    #[serde(default)]
    pub(crate) serials: Vec<String>,
    /// Those of the identity that are good as before.
    #[serde(default)]
    pub(crate) remaining: Vec<String>,
}

/// What is deleted, all of it or nothing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Deletion {
    /// What.
    pub(crate) delete: Vec<Doomed>,
    /// Whether it is taken out of the policies that name it.
    pub(crate) force: bool,
    /// Whether it is well if some of it is not there.
    pub(crate) ignore_missing: bool,
}

/// A resource that is to go.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Doomed {
    /// Of which kind.
    pub(crate) kind: Kind,
    /// Its name.
    pub(crate) name: Name,
}

/// What is applied.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Batch {
    /// The resources as they should be.
    pub(crate) resources: Vec<Resource>,
    /// Whether all others go.
    pub(crate) prune: bool,
    /// Whether nothing is to change yet.
    pub(crate) dry_run: bool,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Map<String, Value>>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Exported {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Refused {
    error: Refusal,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
    #[serde(default)]
    fault: String,
    #[serde(default)]
    next: String,
}

impl Item {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.text("name")
    }

    /// A field that is text; empty when it is not there.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field that is yes or no.
    pub(crate) fn is(&self, field: &str) -> bool {
        self.0.get(field).and_then(Value::as_bool).unwrap_or_default()
    }

    /// A field that is a list; empty when it is not there.
    pub(crate) fn list(&self, field: &str) -> &[Value] {
        self.0.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// The revision, for a change that must not overwrite another.
    pub(crate) fn revision(&self) -> Option<String> {
        match self.0.get("revision")? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// The resource alone.
    ///
    /// # Errors
    /// It has a form that this release does not know.
    pub(crate) fn resource(&self) -> Result<Resource, CliError> {
        let mut fields = self.0.clone();
        for field in READ_ONLY {
            fields.remove(field);
        }
        serde_json::from_value(Value::Object(fields)).map_err(|cause| garbled(&cause))
    }
}

fn garbled(cause: &serde_json::Error) -> CliError {
    CliError::failure("the gateway answered something that this release does not understand")
        .caused_by(cause)
        .next("compare `adit version` on both sides")
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, CliError> {
    serde_json::from_slice(&answer.body).map_err(|cause| garbled(&cause))
}

fn body(value: &impl Serialize) -> Result<Option<Bytes>, CliError> {
    let text = serde_json::to_vec(value)
        .map_err(|cause| CliError::failure("cannot make the request").caused_by(&cause))?;
    Ok(Some(text.into()))
}

/// A query, encoded (RFC 3986: everything but unreserved characters).
pub(crate) fn query(parts: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    for (name, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _infallible = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

impl Interface {
    /// The interface behind a client.
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Which gateway it is.
    pub(crate) fn gateway(&self) -> String {
        self.client.target().url.to_string()
    }

    /// Asks, and turns every refusal into an error.
    ///
    /// # Errors
    /// As [`Client::ask`], and whatever the gateway refuses.
    pub(crate) async fn call(&mut self, question: Question) -> Result<Answer, CliError> {
        let answer = self.client.ask(question).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.told(&answer)) }
    }

    /// Asks, and hands what arrives on for as long as it is wanted.
    ///
    /// # Errors
    /// As [`Client::follow`], and whatever the gateway refuses.
    pub(crate) async fn follow(
        &mut self,
        question: Question,
        take: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), CliError> {
        let answer = self.client.follow(question, take).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.told(&answer)) }
    }

    fn told(&self, answer: &Answer) -> CliError {
        let url = &self.client.target().url;
        if let Ok(Refused { error }) = serde_json::from_slice(&answer.body) {
            let Refusal { code, message, fault, next } = error;
            let mut told = CliError::failure(printable(&message));
            // Whose fault it is goes without saying where it is that of who typed the command.
            if fault != "client" {
                let whose = if fault.is_empty() { code } else { format!("{code}, fault: {fault}") };
                told = told.because(printable(&whose));
            }
            return if next.is_empty() { told } else { told.next(printable(&in_commands(&next))) };
        }
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                CliError::failure(format!("{url} has no interface for resources"))
                    .because(format!("it answered {}", answer.status))
                    .next("check that the URL names a control port, and compare `adit version` on both sides")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                CliError::failure(format!("{url} does not let this caller in"))
                    .because(format!("it answered {}", answer.status))
                    .next("use a token or an identity with the admin right")
            }
            status => CliError::failure(format!("{url} answered {status}")),
        }
    }

    /// Asks with a body.
    ///
    /// # Errors
    /// As [`Interface::call`].
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: String,
        value: &impl Serialize,
    ) -> Result<Answer, CliError> {
        self.call(Question { body: body(value)?, ..Question::new(method, path) }).await
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// As [`Interface::call`], and when the answer is not of this form.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: String) -> Result<T, CliError> {
        read(&self.call(Question::new(Method::GET, path)).await?)
    }

    /// Who the gateway takes the caller for.
    pub(crate) async fn whoami(&mut self) -> Result<Whoami, CliError> {
        self.get("/v1/whoami".to_owned()).await
    }

    /// Every item of a kind, in the gateway's order.
    pub(crate) async fn all(&mut self, kind: Kind) -> Result<Vec<Item>, CliError> {
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let query = query(&[("limit", &PAGE.to_string()), ("after", &after)]);
            let page: Page = self.get(format!("/v1/{}{query}", kind.plural())).await?;
            items.extend(page.items.into_iter().map(Item));
            match page.next.filter(|next| *next != after) {
                Some(next) => after = next,
                None => return Ok(items),
            }
        }
    }

    /// One item.
    pub(crate) async fn item(&mut self, kind: Kind, name: &Name) -> Result<Item, CliError> {
        Ok(Item(self.get(format!("/v1/{}/{name}", kind.plural())).await?))
    }

    /// Creates a resource that must not be there yet.
    pub(crate) async fn create(&mut self, resource: &Resource) -> Result<Item, CliError> {
        let path = format!("/v1/{}", resource.kind().plural());
        Ok(Item(read(&self.send(Method::POST, path, resource).await?)?))
    }

    /// Replaces a resource that must still be of this revision.
    pub(crate) async fn replace(
        &mut self,
        resource: &Resource,
        revision: Option<String>,
    ) -> Result<Item, CliError> {
        let path = format!("/v1/{}/{}", resource.kind().plural(), resource.name());
        let question =
            Question { body: body(resource)?, if_match: revision, ..Question::new(Method::PUT, path) };
        Ok(Item(read(&self.call(question).await?)?))
    }

    /// Deletes resources in one transaction, and tells what else was changed by that.
    pub(crate) async fn delete(&mut self, deletion: &Deletion) -> Result<Applied, CliError> {
        read(&self.send(Method::POST, "/v1/apply".to_owned(), deletion).await?)
    }

    /// Makes a token with which an identity can enroll once.
    pub(crate) async fn invite(
        &mut self,
        identity: &Name,
        ttl_seconds: Option<u64>,
    ) -> Result<Invitation, CliError> {
        let path = format!("/v1/identities/{identity}/enrollments");
        let value = ttl_seconds
            .map_or_else(|| serde_json::json!({}), |seconds| serde_json::json!({ "ttl_seconds": seconds }));
        read(&self.send(Method::POST, path, &value).await?)
    }

    /// Revokes one certificate of an identity with those that were renewed from it, or all of them.
    pub(crate) async fn revoke(
        &mut self,
        identity: &Name,
        serial: Option<&str>,
    ) -> Result<Revoked, CliError> {
        let serial = serial.map(|serial| format!("/{serial}")).unwrap_or_default();
        let path = format!("/v1/identities/{identity}/credentials{serial}");
        read(&self.call(Question::new(Method::DELETE, path)).await?)
    }

    /// Revokes every secret of a token.
    pub(crate) async fn revoke_secrets(&mut self, token: &Name) -> Result<(), CliError> {
        self.call(Question::new(Method::DELETE, format!("/v1/tokens/{token}/secrets"))).await.map(drop)
    }

    /// Gives a token a new secret.
    pub(crate) async fn rotate(
        &mut self,
        token: &Name,
        window_seconds: Option<u64>,
    ) -> Result<Rotated, CliError> {
        let value = window_seconds.map_or_else(
            || serde_json::json!({}),
            |seconds| serde_json::json!({ "window_seconds": seconds }),
        );
        read(&self.send(Method::POST, format!("/v1/tokens/{token}/rotate"), &value).await?)
    }

    /// Brings the gateway to what these resources say, or tells what that would change.
    pub(crate) async fn apply(&mut self, batch: &Batch) -> Result<Applied, CliError> {
        read(&self.send(Method::POST, "/v1/apply".to_owned(), batch).await?)
    }

    /// Every resource.
    pub(crate) async fn export(&mut self) -> Result<Vec<Resource>, CliError> {
        Ok(self.get::<Exported>("/v1/export".to_owned()).await?.resources)
    }
}

/// What to do next, for somebody who types commands and sends no requests.
fn in_commands(next: &str) -> String {
    if next.contains("/v1/openapi.json") {
        return "compare `adit version` on both sides".to_owned();
    }
    let text = next.replace("replace it with PUT", "change it with `update`");
    Kind::ALL.iter().fold(text, |text, kind| {
        let path = format!("GET /v1/{}", kind.plural());
        text.replace(&format!("{path}/"), &format!("adit {kind} show "))
            .replace(&path, &format!("adit {kind} list"))
    })
}

/// A moment as the interface writes it, for people.
pub(crate) fn moment(value: &Value) -> String {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    match value {
        Value::String(text) => printable(text),
        Value::Number(number) => number
            .as_i64()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_else(|| number.to_string()),
        _ => "a time that the gateway did not tell".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_its_resource_and_what_the_gateway_adds() {
        let item = Item(
            serde_json::from_str(
                r#"{"kind":"identity","name":"a","attributes":["x"],"id":"1","revision":7,"enrolled":true,
                    "online":false,"credentials":[],"created_at":"t","updated_at":"t"}"#,
            )
            .unwrap(),
        );
        assert_eq!((item.name(), item.revision().as_deref(), item.is("enrolled")), ("a", Some("7"), true));
        let Resource::Identity(identity) = item.resource().unwrap() else { panic!("{item:?}") };
        assert_eq!(identity.attributes.len(), 1);
    }

    #[test]
    fn what_stands_in_a_query_is_encoded_and_nothing_stands_for_nothing() {
        assert_eq!(query(&[("a", "x+y:1"), ("b", ""), ("c", "d")]), "?a=x%2By%3A1&c=d");
        assert_eq!(query(&[("b", "")]), "");
    }

    #[test]
    fn what_to_do_next_is_a_command() {
        for (next, command) in [
            ("list what there is: GET /v1/service-policies", "list what there is: adit service-policy list"),
            ("see which it has: GET /v1/identities/a.b", "see which it has: adit identity show a.b"),
            (
                "choose another name, or replace it with PUT",
                "choose another name, or change it with `update`",
            ),
            ("see GET /v1/openapi.json for what it takes", "compare `adit version` on both sides"),
            ("change or delete these first", "change or delete these first"),
        ] {
            assert_eq!(in_commands(next), command);
        }
    }

    #[test]
    fn moments_are_shown_as_people_write_them() {
        assert_eq!(moment(&serde_json::json!(0)), "1970-01-01T00:00:00Z");
        assert_eq!(moment(&serde_json::json!("2026-01-01T00:00:00Z")), "2026-01-01T00:00:00Z");
    }
}
