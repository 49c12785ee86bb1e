//! Batches of changes to resources: one transaction each, or one look at what it would do.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use adit_proto::name::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::check::{self, Given, Touched};
use super::credentials::{self, Secret};
use super::error::ChangeError;
use super::kept;
use super::view::{Stored, View};
use super::{Changes, Plan};
use crate::audit::{self, Actor, AuditAction};
use crate::model::{Kind, Model, Resource, Role, Timestamp, Token};
use crate::store::{Expect, Revision};

/// A resource whose lists say everything once, as the first mention has it. That is all that they mean; what a route
/// claims twice is refused, because there it is more likely to be a mistake.
fn each_once(mut resource: Resource) -> Resource {
    fn once<T, K: Eq + Hash>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
        let mut seen = HashSet::with_capacity(list.len());
        list.retain(|it| seen.insert(key(it)));
    }
    match &mut resource {
        Resource::Identity(it) => once(&mut it.attributes, Name::clone),
        Resource::Service(it) => {
            once(&mut it.attributes, Name::clone);
            once(&mut it.configs, Name::clone);
        }
        Resource::ServicePolicy(it) => {
            once(&mut it.service_roles, Role::clone);
            once(&mut it.identity_roles, Role::clone);
        }
        Resource::Token(it) => {
            once(&mut it.attributes, Name::clone);
            it.limits.hosts.iter_mut().for_each(|list| once(list, ToString::to_string));
            it.limits.ports.iter_mut().for_each(|list| once(list, |ports| ports.0.clone()));
            it.limits.services.iter_mut().for_each(|list| once(list, Name::clone));
        }
        Resource::Config(_) | Resource::Route(_) => {}
    }
    resource
}

/// A change to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It must not exist yet.
    Create(Resource),
    /// It must exist, and be at this revision if one is given.
    Update(Resource, Option<Revision>),
    /// Creates or replaces it.
    Put(Resource),
    /// It must exist, and be at this revision if one is given.
    Delete(Kind, Name, Option<Revision>),
}

impl Change {
    /// The kind of resource that it is about.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Create(it) | Self::Update(it, _) | Self::Put(it) => it.kind(),
            Self::Delete(kind, _, _) => *kind,
        }
    }

    fn about(&self) -> (Kind, Name) {
        match self {
            Self::Create(it) | Self::Update(it, _) | Self::Put(it) => (it.kind(), it.name().clone()),
            Self::Delete(kind, name, _) => (*kind, name.clone()),
        }
    }
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, in any combination")]
pub struct Batch {
    /// The changes, each about another resource; what they refer to may be in the same batch, in any order.
    pub changes: Vec<Change>,
    /// Nothing is written: the outcome is what would happen.
    pub dry_run: bool,
    /// Deletes every resource that no change is about, except the one that the actor itself is.
    pub prune: bool,
    /// Takes deleted identities, tokens and services out of the policies that name them, instead of refusing.
    pub force: bool,
    /// It is well if what shall be deleted is not there.
    pub ignore_missing: bool,
}

/// What became of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It was not there.
    Create,
    /// It was there, and is different.
    Update,
    /// It is gone.
    Delete,
    /// It is as it was.
    None,
}

impl Action {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::None => "none",
        }
    }
}

/// One resource of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What became of it.
    pub action: Action,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// As it was.
    pub before: Option<Stored>,
    /// As it is. In a dry run the revision of a change is that of what it was.
    pub after: Option<Stored>,
}

/// What a batch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// By resource: first those of the batch in its order, then those that `prune` and `force` added.
    pub changes: Vec<Changed>,
    /// The transaction; without any change the last one.
    pub revision: Revision,
}

impl Changes {
    /// Does all of a batch or nothing. It is published when this returns. If the future is dropped, the batch may still
    /// happen, whole.
    ///
    /// # Errors
    /// What is wrong with the batch, or that the store does not answer.
    pub async fn apply(
        self: &Arc<Self>,
        actor: &Actor,
        batch: Batch,
        now: Timestamp,
    ) -> Result<Outcome, ChangeError> {
        let planned = Planning { batch: &batch, given: self.given(), actor, now };
        if batch.dry_run {
            let view = self.view();
            return Ok(Outcome { changes: planned.plan(&view)?.result, revision: view.revision });
        }
        let (mut changes, revision) = self.commit(actor, now, |view| planned.plan(view)).await?;
        stamp(&mut changes, revision);
        Ok(Outcome { changes, revision })
    }

