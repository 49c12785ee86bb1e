//! What the roles of one policy select, read as they are written. Decisions use the compiled sets; this is for
//! saying why.

use adit_proto::name::Name;

use crate::model::{Role, Semantic};

/// What roles are held against: an identity or a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entity<'a> {
    pub(crate) name: &'a Name,
    pub(crate) attributes: &'a [Name],
    /// `#all` does not mean it.
    pub(crate) is_public: bool,
    /// Whether its name in a role means it, and not something else of the same name.
    pub(crate) is_named: bool,
}

/// The attributes among roles.
pub(crate) fn attributes(roles: &[Role]) -> impl Iterator<Item = &Name> {
    roles.iter().filter_map(|role| match role {
        Role::Attribute(name) => Some(name),
        Role::All | Role::Entity(_) => None,
    })
}

impl Entity<'_> {
    /// Whether roles select it.
    pub(crate) fn is_selected(&self, semantic: Semantic, roles: &[Role]) -> bool {
        let is_meant = roles.iter().any(|role| match role {
            Role::All => !self.is_public,
            Role::Entity(name) => self.is_named && name == self.name,
            Role::Attribute(_) => false,
        });
        let mut wanted = attributes(roles).peekable();
        let by_attributes = wanted.peek().is_some()
            && match semantic {
                Semantic::AnyOf => wanted.any(|attribute| self.has(attribute)),
                Semantic::AllOf => wanted.all(|attribute| self.has(attribute)),
            };
        is_meant || by_attributes
    }

    fn has(&self, attribute: &Name) -> bool {
        self.attributes.contains(attribute)
    }

    /// The attributes it would need to be selected: one where one of several is enough. None where attributes select
    /// nothing.
    pub(crate) fn lacking<'a>(&self, semantic: Semantic, roles: &'a [Role]) -> Vec<&'a Name> {
        let mut lacking: Vec<&Name> = attributes(roles).filter(|attribute| !self.has(attribute)).collect();
        lacking.sort_unstable();
        lacking.dedup();
        if semantic == Semantic::AnyOf {
            lacking.truncate(1);
        }
        lacking
    }

    /// Why roles do not select it: "has no attribute #x; it has #y".
    pub(crate) fn why_not(&self, semantic: Semantic, roles: &[Role]) -> String {
        let name = if self.is_public { "the public" } else { self.name.as_str() };
        let wanted: Vec<String> =
            attributes(roles).filter(|attribute| !self.has(attribute)).map(|it| format!("#{it}")).collect();
        let named: Vec<String> = roles
            .iter()
            .filter(|role| matches!(role, Role::Entity(_)))
            .take(3)
            .map(ToString::to_string)
            .collect();
        let has = if self.attributes.is_empty() {
            "it has none".to_owned()
        } else {
            let has: Vec<String> = self.attributes.iter().map(|it| format!("#{it}")).collect();
            format!("it has {}", has.join(", "))
        };
        if self.is_public && roles.contains(&Role::All) {
            "#all does not mean the public, only @public does".to_owned()
        } else if self.is_public && !wanted.is_empty() {
            "the public has no attributes; only @public means it".to_owned()
        } else if wanted.is_empty() {
            format!("it is for {}, not for {name}", named.join(", "))
        } else if wanted.len() == 1 {
            format!("{name} has no attribute {}; {has}", wanted.concat())
        } else if semantic == Semantic::AllOf {
            format!("{name} lacks the attributes {}; {has}", wanted.join(", "))
        } else {
            format!("{name} has none of the attributes {}; {has}", wanted.join(", "))
        }
    }
}
