//! Decisions, explanations and the rules read aloud agree, whatever is written.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::reference::Reference;
use super::*;
use crate::explain::{Question, explain};
use crate::model::{Model, Resource, SecretText, Token};
use crate::snapshot::{Local, LocalToken, Rules};

/// Few names, written in several ways, so that they meet.
const NAMES: [&str; 6] = ["ann", "Ann.", "bob", "BOB", "public", "cy"];
const SERVICES: [&str; 5] = ["web", "Web.", "db", "DB", "log"];
const ATTRIBUTES: [&str; 4] = ["x", "X.", "y", "z"];
const HOSTS: [&str; 7] =
    ["a.example", "A.Example", "*.example", "*", "*.a.example", "b.a.example", "example"];
const OFFERS: [&str; 15] = [
    "@web",
    "@WEB.",
    "@db",
    "@log",
    "@nowhere",
    "a.example",
    "*.example",
    "*",
    "*.a.example",
    "b.a.example",
    "example",
    "tcp:1",
    "tcp:2",
    "tcp:3",
    "tcp:9",
];

/// Hosts that clients ask for.
const ASKED: [&str; 6] = ["a.example", "B.A.Example.", "c.b.a.example", "example", "x.example", "elsewhere"];

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(of, 0..=2)
}

fn roles(entities: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let role = prop_oneof![
        1 => Just("#all".to_owned()),
        4 => select(&ATTRIBUTES[..]).prop_map(|name| format!("#{name}")),
        3 => select(entities).prop_map(|name| format!("@{name}")),
    ];
    // None, too: the interface refuses that, but a snapshot takes any model.
    prop::collection::vec(role, 0..5)
}

fn limits() -> impl Strategy<Value = Value> {
    let written = (
        prop::option::of(some(&HOSTS)),
        prop::option::of(subsequence(&["1", "2-3", "9"][..], 0..=2)),
        prop::option::of(some(&SERVICES)),
    );
    written.prop_map(|(hosts, ports, services)| {
        let mut limits = serde_json::Map::new();
        for (field, list) in [("hosts", hosts), ("ports", ports), ("services", services)] {
            if let Some(list) = list {
                drop(limits.insert(field.to_owned(), json!(list)));
            }
        }
        Value::Object(limits)
    })
}

fn token() -> impl Strategy<Value = Value> {
    (select(&NAMES[..]), some(&ATTRIBUTES), limits(), prop::bool::weighted(0.2)).prop_map(
        |(name, attributes, limits, disabled)| {
            json!({"name": name, "attributes": attributes, "limits": limits, "disabled": disabled})
        },
    )
}

pub(crate) fn resource() -> impl Strategy<Value = Value> {
    let of = |kind: &'static str| {
        move |mut value: Value| {
            value["kind"] = json!(kind);
            value
        }
    };
    let identity = (select(&NAMES[..]), some(&ATTRIBUTES), prop::bool::weighted(0.2)).prop_map(
        |(name, attributes, disabled)| json!({"name": name, "attributes": attributes, "disabled": disabled}),
    );
    let service = (select(&SERVICES[..]), some(&ATTRIBUTES))
        .prop_map(|(name, attributes)| json!({"name": name, "attributes": attributes}));
    const NAMED: [&str; 13] = ["p", "P", "q", "r", "s", "t", "u", "v", "w", "p1", "p2", "p3", "p4."];
    let words = (select(&NAMED[..]), select(&["Dial", "Bind"][..]), select(&["AnyOf", "AllOf"][..]));
    let policy = (words, roles(&SERVICES), roles(&NAMES)).prop_map(
        |((name, verb, semantic), service_roles, identity_roles)| {
            json!({"name": name, "type": verb, "semantic": semantic,
                "service_roles": service_roles, "identity_roles": identity_roles})
        },
    );
    let route = (select(&NAMED[..]), some(&HOSTS), subsequence(&[1, 2, 3][..], 0..=2), select(&SERVICES[..]))
        .prop_map(|(name, hosts, ports, service)| {
            json!({"name": name, "hosts": hosts, "ports": ports, "service": service})
        });
    prop_oneof![
        3 => identity.prop_map(of("identity")),
        2 => token().prop_map(of("token")),
        3 => service.prop_map(of("service")),
        5 => policy.prop_map(of("service-policy")),
        1 => route.prop_map(of("route")),
    ]
}

fn model(resources: Vec<Value>) -> Model {
    let mut model = Model::default();
    for resource in resources {
        model.put(serde_json::from_value::<Resource>(resource).unwrap());
    }
    model
}

