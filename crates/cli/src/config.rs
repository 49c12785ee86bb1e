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
mod state;
pub(crate) mod tree;
pub(crate) mod values;

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::control_client::hex;
use crate::error::CliError;
use reader::{Reader, Setting};

/// A configuration, and every value in it as it would be used.
#[derive(Debug)]
pub(crate) struct Loaded<T> {
    /// The configuration.
    pub(crate) config: T,
    /// Every value, defaults included, secrets redacted.
    pub(crate) settings: Vec<Setting>,
    /// The file itself and every other file that it names and whose content matters.
    pub(crate) files: Vec<PathBuf>,
    /// Tells this file's text from others: the first half of its SHA-256, in hexadecimal digits.
    pub(crate) hash: String,
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
    let mut loaded = parse(&name, path.parent().unwrap_or_else(|| Path::new("")), &text, read)?;
    loaded.files.insert(0, path.to_owned());
    Ok(loaded)
}

fn parse<T>(name: &str, directory: &Path, text: &str, read: Read<T>) -> Result<Loaded<T>, CliError> {
    let mut reader = Reader::new(name, directory);
    let config = match tree::parse(text, &mut |at, what, hint| reader.problem(at, what, hint)) {
        Some(root) => read(&mut reader, &root),
        None => None,
    };
    let (problems, settings, files) = reader.finish();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, settings, files, hash: hash(text) }),
        Some(_) | None => Err(CliError::config(name, problems)),
    }
}

fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    hex(&digest.as_ref()[..16])
}

#[cfg(test)]
mod tests;
