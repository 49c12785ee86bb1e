//! What is known of the store's content: the model, with what belongs to each resource beside its fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use adit_proto::name::Name;

use super::error::ChangeError;
use super::kept::{self, Enrollment, Key, Turn};
use crate::model::{Kind, Model, Resource, Timestamp};
use crate::store::Revision;

/// A resource with what the store knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Names this very resource, also when another one of its name follows it.
    pub id: Arc<str>,
    /// The transaction that wrote it last: its `ETag`.
    pub revision: Revision,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// The resource.
    pub resource: Resource,
}

/// What belongs to a resource beside its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) id: Arc<str>,
    pub(super) revision: Revision,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// What it takes in the store.
    pub(super) bytes: usize,
}

/// One consistent state. Cloning is cheap; changing a clone copies what it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    /// As of this transaction.
    pub(super) revision: Revision,
    pub(super) model: Arc<Model>,
    pub(super) metas: Arc<BTreeMap<(Kind, Name), Meta>>,
    pub(super) enrollments: Arc<BTreeMap<String, Enrollment>>,
    /// What all resources take in the store.
    pub(super) bytes: usize,
    /// What the last transaction left for the next one, and which it was.
    pub(super) turn: Option<(Revision, Turn)>,
}

impl View {
    pub(super) fn get(&self, kind: Kind, name: &Name) -> Option<Stored> {
        let resource = self.model.get(kind, name)?;
        let meta = self.metas.get(&(kind, name.clone()))?;
        Some(Stored {
            id: Arc::clone(&meta.id),
            revision: meta.revision,
            created_at: meta.created_at,
            updated_at: meta.updated_at,
            resource,
        })
    }

    /// What a resource takes in the store.
    pub(super) fn size(&self, kind: Kind, name: &Name) -> usize {
        self.metas.get(&(kind, name.clone())).map_or(0, |meta| meta.bytes)
    }

    /// Whether there is such a resource.
    pub(super) fn knows(&self, key: &Key<'_>) -> bool {
        let Key::Resource(kind, name) = key else { return false };
        name.parse().is_ok_and(|name| self.metas.contains_key(&(*kind, name)))
    }

    /// Takes in what a key holds now, or that it is gone.
    ///
    /// # Errors
    /// The value cannot be understood; nothing is changed then.
    pub(super) fn take(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        revision: Revision,
    ) -> Result<(), ChangeError> {
        match (Key::of(key), value) {
            (Key::Resource(kind, _), Some(value)) => {
                let kept = kept::read_resource(kind, key, value)?;
                let name = kept.spec.name().clone();
                let meta = Meta {
                    id: kept.id.into(),
                    revision,
                    created_at: kept.created_at,
                    updated_at: kept.updated_at,
                    bytes: value.len(),
                };
                let old = Arc::make_mut(&mut self.metas).insert((kind, name), meta);
                self.bytes = self.bytes + value.len() - old.map_or(0, |old| old.bytes);
                Arc::make_mut(&mut self.model).put(kept.spec);
            }
            (Key::Resource(kind, name), None) => {
                if let Ok(name) = name.parse() {
                    Arc::make_mut(&mut self.model).remove(kind, &name);
                    let old = Arc::make_mut(&mut self.metas).remove(&(kind, name));
                    self.bytes -= old.map_or(0, |old| old.bytes);
                }
            }
            (Key::Credential(identity, serial), value) => {
                let new = value.map(|value| kept::read_credential(key, value)).transpose()?;
                if let Ok(name) = identity.parse() {
                    let all = &mut Arc::make_mut(&mut self.model).credentials;
                    replace(all, name, |credential| credential.serial == serial, new);
                }
            }
            (Key::Secret(token, id), value) => {
                let new = value.map(|value| kept::read_secret(key, value)).transpose()?;
                if let Ok(name) = token.parse() {
                    let all = &mut Arc::make_mut(&mut self.model).secrets;
                    replace(all, name, |secret| secret.id == id, new);
                }
            }
            (Key::Enrollment(jti), Some(value)) => {
                let enrollment = kept::read(key, value)?;
                Arc::make_mut(&mut self.enrollments).insert(jti.to_owned(), enrollment);
            }
            (Key::Enrollment(jti), None) => {
                Arc::make_mut(&mut self.enrollments).remove(jti);
            }
            (Key::Turn, Some(value)) => self.turn = Some((revision, kept::read(key, value)?)),
            (Key::Turn, None) => self.turn = None,
            (Key::Other, _) => {}
        }
        self.revision = self.revision.max(revision);
        Ok(())
    }
}

/// Puts an element of somebody's list into the place of the one that it replaces; a list that is empty goes.
fn replace<T: Clone>(
    lists: &mut BTreeMap<Name, Arc<Vec<T>>>,
    name: Name,
    same: impl Fn(&T) -> bool,
    new: Option<T>,
) {
    let list = Arc::make_mut(lists.entry(name.clone()).or_default());
    list.retain(|element| !same(element));
    list.extend(new);
    if list.is_empty() {
        lists.remove(&name);
    }
}

impl Model {
    /// The resource of this kind and name.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &Name) -> Option<Resource> {
        fn resource<T: Clone>(
            map: &BTreeMap<Name, Arc<T>>,
            name: &Name,
            make: fn(T) -> Resource,
        ) -> Option<Resource> {
            map.get(name).map(|it| make(T::clone(it)))
        }
        match kind {
            Kind::Identity => resource(&self.identities, name, Resource::Identity),
            Kind::Config => resource(&self.configs, name, Resource::Config),
            Kind::Service => resource(&self.services, name, Resource::Service),
            Kind::ServicePolicy => resource(&self.policies, name, Resource::ServicePolicy),
            Kind::Route => resource(&self.routes, name, Resource::Route),
            Kind::Token => resource(&self.tokens, name, Resource::Token),
        }
    }

    /// Puts a resource into the place of the one with its name.
    pub fn put(&mut self, resource: Resource) {
        /// A map keeps the key that it has; the name is to be shown as it was written last.
        fn put<T>(map: &mut BTreeMap<Name, Arc<T>>, name: &Name, value: T) {
            map.remove(name);
            map.insert(name.clone(), Arc::new(value));
        }
        let name = resource.name().clone();
        match resource {
            Resource::Identity(it) => put(&mut self.identities, &name, it),
            Resource::Config(it) => put(&mut self.configs, &name, it),
            Resource::Service(it) => put(&mut self.services, &name, it),
            Resource::ServicePolicy(it) => put(&mut self.policies, &name, it),
            Resource::Route(it) => put(&mut self.routes, &name, it),
            Resource::Token(it) => put(&mut self.tokens, &name, it),
        }
    }

    /// Takes a resource out.
    pub fn remove(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Identity => drop(self.identities.remove(name)),
            Kind::Config => drop(self.configs.remove(name)),
            Kind::Service => drop(self.services.remove(name)),
            Kind::ServicePolicy => drop(self.policies.remove(name)),
            Kind::Route => drop(self.routes.remove(name)),
            Kind::Token => drop(self.tokens.remove(name)),
        }
    }

    /// The names of all resources of a kind, in order.
    pub fn names(&self, kind: Kind) -> Box<dyn Iterator<Item = &Name> + Send + '_> {
        match kind {
            Kind::Identity => Box::new(self.identities.keys()),
            Kind::Config => Box::new(self.configs.keys()),
            Kind::Service => Box::new(self.services.keys()),
            Kind::ServicePolicy => Box::new(self.policies.keys()),
            Kind::Route => Box::new(self.routes.keys()),
            Kind::Token => Box::new(self.tokens.keys()),
        }
    }
}
