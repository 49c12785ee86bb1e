//! What the policies say about one subject and one service.

use adit_proto::name::Name;

use super::fix::{self, act};
use super::{EndpointView, Explanation, Fix, NearPolicy, Question};
use crate::model::{PUBLIC, ServicePolicy, Verb};
use crate::near::near;
use crate::policy::Who;
use crate::policy::roles::{Entity, attributes};
use crate::snapshot::{Member, Reachable, Snapshot};

/// How many policies that nearly match are shown.
const SHOWN: usize = 5;

/// One subject, one service, one verb.
pub(crate) struct Finding<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) verb: Verb,
    pub(super) member: Option<(usize, &'a Member)>,
    pub(super) service: &'a Name,
    pub(super) reachable: Option<&'a Reachable>,
}

/// A policy of which one side matches.
pub(super) struct Near<'a> {
    pub(super) policy: &'a ServicePolicy,
    /// Whether it is the service's side that matches.
    pub(super) by_service: bool,
    /// The attributes that the other side would need; none when attributes do not help.
    pub(super) lacking: Vec<&'a Name>,
    missing: String,
}

impl<'a> Finding<'a> {
    /// About whoever has this place among the snapshot's members.
    pub(crate) fn new(snapshot: &'a Snapshot, verb: Verb, who: Option<usize>, service: &'a Name) -> Self {
        let member = who.and_then(|index| Some((index, snapshot.at(index)?)));
        Self { snapshot, verb, member, service, reachable: snapshot.service(service) }
    }

    /// Whether it is allowed: by policies, or by what a token may offer without one.
    pub(crate) fn is_allowed(&self) -> bool {
        self.is_permitted() || self.is_within_limits()
    }

    fn is_permitted(&self) -> bool {
        let both = self.member.zip(self.reachable);
        both.is_some_and(|((index, _), service)| service.permitted(self.verb).contains(index))
    }

    fn is_within_limits(&self) -> bool {
        let limits = self.member.filter(|(_, it)| !it.is_disabled).and_then(|(_, it)| it.limits());
        self.verb == Verb::Bind
            && self.reachable.is_some()
            && limits.is_some_and(|limits| limits.cover_service(self.service))
    }

    /// The policies of which both sides match, and those of which one does, the nearest first.
    pub(super) fn policies(&self) -> (Vec<&'a ServicePolicy>, Vec<Near<'a>>) {
        let (mut matched, mut nearly) = (Vec::new(), Vec::new());
        let Some(((_, member), reachable)) = self.member.zip(self.reachable) else {
            return (matched, nearly);
        };
        let public: Option<Name> = PUBLIC.parse().ok();
        let Some(name) = member.who.name().or(public.as_ref()) else { return (matched, nearly) };
        // A name in a policy means the identity where a token has the same.
        let is_named = self.snapshot.named(name) == self.member.map(|(index, _)| index);
        let who =
            Entity { name, attributes: member.attributes(), is_public: member.who == Who::Public, is_named };
        let service = &reachable.service;
        let what =
            Entity { name: &service.name, attributes: &service.attributes, is_public: false, is_named: true };
        for policy in self.snapshot.policies().iter().filter(|policy| policy.verb == self.verb) {
            let ServicePolicy { semantic, service_roles, identity_roles, .. } = &**policy;
            let by_service = what.is_selected(*semantic, service_roles);
            let by_identity = who.is_selected(*semantic, identity_roles);
            let (side, roles) = match (by_service, by_identity) {
                (true, true) => {
                    matched.push(policy);
                    continue;
                }
                (true, false) => (who, identity_roles),
                (false, true) => (what, service_roles),
                (false, false) => continue,
            };
            let lacking = if side.is_public { Vec::new() } else { side.lacking(*semantic, roles) };
            let missing = side.why_not(*semantic, roles);
            nearly.push(Near { policy, by_service, lacking, missing });
        }
        // One that the service's side matches is meant for the service; one attribute is nearer than two.
        nearly.sort_by_key(|near| {
            let none = attributes(&near.policy.identity_roles).next().is_none();
            (!near.by_service, near.lacking.is_empty(), near.lacking.len(), none)
        });
        (matched, nearly)
    }

    /// Who this is, as people write it.
    pub(super) fn subject(&self, asked: &Name) -> String {
        self.member.map_or_else(|| format!("identity {asked}"), |(_, member)| member.who.to_string())
    }

    /// The whole answer.
    pub(super) fn explanation(&self, question: &Question, endpoints: &[EndpointView]) -> Explanation {
        let (matched, nearly) = self.policies();
        let allowed = self.is_allowed();
        let endpoints: Vec<EndpointView> = endpoints
            .iter()
            .filter(|it| self.service.as_str().eq_ignore_ascii_case(&it.service))
            .cloned()
            .collect();
        let works = allowed && (self.verb == Verb::Bind || !endpoints.is_empty());
        Explanation {
            verb: self.verb,
            identity: question.identity.clone(),
            service: Some(self.service.clone()),
            to: question.to.as_ref().map(ToString::to_string),
            via: question.to.as_ref().and_then(|place| place.via(self.snapshot, question, self.service)),
            allowed,
            works,
            verdict: self.verdict(&question.identity, endpoints.len()),
            notes: self
                .notes(&question.identity, &matched)
                .into_iter()
                .chain(self.place_notes(question))
                .collect(),
            fixes: self.fixes(&question.identity, &nearly, !endpoints.is_empty()),
            matched: matched.into_iter().map(Into::into).collect(),
            nearly_more: nearly.len().saturating_sub(SHOWN),
            nearly: nearly
                .into_iter()
                .take(SHOWN)
                .map(|near| NearPolicy { policy: near.policy.into(), missing: near.missing })
                .collect(),
            endpoints,
        }
    }

