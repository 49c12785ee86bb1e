//! What should be allowed and denied, written beside the policies and checked by the code that a gateway decides with.

use std::fmt;
use std::str::FromStr;

use adit_proto::name::Name;
use adit_proto::names::ServiceName;
use serde::{Deserialize, Serialize};

use crate::model::{Model, Verb};
use crate::policy::{Denial, Subject, Who, authorize, authorize_offer};
use crate::snapshot::{Generation, Local, Snapshot};

/// One of the `tests:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who: an identity, a token or `public`.
    pub identity: Name,
    /// Which service.
    pub service: Name,
    /// To do what.
    #[serde(default = "dial")]
    pub verb: Verb,
    /// What should come of it.
    pub expect: Verdict,
}

const fn dial() -> Verb {
    Verb::Dial
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is allowed.
    Allowed,
    /// It is not.
    Denied,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        })
    }
}

impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "allowed" => Ok(Self::Allowed),
            "denied" => Ok(Self::Denied),
            _ => Err(format!("`{text}` is neither allowed nor denied")),
        }
    }
}

/// As people read it: `dev.client may dial web`, with its name in front if it has one.
impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let may = match self.expect {
            Verdict::Allowed => "may",
            Verdict::Denied => "may not",
        };
        let verb = match self.verb {
            Verb::Dial => "dial",
            Verb::Bind => "bind",
        };
        let Self { identity, service, .. } = self;
        match &self.name {
            Some(name) => write!(f, "{name} ({identity} {may} {verb} {service})"),
            None => write!(f, "{identity} {may} {verb} {service}"),
        }
    }
}

/// What came of an expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is decided.
    pub verdict: Verdict,
    /// Whether that is what was expected.
    pub holds: bool,
    /// Why it is denied, and what would change that; empty where it is allowed.
    pub why: String,
}

/// What a gateway with these resources would decide, one outcome for each expectation. Rules about addresses are left
/// out: an expectation is about policies.
#[must_use]
pub fn check(model: &Model, local: &Local, expectations: &[Expectation]) -> Vec<Outcome> {
    let local = Local { rules: crate::Rules::default(), tokens: local.tokens.clone() };
    let snapshot = Snapshot::compile(Generation::FIRST, model, &local);
    expectations.iter().map(|expectation| outcome(&snapshot, expectation)).collect()
}

fn outcome(snapshot: &Snapshot, expectation: &Expectation) -> Outcome {
    let Expectation { identity, service, verb, expect, .. } = expectation;
    let decided = decide(snapshot, *verb, identity, service);
    let verdict = if decided.is_ok() { Verdict::Allowed } else { Verdict::Denied };
    let why = decided.err().map(|denial| denial.message(snapshot)).unwrap_or_default();
    Outcome { verdict, holds: verdict == *expect, why }
}

/// May whoever policies mean by this name do this with a service?
///
/// # Errors
/// No, and why.
pub fn decide(snapshot: &Snapshot, verb: Verb, identity: &Name, service: &Name) -> Result<(), Denial> {
    let named = snapshot.named(identity).and_then(|index| snapshot.at(index));
    let who = named.map_or_else(|| Who::Identity(identity.clone()), |member| member.who.clone());
    let service = ServiceName::Named(service.clone());
    match verb {
        Verb::Dial => authorize(snapshot, &Subject { who, address: None }, &service).map(drop),
        Verb::Bind => authorize_offer(snapshot, &who, &service).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Resource, SecretText};
    use crate::snapshot::{LocalToken, Rules};

    fn model() -> Model {
        let mut model = Model::default();
        for resource in [
            json!({"kind": "identity", "name": "Alice", "attributes": ["dev"]}),
            json!({"kind": "token", "name": "shop", "limits": {"services": ["web"]}}),
            json!({"kind": "service", "name": "web"}),
            json!({"kind": "service-policy", "name": "d", "type": "Dial", "service_roles": ["@web"],
                "identity_roles": ["#dev", "@public"]}),
        ] {
            model.put(serde_json::from_value::<Resource>(resource).unwrap());
        }
        model
    }

    fn expects(local: &Local, expectation: serde_json::Value) -> Outcome {
        let expectation: Expectation = serde_json::from_value(expectation).unwrap();
        check(&model(), local, &[expectation]).remove(0)
    }

    #[test]
    fn expectations_are_held_against_what_a_gateway_would_decide() {
        // A gateway's rules about addresses are not what is tested.
        let mut local = Local {
            rules: Rules { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Rules::default() },
            tokens: vec![],
        };
        let holds = |local: &Local, identity: &str, verb: &str, expect: &str| {
            let it = json!({"identity": identity, "service": "WEB", "verb": verb, "expect": expect});
            expects(local, it).holds
        };
        assert!(holds(&local, "alice", "Dial", "allowed") && holds(&local, "alice", "Bind", "denied"));
        assert!(holds(&local, "public", "Dial", "allowed") && holds(&local, "public", "Bind", "denied"));
        assert!(holds(&local, "shop", "Bind", "allowed") && holds(&local, "shop", "Dial", "denied"));
        assert!(holds(&local, "nobody", "Dial", "denied") && holds(&local, "file", "Bind", "denied"));
        local.tokens.push(LocalToken::new("file".parse().unwrap(), SecretText::new("s".to_owned())));
        assert!(holds(&local, "file", "Bind", "allowed") && holds(&local, "file", "Dial", "denied"));
        assert!(!holds(&local, "alice", "Dial", "denied") && !holds(&local, "alice", "Bind", "allowed"));
    }

    #[test]
    fn what_is_denied_says_why_and_an_expectation_reads_as_a_sentence() {
        let local = Local::default();
        let denied = expects(&local, json!({"identity": "alic", "service": "web", "expect": "allowed"}));
        assert_eq!((denied.verdict, denied.holds), (Verdict::Denied, false));
        assert!(denied.why.contains("did you mean Alice?"), "{}", denied.why);
        let allowed = expects(&local, json!({"identity": "alice", "service": "web", "expect": "denied"}));
        assert_eq!((allowed.verdict, allowed.holds, allowed.why.as_str()), (Verdict::Allowed, false, ""));

        let read = |value| serde_json::from_value::<Expectation>(value);
        let named = json!({"name": "strangers", "identity": "x", "service": "web", "verb": "Bind", "expect": "denied"});
        assert_eq!(read(named).unwrap().to_string(), "strangers (x may not bind web)");
        assert!(read(json!({"identity": "x", "service": "web", "expect": "maybe"})).is_err());
        assert!(read(json!({"identity": "x", "service": "web", "expects": "denied"})).is_err());
    }
}