    /// Creates a token with its first secret. It is published when this returns.
    ///
    /// # Errors
    /// As [`Changes::apply`].
    pub async fn create_token(
        self: &Arc<Self>,
        actor: &Actor,
        token: Token,
        now: Timestamp,
    ) -> Result<(Stored, Secret), ChangeError> {
        let secret = Secret::generate(now)?;
        let name = token.name.clone();
        let batch = Batch { changes: vec![Change::Create(Resource::Token(token))], ..Batch::default() };
        let planned = Planning { batch: &batch, given: self.given(), actor, now };
        let plan = |view: &View| {
            let mut plan = planned.plan(view)?;
            credentials::add_secret(&mut plan, &name, &secret, AuditAction::IssueSecret)?;
            Ok(plan)
        };
        let (mut changes, revision) = self.commit(actor, now, plan).await?;
        stamp(&mut changes, revision);
        let stored = changes.into_iter().find_map(|changed| changed.after);
        let stored = stored.ok_or_else(|| ChangeError::not_found(Kind::Token, &name))?;
        Ok((stored, secret))
    }
}

fn stamp(changes: &mut [Changed], revision: Revision) {
    for changed in changes.iter_mut().filter(|changed| changed.action != Action::None) {
        if let Some(after) = &mut changed.after {
            after.revision = revision;
        }
    }
}

/// All that a plan depends on beside the state it is made for.
struct Planning<'a> {
    batch: &'a Batch,
    given: Given,
    actor: &'a Actor,
    now: Timestamp,
}

impl Planning<'_> {
    fn plan(&self, view: &View) -> Result<Plan<Vec<Changed>>, ChangeError> {
        let mut scratch = Scratch::new(&view.model);
        let mut named = BTreeSet::new();
        for change in &self.batch.changes {
            let about = change.about();
            let is_missing = matches!(change, Change::Delete(..)) && !view.metas.contains_key(&about);
            if let Some((kind, name)) = named.replace(about) {
                let why = format!("the {kind} `{name}` is in the batch twice");
                return Err(ChangeError::invalid(why, "leave one of them out"));
            }
            if is_missing && self.batch.ignore_missing {
                continue;
            }
            scratch.change(view, change)?;
        }
        if self.batch.prune {
            scratch.prune(self.actor);
        }
        if self.batch.force {
            scratch.unname();
        }
        check::together(&scratch.model, &scratch.touched, &self.given)?;
        let mut plan = Plan::nothing(Vec::with_capacity(scratch.order.len()));
        for (kind, name) in &scratch.order {
            self.add(&mut plan, view, (*kind, name), scratch.model.get(*kind, name))?;
        }
        check::size(view, &plan.writes, check::MAX_BYTES)?;
        Ok(plan)
    }

    /// Adds what has to be written so that a resource is as it shall be.
    fn add(
        &self,
        plan: &mut Plan<Vec<Changed>>,
        view: &View,
        (kind, name): (Kind, &Name),
        after: Option<Resource>,
    ) -> Result<(), ChangeError> {
        let before = view.get(kind, name);
        let key = kept::resource_key(kind, name);
        let shown_before = before.as_ref().map(|stored| shown(&stored.resource));
        let shown_after = after.as_ref().map(shown);
        let (action, audited) = match (&shown_before, &shown_after) {
            (before, after) if before == after => (Action::None, None),
            (None, _) => (Action::Create, Some(AuditAction::Create)),
            (Some(_), Some(_)) => (Action::Update, Some(AuditAction::Update)),
            (Some(_), None) => (Action::Delete, Some(AuditAction::Delete)),
        };
        let Some(audited) = audited else {
            let after = before.clone();
            plan.result.push(Changed { action, kind, name: name.clone(), before, after });
            return Ok(());
        };
        plan.expect.push(match &before {
            Some(stored) => Expect::Modified(key.clone(), stored.revision),
            None => Expect::Absent(key.clone()),
        });
        let after = match after {
            Some(resource) => {
                let id =
                    before.as_ref().map_or_else(credentials::new_id, |stored| Ok(stored.id.to_string()))?;
                let created_at = before.as_ref().map_or(self.now, |stored| stored.created_at);
                let times = (created_at, self.now);
                plan.writes.push(kept::put_resource(key, &resource, id.clone(), times)?);
                let revision = before.as_ref().map_or(0, |stored| stored.revision);
                Some(Stored { id: id.into(), revision, created_at, updated_at: self.now, resource })
            }
            None => {
                plan.writes.push(kept::delete(key));
                credentials::remove_all(plan, view, kind, name);
                None
            }
        };
        plan.audit.push(audit::Entry {
            action: audited,
            about: Some((kind, name.clone())),
            before: shown_before,
            after: shown_after,
        });
        plan.result.push(Changed { action, kind, name: name.clone(), before, after });
        Ok(())
    }
}