    /// What there is to know of where a client would connect to.
    fn place_notes(&self, question: &Question) -> Vec<String> {
        let Some(place) = &question.to else { return Vec::new() };
        if place.via(self.snapshot, question, self.service).is_none() {
            return vec![format!("{place} does not lead to service {}", self.service)];
        }
        place.notes(self.snapshot, question, Some(self.service))
    }

    /// The verdict as a sentence.
    pub(super) fn verdict(&self, asked: &Name, online: usize) -> String {
        let (verb, service) = (self.verb, self.service);
        let who = self.subject(asked);
        match (self.member, self.reachable) {
            (None, _) => format!("there is no identity or token {asked}"),
            (Some((_, member)), _) if member.is_disabled => format!("{who} is disabled"),
            (_, None) => format!("there is no service {service}"),
            _ if !self.is_allowed() => self.denied(asked),
            _ if verb == Verb::Bind => format!("{who} may bind service {service}"),
            _ => match online {
                0 => format!("{who} may dial service {service}, but no agent offers it now"),
                1 => format!("{who} may dial service {service}, and one endpoint offers it"),
                _ => format!("{who} may dial service {service}, and {online} endpoints offer it"),
            },
        }
    }

    fn notes(&self, asked: &Name, matched: &[&ServicePolicy]) -> Vec<String> {
        let mut notes = Vec::new();
        let mut hint = |found: Vec<&str>| {
            if !found.is_empty() {
                notes.push(format!("did you mean {}?", found.join(", or ")));
            }
        };
        if self.member.is_none() {
            hint(near(asked.as_str(), self.snapshot.member_names().map(Name::as_str)));
        }
        if self.reachable.is_none() {
            hint(near(self.service.as_str(), self.snapshot.service_names().map(Name::as_str)));
        }
        let Some((_, member)) = self.member else { return notes };
        if member.is_disabled && !matched.is_empty() {
            notes.push(format!("policies would let {} in if it were not disabled", member.who));
        }
        if self.is_within_limits() && !self.is_permitted() {
            notes.push(match member.limits() {
                Some(limits) if limits.is_everything() => {
                    format!("{} has no limits: its agents may offer everything without a policy", member.who)
                }
                _ => format!("the limits of {} list the service", member.who),
            });
        }
        if member.who == Who::Public && self.verb == Verb::Dial && self.is_permitted() {
            notes.push(match self.snapshot.is_routed(self.service) {
                true => "clients still need an address that the gateway's rules allow".to_owned(),
                false => "no route leads the public to it yet".to_owned(),
            });
        }
        notes
    }

    fn fixes(&self, asked: &Name, nearly: &[Near<'_>], is_online: bool) -> Vec<Fix> {
        let mut fixes = Vec::new();
        match self.member {
            None => fixes.push(fix::create_identity(asked)),
            Some((_, member)) if member.is_disabled => fixes.push(fix::enable(&member.who)),
            Some(_) => {}
        }
        if self.reachable.is_none() {
            fixes.push(fix::create_service(self.service));
        }
        if !self.is_allowed() && fixes.is_empty() {
            if let Some((_, member)) = self.member {
                fixes.extend(nearly.iter().filter_map(|near| fix::attribute(near, member, self)).take(2));
            }
            fixes.push(fix::policy(self.snapshot, self.verb, asked, self.service));
        }
        if self.verb == Verb::Dial && self.reachable.is_some() && !is_online {
            fixes.extend(fix::offer(self.snapshot, self.service));
        }
        fixes
    }

    /// Why not, in one paragraph: the missing policy, and the command that makes it. It says the same whether there is
    /// such a service or not, because whoever may neither dial nor bind it has no business to know; and it looks at no
    /// policy, because it is said at every refusal.
    pub(crate) fn refusal(&self, asked: &Name) -> String {
        let usable = self.member.is_some_and(|(_, member)| !member.is_disabled);
        let (text, fixes) = if usable {
            let fix = fix::policy(self.snapshot, self.verb, asked, self.service);
            (self.denied(asked), vec![fix])
        } else {
            let notes = self.notes(asked, &[]).into_iter().map(|note| format!("; {note}"));
            (self.verdict(asked, 0) + &notes.collect::<String>(), self.fixes(asked, &[], true))
        };
        let commands: Vec<&str> = fixes.iter().map(|fix| fix.command.as_str()).collect();
        format!("{text}; to change it: {}", commands.join("   or: "))
    }

    fn denied(&self, asked: &Name) -> String {
        let (verb, service) = (self.verb, self.service);
        let act = if verb == Verb::Bind { "offer" } else { act(verb) };
        format!("no {verb} policy lets {} {act} service {service}", self.subject(asked))
    }
}
