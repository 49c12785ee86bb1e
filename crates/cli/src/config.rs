//! Configuration files into the types the program uses: strict, and with every mistake listed at once.
//!
//! Reading order: [`tree`] (YAML into nodes with positions), [`reader`] (nodes into values, problems collected),
//! [`values`] (how each kind of value is written), [`gateway`] and [`agent`] (one definition per key),
//! [`problem`] (how a mistake is told).

pub(crate) mod agent;
pub(crate) mod env;
pub(crate) mod gateway;
pub(crate) mod problem;
pub(crate) mod reader;
mod shared;
mod tree;
pub(crate) mod values;

use std::path::Path;

use crate::error::CliError;
use reader::{Reader, Setting};

/// A configuration, and every value in it as it would be used.
#[derive(Debug)]
pub(crate) struct Loaded<T> {
    /// The configuration.
    pub(crate) config: T,
    /// Every value, defaults included, secrets redacted.
    pub(crate) settings: Vec<Setting>,
}

/// Turns the root of a file into a configuration; `None` only with problems recorded.
type Read<T> = fn(&mut Reader<'_>, &tree::Node) -> Option<T>;

/// Reads a file.
///
/// # Errors
/// The file cannot be read, or has problems: all of them.
pub(crate) fn load<T>(path: &Path, read: Read<T>) -> Result<Loaded<T>, CliError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|cause| {
        CliError::usage(format!("cannot read {name}"))
            .caused_by(&cause)
            .next("check the path, and that this user may read it")
    })?;
    parse(&name, path.parent().unwrap_or_else(|| Path::new("")), &text, read)
}

fn parse<T>(name: &str, directory: &Path, text: &str, read: Read<T>) -> Result<Loaded<T>, CliError> {
    let mut reader = Reader::new(name, directory);
    let config = match tree::parse(text, &mut |at, what, hint| reader.problem(at, what, hint)) {
        Some(root) => read(&mut reader, &root),
        None => None,
    };
    let (problems, settings) = reader.finish();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, settings }),
        Some(_) | None => Err(CliError::config(name, problems)),
    }
}

#[cfg(test)]
mod tests;
