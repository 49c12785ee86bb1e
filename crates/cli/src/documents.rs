//! Files with resources, as `adit apply` reads them: YAML and JSON, one document or many, directories as a whole.
//!
//! A document is one resource (`kind:` and its fields), a list of them, or `resources:` with such a list. `tests:` may
//! stand beside. Every problem of every file is found in one go.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use adit_control::expectation::Expectation;
use adit_control::model::{Kind, Model, PUBLIC, Resource, Role};
use adit_proto::name::Name;

use crate::commands::resources::config;
use crate::config::problem::{Position, Problem};
use crate::config::tree;
use crate::error::CliError;
use read::Reading;

mod read;

/// Deeper than any directory of configuration; ends loops of links.
const MAX_DEPTH: usize = 32;

/// Something and where it is written.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    /// The file.
    pub(crate) file: String,
    /// Where in it.
    pub(crate) at: Position,
    /// The thing.
    pub(crate) it: T,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    /// The resources, in the order of files and lines.
    pub(crate) resources: Vec<Placed<Resource>>,
    /// The tests, likewise.
    pub(crate) tests: Vec<Placed<Expectation>>,
}

/// Reads files and directories; `-` is standard input.
///
/// # Errors
/// Something cannot be read, or has problems: all of them.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Documents, CliError> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        collect(path, 0, &mut files)?;
        if files.len() == before {
            return Err(CliError::usage(format!("{} has no file to read", path.display()))
                .because("files end in .yaml, .yml or .json")
                .next("check the path, or name the file itself"));
        }
    }
    let (mut documents, mut problems) = (Documents::default(), Vec::new());
    for file in &files {
        let name = file.display().to_string();
        parse(&name, &config::read(file)?, &mut documents, &mut problems);
    }
    duplicates(&documents.resources, &mut problems);
    if problems.is_empty() { Ok(documents) } else { Err(told(problems)) }
}

fn told(mut problems: Vec<Problem>) -> CliError {
    problems.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
    CliError::files(problems)
}

/// The files below a path in the order of their names.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let unread = |cause: std::io::Error| {
        CliError::usage(format!("cannot read {}", path.display()))
            .caused_by(&cause)
            .next("check the path, and that this user may read it")
    };
    if depth > MAX_DEPTH {
        return Err(
            CliError::usage(format!("{} is too deep", path.display())).because("links may go in circles")
        );
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unread)? {
        entries.push(entry.map_err(unread)?.path());
    }
    entries.sort();
    for entry in entries {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_document = entry
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"));
        if !name.starts_with('.') && (entry.is_dir() || is_document) {
            collect(&entry, depth + 1, files)?;
        }
    }
    Ok(())
}

/// Reads the documents of one file.
fn parse(file: &str, text: &str, documents: &mut Documents, problems: &mut Vec<Problem>) {
    let mut reading = Reading { file, problems, documents };
    let nodes = tree::parse_all(text, &mut |at, what, hint| reading.problem(at, what, hint));
    for node in nodes.iter().flatten() {
        reading.document(node);
    }
}

/// Refuses what is written twice, in one file or in two.
fn duplicates(resources: &[Placed<Resource>], problems: &mut Vec<Problem>) {
    let mut first: HashMap<(Kind, &Name), &Placed<Resource>> = HashMap::new();
    for placed in resources {
        let key = (placed.it.kind(), placed.it.name());
        match first.get(&key) {
            Some(Placed { file, at, .. }) => problems.push(Problem {
                file: placed.file.clone(),
                at: placed.at,
                what: format!("{} {} is written twice", key.0, key.1),
                hint: format!("the first is in {file}:{}; keep one", at.line),
            }),
            None => {
                first.insert(key, placed);
            }
        }
    }
}

impl Documents {
    /// The resources alone.
    pub(crate) fn resources(&self) -> Vec<Resource> {
        self.resources.iter().map(|placed| placed.it.clone()).collect()
    }

    /// The resources as decisions are made from them, if everything they refer to is there. Identities that policies
    /// name need not be: a token of the gateway's own file may have the name (see [`Documents::strangers`]).
    ///
    /// # Errors
    /// Everything that is referred to and not written.
    pub(crate) fn model(&self) -> Result<Model, CliError> {
        let mut model = Model::default();
        for placed in &self.resources {
            model.put(placed.it.clone());
        }
        let mut problems = Vec::new();
        for Placed { file, at, it } in &self.resources {
            for (kinds, name) in references(it) {
                let is_there = kinds.iter().any(|kind| model.get(*kind, name).is_some());
                if !is_there && !kinds.contains(&Kind::Identity) {
                    problems.push(Problem {
                        file: file.clone(),
                        at: *at,
                        what: format!("{} {} refers to {} {name}", it.kind(), it.name(), kinds[0]),
                        hint: "which is in none of the files".to_owned(),
                    });
                }
            }
        }
        if problems.is_empty() { Ok(model) } else { Err(told(problems)) }
    }

    /// Whom policies name, and no file has. The identity of public listeners is nowhere written.
    pub(crate) fn strangers(&self, model: &Model) -> BTreeSet<&Name> {
        let named = self.resources.iter().flat_map(|placed| references(&placed.it));
        let named = named.filter(|(kinds, _)| kinds.contains(&Kind::Identity)).map(|(_, name)| name);
        named
            .filter(|name| {
                **name != *PUBLIC
                    && !model.identities.contains_key(*name)
                    && !model.tokens.contains_key(*name)
            })
            .collect()
    }

    /// Refuses tests about what is not written: one that expects a denial would hold for a name with a mistake in it.
    ///
    /// # Errors
    /// Everything that is tested and not written.
    pub(crate) fn tests_of(&self, model: &Model) -> Result<(), CliError> {
        let mut problems = Vec::new();
        for Placed { file, at, it } in &self.tests {
            let is_known = |name: &Name| {
                *name == *PUBLIC || model.identities.contains_key(name) || model.tokens.contains_key(name)
            };
            let unknown = [
                ("identity", &it.identity, is_known(&it.identity)),
                ("service", &it.service, model.services.contains_key(&it.service)),
            ];
            problems.extend(unknown.into_iter().filter(|(.., is_known)| !is_known).map(|(kind, name, _)| {
                Problem {
                    file: file.clone(),
                    at: *at,
                    what: format!("the test is about {kind} {name}"),
                    hint: "which is in none of the files".to_owned(),
                }
            }));
        }
        if problems.is_empty() { Ok(()) } else { Err(told(problems)) }
    }
}

/// What a resource refers to by name, and which kinds it may be of.
fn references(resource: &Resource) -> Vec<(&'static [Kind], &Name)> {
    fn named<'r>(
        roles: &'r [Role],
        kinds: &'static [Kind],
    ) -> impl Iterator<Item = (&'static [Kind], &'r Name)> {
        roles.iter().filter_map(move |role| match role {
            Role::Entity(name) => Some((kinds, name)),
            Role::All | Role::Attribute(_) => None,
        })
    }
    match resource {
        Resource::Service(service) => {
            service.configs.iter().map(|name| (&[Kind::Config][..], name)).collect()
        }
        Resource::Route(route) => vec![(&[Kind::Service], &route.service)],
        Resource::ServicePolicy(policy) => {
            let services = named(&policy.service_roles, &[Kind::Service]);
            let identities = named(&policy.identity_roles, &[Kind::Identity, Kind::Token]);
            services.chain(identities).collect()
        }
        Resource::Identity(_) | Resource::Config(_) | Resource::Token(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
