//! Nodes of a file into resources; mistakes are collected with their places.

use std::fmt::Display;
use std::str::FromStr;

use adit_control::expectation::{Expectation, Verdict};
use adit_control::model::{
    Identity, Kind, Limits, READ_ONLY, Resource, Route, Service, ServiceConfig, ServicePolicy, Token, Verb,
};
use serde_json::Value as Json;

use super::{Documents, Placed};
use crate::config::problem::{Position, Problem, nearest};
use crate::config::tree::{Entry, Node, Value};

/// One file being read.
pub(super) struct Reading<'a> {
    pub(super) file: &'a str,
    pub(super) problems: &'a mut Vec<Problem>,
    pub(super) documents: &'a mut Documents,
}

/// The fields of one resource.
struct Fields<'n> {
    /// What it is, for messages.
    what: String,
    at: Position,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }
}

const fn fields_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Identity => &["kind", "name", "attributes", "admin", "metrics", "disabled"],
        Kind::Token => &["kind", "name", "attributes", "limits", "admin", "metrics", "disabled"],
        Kind::Config => &["kind", "name", "type", "data"],
        Kind::Service => &["kind", "name", "attributes", "configs"],
        Kind::ServicePolicy => &["kind", "name", "type", "semantic", "service_roles", "identity_roles"],
        Kind::Route => &["kind", "name", "hosts", "ports", "service"],
    }
}

