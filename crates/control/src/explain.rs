//! Why somebody may or may not dial or bind a service, and the command that would change it.
//!
//! Whether it is allowed is asked of the compiled sets, as every decision is; the rest is read from the policies as they
//! are written.

use adit_proto::name::Name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::moment::as_text;
use crate::model::{NameText, PUBLIC, Role, Semantic, Service, ServicePolicy, Timestamp, Verb};
use crate::policy::roles::Entity;
use crate::snapshot::Snapshot;

pub(crate) use finding::Finding;
pub use place::{Door, Place, Via, Way};

mod finding;
mod fix;
mod place;
mod text;

/// What is asked. The service is given by its name, or found by where a client would connect to: through intercept
/// configs, or at the gateway's public listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// To dial or to bind.
    pub verb: Verb,
    /// Who: an identity, a token or `public`.
    pub identity: Name,
    /// Which service.
    pub service: Option<Name>,
    /// Which host and port.
    pub to: Option<Place>,
}

impl Question {
    /// The services it is about: the one that is named, or all that intercept the host and port, by name, and that of the
    /// route that claims it. What is explained is the first that is allowed, or else the first; endpoints of the others
    /// are left out.
    #[must_use]
    pub fn services(&self, snapshot: &Snapshot) -> Vec<Name> {
        match (&self.service, &self.to) {
            (Some(name), _) => vec![name.clone()],
            (None, Some(place)) => {
                // The public has no agent that intercepts.
                let is_public = self.identity == *PUBLIC;
                let mut found =
                    if is_public { Vec::new() } else { snapshot.intercepting(&place.host, place.port) };
                if let Some(routed) = place.routed().filter(|routed| !found.contains(routed)) {
                    found.push(routed.clone());
                }
                found
            }
            (None, None) => Vec::new(),
        }
    }
}

/// One live endpoint, as the gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointView {
    /// The service it is an endpoint of; or the hosts or the port (`tcp:5432`) that are offered themselves.
    pub service: String,
    /// The agent: its instance, or the name it gives itself.
    pub agent: String,
    /// Whose session it is.
    pub identity: String,
    /// What the agent connects to.
    pub upstream: String,
    /// Since when it is offered.
    #[serde(with = "as_text")]
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// How the last probe went; `None`: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<ProbeView>,
}

/// How a probe through a session went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbeView {
    /// How long ago.
    pub age_seconds: u64,
    /// Whether it came back.
    pub ok: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// What was asked for.
    pub verb: Verb,
    /// Who was asked about.
    #[schema(value_type = NameText)]
    pub identity: Name,
    /// The service that is explained; `None` when none was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NameText>)]
    pub service: Option<Name>,
    /// Where a client would connect to, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How that comes to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// Whether it is allowed.
    pub allowed: bool,
    /// Whether it would work now: it is allowed and, to dial, somebody offers the service.
    pub works: bool,
    /// The verdict as a sentence.
    pub verdict: String,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Policies that allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matched: Vec<PolicyView>,
    /// Policies of which one side matches; the nearest ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearly: Vec<NearPolicy>,
    /// How many more of those there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nearly_more: usize,
    /// Who offers it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointView>,
    /// What would make it work. One of them is enough where they say the same; else they go one after another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
}

/// A policy, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Its name.
    #[schema(value_type = NameText)]
    pub name: Name,
    /// How attributes combine.
    pub semantic: Semantic,
    /// Which services.
    pub service_roles: Vec<Role>,
    /// Which identities.
    pub identity_roles: Vec<Role>,
}

impl From<&ServicePolicy> for PolicyView {
    fn from(policy: &ServicePolicy) -> Self {
        Self {
            name: policy.name.clone(),
            semantic: policy.semantic,
            service_roles: policy.service_roles.clone(),
            identity_roles: policy.identity_roles.clone(),
        }
    }
}

/// A policy of which one side matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NearPolicy {
    /// The policy.
    pub policy: PolicyView,
    /// What is missing on the other side.
    pub missing: String,
}

/// A command that would change something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fix {
    /// What it does.
    pub what: String,
    /// The command, to be copied.
    pub command: String,
}

const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The policies that let somebody dial or bind a service, by name. Which identities they select may be none.
#[must_use]
pub fn permitting(snapshot: &Snapshot, verb: Verb, service: &Name) -> Vec<PolicyView> {
    let Some(reachable) = snapshot.service(service) else { return Vec::new() };
    let Service { name, attributes, .. } = &*reachable.service;
    let service = Entity { name, attributes, is_public: false, is_named: true };
    let policies = snapshot.policies().iter().filter(|policy| policy.verb == verb);
    let mut found: Vec<PolicyView> = policies
        .filter(|policy| service.is_selected(policy.semantic, &policy.service_roles))
        .map(|policy| (&**policy).into())
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// Answers a question.
#[must_use]
pub fn explain(snapshot: &Snapshot, question: &Question, endpoints: &[EndpointView]) -> Explanation {
    let services = question.services(snapshot);
    let who = snapshot.named(&question.identity);
    let is_allowed = |service: &&Name| Finding::new(snapshot, question.verb, who, service).is_allowed();
    let chosen = services.iter().find(is_allowed).or_else(|| services.first());
    let mut explanation = match (chosen, &question.to) {
        (Some(service), _) => {
            Finding::new(snapshot, question.verb, who, service).explanation(question, endpoints)
        }
        (None, Some(place)) => place::unclaimed(snapshot, question, place, endpoints),
        (None, None) => Explanation::of(
            question,
            "no service was asked for: name one, or say where a client would connect to".to_owned(),
        ),
    };
    let others = services.iter().filter(|other| Some(*other) != chosen);
    let others: Vec<String> = others.take(5).map(ToString::to_string).collect();
    if !others.is_empty() {
        explanation.notes.push(format!("the same leads to other services: {}", others.join(", ")));
    }
    explanation
}

impl Explanation {
    /// A no with its verdict, and nothing else yet.
    fn of(question: &Question, verdict: String) -> Self {
        Self {
            verb: question.verb,
            identity: question.identity.clone(),
            service: None,
            to: question.to.as_ref().map(ToString::to_string),
            via: None,
            allowed: false,
            works: false,
            verdict,
            notes: Vec::new(),
            matched: Vec::new(),
            nearly: Vec::new(),
            nearly_more: 0,
            endpoints: Vec::new(),
            fixes: Vec::new(),
        }
    }

    /// The answer without what only an administrator should see: no policies, no endpoints, no names but those that
    /// were asked about, and not whether they exist.
    #[must_use]
    pub fn short(&self) -> Self {
        let Self { verb, identity, to, allowed, works, .. } = self;
        let asked = to.clone().or_else(|| self.service.as_ref().map(ToString::to_string)).unwrap_or_default();
        let act = fix::act(*verb);
        let verdict = match (allowed, works) {
            (true, true) => format!("{identity} may {act} {asked}"),
            (true, false) => format!("{identity} may {act} {asked}, but no agent offers it now"),
            (false, _) => format!("{identity} may not {act} {asked}; an administrator can see why"),
        };
        Self {
            verb: *verb,
            identity: identity.clone(),
            service: if to.is_some() { None } else { self.service.clone() },
            to: to.clone(),
            via: None,
            allowed: *allowed,
            works: *works,
            verdict,
            notes: Vec::new(),
            matched: Vec::new(),
            nearly: Vec::new(),
            nearly_more: 0,
            endpoints: Vec::new(),
            fixes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
