//! Resources in numbers: as they usually are, and in shapes that are hard on whoever compiles them.

use std::fmt;

use adit_control::model::Resource;
use serde_json::{Value, json};

/// How many there are of each, and what policies select.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    name: &'static str,
    identities: usize,
    services: usize,
    policies: usize,
    /// Attributes of each identity and service.
    attributes: usize,
    policy: fn(usize) -> Roles,
}

/// Semantic, service roles, identity roles.
type Roles = (&'static str, Vec<String>, Vec<String>);

/// As they usually are.
pub(crate) const USUAL: Shape = Shape {
    name: "usual",
    identities: 10_000,
    services: 1_000,
    policies: 1_000,
    attributes: 3,
    policy: usual,
};

/// All shapes.
pub(crate) const SHAPES: [Shape; 7] = [
    USUAL,
    Shape { name: "everything for everybody", services: 10_000, policies: 5_000, policy: all, ..USUAL },
    Shape { name: "everything for one team each", services: 10_000, policies: 5_000, policy: teams, ..USUAL },
    Shape { name: "ten times a thousand names", policies: 10, policy: names, ..USUAL },
    Shape { name: "one name each", policies: 10_000, policy: pairs, ..USUAL },
    Shape { name: "fifty attributes", policies: 2_000, attributes: 50, policy: deep, ..USUAL },
    Shape { name: "a hundred thousand identities", identities: 100_000, ..USUAL },
];

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Shape {
    /// All of it.
    pub(crate) fn resources(self) -> Vec<Resource> {
        let identities = (0..self.identities).map(|number| {
            let attributes = match self.attributes {
                3 => vec![
                    format!("team{}", number % 100),
                    format!("site{}", number % 37),
                    format!("rank{}", number % 5),
                ],
                // Half of all have each.
                many => {
                    (0..many).filter(|at| (number * 7 + at * 3) % 10 < 5).map(|at| format!("a{at}")).collect()
                }
            };
            identity(format!("person{number}"), attributes)
        });
        let services = (0..self.services).map(|number| {
            let attributes = match self.attributes {
                3 => vec![format!("area{}", number % 50), format!("level{}", number % 3)],
                many => (0..many).filter(|at| (number + at) % 10 < 5).map(|at| format!("a{at}")).collect(),
            };
            resource(json!({"kind": "service", "name": format!("service{number}"), "attributes": attributes}))
        });
        let policies = (0..self.policies).map(|number| {
            let verb = if number % 3 == 0 { "Bind" } else { "Dial" };
            let (semantic, services, identities) = (self.policy)(number);
            resource(json!({"kind": "service-policy", "name": format!("policy{number}"), "type": verb,
                "semantic": semantic, "service_roles": services, "identity_roles": identities}))
        });
        identities.chain(services).chain(policies).collect()
    }
}

/// One identity.
pub(crate) fn identity(name: String, attributes: Vec<String>) -> Resource {
    resource(json!({"kind": "identity", "name": name, "attributes": attributes}))
}

fn resource(value: Value) -> Resource {
    serde_json::from_value(value).expect("it is a resource")
}

/// Half of them for one service and a team; the others for areas and two attributes, for ten people, and for all.
fn usual(number: usize) -> Roles {
    let one = vec![format!("@service{}", number % 1000)];
    match number % 10 {
        0..5 => ("AnyOf", one, vec![format!("#team{}", number % 100)]),
        5..7 => (
            "AllOf",
            vec![format!("#area{}", number % 50)],
            vec![format!("#team{}", number % 100), format!("#site{}", number % 37)],
        ),
        7..9 => ("AnyOf", one, (0..10).map(|at| format!("@person{}", (number * 10 + at) % 10_000)).collect()),
        _ => ("AnyOf", one, vec!["#all".to_owned()]),
    }
}

fn all(_: usize) -> Roles {
    ("AnyOf", vec!["#all".to_owned()], vec!["#all".to_owned()])
}

fn teams(number: usize) -> Roles {
    ("AllOf", vec!["#all".to_owned()], vec![format!("#team{}", number % 100), format!("#rank{}", number % 5)])
}

fn names(number: usize) -> Roles {
    let people = (0..1000).map(|at| format!("@person{}", number * 1000 + at)).collect();
    ("AnyOf", (0..1000).map(|at| format!("@service{at}")).collect(), people)
}

fn pairs(number: usize) -> Roles {
    ("AnyOf", vec![format!("@service{}", number % 1000)], vec![format!("@person{number}")])
}

/// Two attributes of each side, in every combination.
fn deep(number: usize) -> Roles {
    let two = |a: usize, b: usize| vec![format!("#a{}", a % 50), format!("#a{}", b % 50)];
    ("AllOf", two(number, number / 50), two(number + 7, number / 50 + 1))
}