impl Reading<'_> {
    /// Notes a problem.
    pub(super) fn problem(&mut self, at: Position, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem { file: self.file.to_owned(), at, what: what.into(), hint: hint.into() });
    }

    /// Reads one document.
    pub(super) fn document(&mut self, node: &Node) {
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| self.document(item)),
            Value::Map(entries) => {
                let has = |key: &str| entries.iter().any(|entry| entry.key == key);
                if has("resources") || has("tests") {
                    self.several(entries);
                } else {
                    self.resource(node.at, entries);
                }
            }
            Value::Scalar(_) | Value::Nothing => {
                self.problem(node.at, "this is no resource", "write `kind:` and the fields of the resource");
            }
        }
    }

    /// `resources:` and `tests:` with lists.
    fn several(&mut self, entries: &[Entry]) {
        for Entry { key, at, node } in entries {
            match (key.as_str(), &node.value) {
                ("resources", Value::List(items)) => items.iter().for_each(|item| self.document(item)),
                ("tests", Value::List(items)) => items.iter().for_each(|item| self.test(item)),
                ("resources" | "tests", Value::Nothing) => {}
                ("resources" | "tests", _) => {
                    self.problem(node.at, format!("{key} is not a list"), "put `- ` in front of each item");
                }
                ("kind", Value::Scalar(kind)) if kind == "tests" || kind == "resources" => {}
                _ => self.problem(
                    *at,
                    format!("{key} is not a key here"),
                    "beside `tests:` and `resources:` stands nothing else; begin a new document with `---`",
                ),
            }
        }
    }

    fn resource(&mut self, at: Position, entries: &[Entry]) {
        let mut fields = Fields { what: "the resource".to_owned(), at, entries };
        let Some(kind) =
            self.word::<Kind>(&fields, "kind", "identity, token, config, service, service-policy or route")
        else {
            return;
        };
        let name = fields.get("name").and_then(|node| match &node.value {
            Value::Scalar(name) => Some(name.as_str()),
            _ => None,
        });
        fields.what = name.map_or_else(|| kind.to_string(), |name| format!("{kind} {name}"));
        let before = self.problems.len();
        self.known(&fields, fields_of(kind));
        let Some(resource) = self.of_kind(kind, &fields) else { return };
        if self.problems.len() > before {
            return;
        }
        if let Err(why) = resource.check() {
            let place = fields.get("data").map_or(at, |data| data.at);
            self.problem(place, format!("{}: {why}", fields.what), "correct it");
            return;
        }
        self.documents.resources.push(Placed { file: self.file.to_owned(), at, it: resource });
    }

    /// Refuses keys that nothing reads.
    fn known(&mut self, fields: &Fields<'_>, names: &[&'static str]) {
        for entry in fields.entries.iter().filter(|entry| !names.contains(&entry.key.as_str())) {
            let hint = if READ_ONLY.contains(&entry.key.as_str()) {
                "only the gateway writes it; `adit export` leaves it out".to_owned()
            } else {
                nearest(&entry.key, names.iter().copied()).map_or_else(
                    || format!("the keys here are {}", names.join(", ")),
                    |name| format!("did you mean {name}?"),
                )
            };
            self.problem(entry.at, format!("{}: {} is not a key", fields.what, entry.key), hint);
        }
    }

    fn of_kind(&mut self, kind: Kind, fields: &Fields<'_>) -> Option<Resource> {
        // Every field is read before any that is missing ends it, so that all problems are found.
        let name = self.word(fields, "name", "its name");
        Some(match kind {
            Kind::Identity => {
                let attributes = self.list(fields, "attributes");
                let (admin, disabled) = (self.switch(fields, "admin"), self.switch(fields, "disabled"));
                let metrics = self.switch(fields, "metrics");
                Resource::Identity(Identity { name: name?, attributes, admin, metrics, disabled })
            }
            Kind::Token => {
                let (attributes, limits) = (self.list(fields, "attributes"), self.limits(fields));
                let (admin, disabled) = (self.switch(fields, "admin"), self.switch(fields, "disabled"));
                let metrics = self.switch(fields, "metrics");
                Resource::Token(Token { name: name?, attributes, limits, admin, metrics, disabled })
            }
            Kind::Config => {
                let config_type = self.word(fields, "type", "host.v1 or intercept.v1");
                let data = fields.get("data").map(json);
                if data.is_none() {
                    self.missing(fields, "data", "the settings");
                }
                Resource::Config(ServiceConfig { name: name?, config_type: config_type?, data: data? })
            }
            Kind::Service => {
                let (attributes, configs) = (self.list(fields, "attributes"), self.list(fields, "configs"));
                Resource::Service(Service { name: name?, attributes, configs })
            }
            Kind::ServicePolicy => {
                let verb = self.word(fields, "type", "Dial or Bind");
                let semantic = match fields.get("semantic") {
                    Some(_) => self.word(fields, "semantic", "AnyOf or AllOf")?,
                    None => Default::default(),
                };
                let service_roles = self.list(fields, "service_roles");
                let identity_roles = self.list(fields, "identity_roles");
                let (name, verb) = (name?, verb?);
                Resource::ServicePolicy(ServicePolicy { name, verb, semantic, service_roles, identity_roles })
            }
            Kind::Route => {
                let (hosts, ports) = (self.list(fields, "hosts"), self.list(fields, "ports"));
                let service = self.word(fields, "service", "the service it leads to");
                Resource::Route(Route { name: name?, hosts, ports, service: service? })
            }
        })
    }

    fn missing(&mut self, fields: &Fields<'_>, key: &str, form: &str) {
        let what = format!("{}: {key} is missing", fields.what);
        self.problem(fields.at, what, format!("add `{key}:` with {form}"));
    }

    /// A value that must be there.
    fn word<T: FromStr<Err: Display>>(&mut self, fields: &Fields<'_>, key: &str, form: &str) -> Option<T> {
        match fields.get(key) {
            Some(node) => self.scalar(fields, key, node, form),
            None => {
                self.missing(fields, key, form);
                None
            }
        }
    }

    fn scalar<T: FromStr<Err: Display>>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        node: &Node,
        form: &str,
    ) -> Option<T> {
        let Value::Scalar(text) = &node.value else {
            self.problem(node.at, format!("{}: {key} is not text", fields.what), format!("write {form}"));
            return None;
        };
        let read = text.parse();
        read.map_err(|why| {
            self.problem(node.at, format!("{}: {key} `{text}`: {why}", fields.what), format!("write {form}"));
        })
        .ok()
    }

    /// A list that may be absent.
    fn list<T: FromStr<Err: Display>>(&mut self, fields: &Fields<'_>, key: &str) -> Vec<T> {
        match fields.get(key) {
            None => Vec::new(),
            Some(node) => match &node.value {
                Value::List(items) => {
                    items.iter().filter_map(|item| self.scalar(fields, key, item, "one word")).collect()
                }
                Value::Nothing => Vec::new(),
                Value::Map(_) | Value::Scalar(_) => {
                    let what = format!("{}: {key} is not a list", fields.what);
                    self.problem(node.at, what, format!("write `{key}: [first, second]`"));
                    Vec::new()
                }
            },
        }
    }

    fn switch(&mut self, fields: &Fields<'_>, key: &str) -> bool {
        fields.get(key).and_then(|node| self.scalar(fields, key, node, "true or false")).unwrap_or_default()
    }

    fn limits(&mut self, fields: &Fields<'_>) -> Limits {
        let Some(node) = fields.get("limits") else { return Limits::default() };
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing => return Limits::default(),
            Value::List(_) | Value::Scalar(_) => {
                let what = format!("{}: limits is not a map", fields.what);
                self.problem(node.at, what, "its keys are hosts, ports, services");
                return Limits::default();
            }
        };
        let limits = Fields { what: format!("{}: limits", fields.what), at: node.at, entries };
        self.known(&limits, &["hosts", "ports", "services"]);
        Limits {
            hosts: limits.get("hosts").map(|_| self.list(&limits, "hosts")),
            ports: limits.get("ports").map(|_| self.list(&limits, "ports")),
            services: limits.get("services").map(|_| self.list(&limits, "services")),
        }
    }

    fn test(&mut self, node: &Node) {
        let Value::Map(entries) = &node.value else {
            self.problem(node.at, "this is no test", "write identity, service, verb and expect");
            return;
        };
        let fields = Fields { what: "the test".to_owned(), at: node.at, entries };
        let before = self.problems.len();
        self.known(&fields, &["name", "identity", "service", "verb", "expect"]);
        let name = fields.get("name").and_then(|node| self.scalar(&fields, "name", node, "some text"));
        let identity = self.word(&fields, "identity", "the name of an identity");
        let service = self.word(&fields, "service", "the name of a service");
        let verb = match fields.get("verb") {
            Some(_) => self.word(&fields, "verb", "dial or bind"),
            None => Some(Verb::Dial),
        };
        let expect = self.word::<Verdict>(&fields, "expect", "allowed or denied");
        if let (Some(identity), Some(service), Some(verb), Some(expect)) = (identity, service, verb, expect)
            && self.problems.len() == before
        {
            let it = Expectation { name, identity, service, verb, expect };
            self.documents.tests.push(Placed { file: self.file.to_owned(), at: node.at, it });
        }
    }
}

/// A node as JSON; plain words are typed as YAML's core schema says (YAML 1.2.2 §10.3).
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Nothing => Json::Null,
        Value::Scalar(text) if node.is_plain => plain(text),
        Value::Scalar(text) => Json::String(text.clone()),
    }
}

fn plain(text: &str) -> Json {
    match text {
        "true" | "True" | "TRUE" => Json::Bool(true),
        "false" | "False" | "FALSE" => Json::Bool(false),
        _ => {
            let is_number = text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit());
            let number = is_number.then(|| serde_json::from_str::<serde_json::Number>(text).ok()).flatten();
            number.map_or_else(|| Json::String(text.to_owned()), Json::Number)
        }
    }
}
