//! `tidy`: the house rules that no compiler and no lint knows. Every finding says where, what, why, and what
//! to do; an exception stands beside the code with its reason: `tidy: allow(rule): reason`.

mod manifests;
mod prose;
mod rust;
mod source;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::edges;
use crate::process::{find, program, read, root};
use source::Source;

/// Something that breaks a house rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1; 1 for what concerns a whole file.
    line: usize,
    what: String,
    /// The reason for the rule, and the way out.
    why: &'static str,
    fix: &'static str,
    weight: Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Warn,
    Refuse,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>, why: &'static str, fix: &'static str) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), why, fix, weight: Weight::Refuse }
    }

    fn warn(self) -> Self {
        Self { weight: Weight::Warn, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.weight == Weight::Warn { "warning: " } else { "" };
        write!(f, "{}:{}: {weight}{}; {}; {}", self.path, self.line, self.what, self.why, self.fix)
    }
}

/// Checks every file of the workspace.
pub(crate) fn run(_args: &[String]) -> Result<()> {
    let files = files()?;
    ensure!(files.iter().any(|path| path.ends_with(".rs")), "no Rust file was found");
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    let foreign = rust::foreign_crates(&contents("Cargo.toml")?);
    for path in &files {
        // What is not text is none of tidy's business.
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        findings.extend(text::check(path, &text));
        if path.ends_with(".rs") {
            let source = Source::new(path, &text);
            findings.extend(rust::check(&source, &foreign));
            sources.push(source);
        } else if path.ends_with(".md") {
            findings.extend(prose::check(path, &text, |target| root().join(target).exists()));
        } else if path.ends_with("/Cargo.toml") && !path.starts_with("fuzz/") {
            findings.extend(manifests::check(path, &text));
        }
    }
    for disagreement in edges::check()? {
        let why = "the edges keep decisions away from sockets and the data plane away from the store";
        findings.push(Finding::new(
            "crates/xtask/src/edges.rs",
            1,
            disagreement,
            why,
            "ARCHITECTURE.md says what each crate is for",
        ));
    }
    report(&findings, &sources, files.len())
}

fn report(findings: &[Finding], sources: &[Source], files: usize) -> Result<()> {
    for finding in findings {
        println!("{finding}");
    }
    let lines: usize = sources.iter().map(|source| source.is_test.len()).sum();
    let tests = sources.iter().flat_map(|source| &source.is_test).filter(|is_test| **is_test).count();
    println!(
        "tidy: {files} files; {lines} lines of Rust, {tests} of them tests ({} %; the house aims at 40 or more)",
        (tests * 100).checked_div(lines).unwrap_or(0)
    );
    let refused = findings.iter().filter(|finding| finding.weight == Weight::Refuse).count();
    if refused > 0 {
        bail!("{refused} findings, {} warnings", findings.len() - refused);
    }
    Ok(())
}

fn contents(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// The files of the workspace, from its folder: what git knows or would take in, or without git all there is.
fn files() -> Result<Vec<String>> {
    let mut files = Vec::new();
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    if root().join(".git").exists() && find("git").is_some() {
        let text = read(program("git").args(list))?;
        files.extend(text.lines().map(str::to_owned).filter(|path| root().join(path).is_file()));
    } else {
        walk(root(), &mut files)?;
    }
    files.retain(|path| !path.starts_with("fuzz/corpus/"));
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !matches!(entry.file_name().to_str(), Some("target" | ".git" | "node_modules")) {
                walk(&path, files)?;
            }
        } else if let Ok(inside) = path.strip_prefix(root()) {
            files.push(inside.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_what_why_and_what_to_do() {
        let finding = Finding::new("a.rs", 3, "what", "why", "do");
        assert_eq!(finding.to_string(), "a.rs:3: what; why; do");
        assert_eq!(finding.warn().to_string(), "a.rs:3: warning: what; why; do");
    }

    #[test]
    fn only_warnings_let_tidy_pass() {
        let finding = || Finding::new("a.rs", 3, "what", "why", "do");
        assert!(report(&[finding().warn()], &[], 1).is_ok());
        assert!(report(&[finding()], &[], 1).is_err());
    }

    #[test]
    fn git_and_the_walk_both_find_the_sources() {
        let mut walked = Vec::new();
        walk(&root().join("crates/xtask"), &mut walked).unwrap();
        let listed = files().unwrap();
        for path in ["crates/xtask/src/main.rs", "crates/xtask/Cargo.toml"] {
            assert!(walked.iter().any(|file| file == path), "{path} was not walked to");
            assert!(listed.iter().any(|file| file == path), "{path} was not listed");
        }
    }
}