fn shown(resource: &Resource) -> Value {
    serde_json::to_value(resource).unwrap_or_default()
}

/// The model as it will be, and what is different in it.
struct Scratch {
    model: Model,
    order: Vec<(Kind, Name)>,
    touched: Touched,
}

impl Scratch {
    fn new(model: &Model) -> Self {
        Self { model: model.clone(), order: Vec::new(), touched: Touched::default() }
    }

    fn knows(&self, about: &(Kind, Name)) -> bool {
        self.touched.written.contains(about) || self.touched.deleted.contains(about)
    }

    fn change(&mut self, view: &View, change: &Change) -> Result<(), ChangeError> {
        let about = change.about();
        let (kind, name) = (about.0, &about.1);
        let found = view.metas.get(&about).map(|meta| meta.revision);
        match (change, found) {
            (Change::Create(_), Some(_)) => return Err(ChangeError::exists(kind, name)),
            (Change::Update(..) | Change::Delete(..), None) => {
                return Err(ChangeError::not_found(kind, name));
            }
            (Change::Update(_, Some(wanted)) | Change::Delete(_, _, Some(wanted)), Some(found))
                if *wanted != found =>
            {
                return Err(ChangeError::changed(kind, name, *wanted, found));
            }
            (Change::Create(_) | Change::Put(_) | Change::Update(..) | Change::Delete(..), _) => {}
        }
        match change {
            Change::Create(resource) | Change::Update(resource, _) | Change::Put(resource) => {
                check::alone(resource)?;
                self.put(each_once(resource.clone()));
            }
            Change::Delete(..) => self.delete(about),
        }
        Ok(())
    }

    fn put(&mut self, resource: Resource) {
        let about = (resource.kind(), resource.name().clone());
        if self.touched.written.insert(about.clone()) {
            self.order.push(about);
        }
        self.model.put(resource);
    }

    fn delete(&mut self, about: (Kind, Name)) {
        self.model.remove(about.0, &about.1);
        if self.touched.deleted.insert(about.clone()) && !self.touched.written.contains(&about) {
            self.order.push(about);
        }
    }

    /// Deletes what nothing was said about. Whoever does that would lock itself out with its own resource.
    fn prune(&mut self, actor: &Actor) {
        for kind in Kind::ALL.into_iter().rev() {
            let names: Vec<Name> = self.model.names(kind).cloned().collect();
            for name in names {
                let is_actor = actor
                    .name
                    .strip_prefix(kind.singular())
                    .and_then(|rest| rest.strip_prefix(':'))
                    .is_some_and(|own| own.eq_ignore_ascii_case(name.folded()));
                let about = (kind, name);
                if !is_actor && !self.knows(&about) {
                    self.delete(about);
                }
            }
        }
    }

    /// Takes what is deleted out of the policies that name it; a policy that is left with nobody or nothing goes.
    fn unname(&mut self) {
        for (policy, new) in check::without(&self.model, &self.touched.deleted) {
            match new {
                Some(policy) => self.put(Resource::ServicePolicy(policy)),
                None => self.delete((Kind::ServicePolicy, policy)),
            }
        }
    }
}