fn local(allow: Option<&str>, tokens: Vec<Value>) -> Local {
    let secret = || SecretText::new("a secret of the file".to_owned());
    let token =
        |value| LocalToken { token: serde_json::from_value::<Token>(value).unwrap(), secret: secret() };
    let allow = allow.into_iter().map(|net| net.parse().unwrap()).collect();
    Local { rules: Rules { allow, ..Rules::default() }, tokens: tokens.into_iter().map(token).collect() }
}

fn everybody() -> Vec<Who> {
    let names = || NAMES.iter().chain(&["stranger"]).map(|name| name.parse().unwrap());
    let both = names().map(Who::Identity).chain(names().map(Who::Token));
    std::iter::once(Who::Public).chain(both).collect()
}

/// Others, with nothing in common with those that are asked about, before and behind them in the order of names. Among
/// many, sets of few are kept in another form.
fn crowd() -> Vec<Value> {
    let identity = |number| {
        let (first, attributes) =
            if number % 2 == 0 { ("a", json!(["X", "crowd"])) } else { ("m", json!(["crowd"])) };
        json!({"kind": "identity", "name": format!("{first}{number}"), "attributes": attributes})
    };
    (0..200).map(identity).collect()
}

/// Holds every decision there is against the rules.
pub(crate) fn agrees(snapshot: &Snapshot, model: &Model, local: &Local) {
    let reference = Reference { model, local };
    let offers: Vec<ServiceName> = OFFERS.iter().map(|offer| offer.parse().unwrap()).collect();
    for who in everybody() {
        for service in &offers {
            let addresses = [None, Some("10.0.0.1"), Some("192.0.2.1")].into_iter();
            for address in addresses.take(if who == Who::Public { 3 } else { 1 }) {
                let address = address.map(|address| address.parse().unwrap());
                let subject = Subject { who: who.clone(), address };
                let decided = authorize(snapshot, &subject, service);
                assert_eq!(
                    decided.is_ok(),
                    reference.may_reach(&subject, service),
                    "{subject:?} to {service}"
                );
            }
            let offered = authorize_offer(snapshot, &who, service).ok();
            let offered = offered.map(|permit| permit.served_as().to_string());
            assert_eq!(offered, reference.may_offer(&who, service), "{who} offers {service}");
        }
    }
    for host in ASKED {
        let found = snapshot.route_for_host(&host.parse().unwrap());
        let found = found.map(|(pattern, service)| (pattern.to_string(), service.to_string()));
        assert_eq!(found, reference.route_for(host), "{host}");
    }
    explains(snapshot, &reference);
}

/// What is explained is what is decided.
fn explains(snapshot: &Snapshot, reference: &Reference<'_>) {
    for (who, service) in NAMES.iter().flat_map(|who| SERVICES.iter().map(move |service| (who, service))) {
        let identity: Name = who.parse().unwrap();
        let meant = match snapshot.named(&identity).and_then(|index| snapshot.at(index)) {
            Some(member) => member.who.clone(),
            None => Who::Identity(identity.clone()),
        };
        let named = ServiceName::Named(service.parse().unwrap());
        let subject = Subject { who: meant, address: Some("10.0.0.1".parse().unwrap()) };
        for verb in [Verb::Dial, Verb::Bind] {
            let question =
                Question { verb, identity: identity.clone(), service: service.parse().ok(), to: None };
            let said = explain(snapshot, &question, &[]);
            let is_allowed = match verb {
                Verb::Dial => reference.may_reach(&subject, &named),
                Verb::Bind => reference.may_offer(&subject.who, &named).is_some(),
            };
            assert_eq!(said.allowed, is_allowed, "{said}");
            let by_policy = !said.matched.is_empty();
            assert!(by_policy || !is_allowed || verb == Verb::Bind, "a policy is named: {said}");
            assert!(is_allowed || !said.fixes.is_empty(), "there is a way: {said}");
        }
    }
}

proptest! {
    #[test]
    fn decisions_are_what_the_rules_say_when_they_are_read_aloud(
        resources in prop::collection::vec(resource(), 0..16),
        tokens in prop::collection::vec(token(), 0..3),
        allow in prop::option::weighted(0.2, Just("10.0.0.0/8")),
    ) {
        let (model, local) = (model(resources), local(allow, tokens));
        agrees(&Snapshot::compile(Generation::FIRST, &model, &local), &model, &local);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn decisions_are_the_same_in_a_crowd_and_under_many_policies(
        resources in prop::collection::vec(resource(), 40..80),
        tokens in prop::collection::vec(token(), 0..3),
    ) {
        let (model, local) = (model([resources, crowd()].concat()), local(None, tokens));
        agrees(&Snapshot::compile(Generation::FIRST, &model, &local), &model, &local);
    }
}
