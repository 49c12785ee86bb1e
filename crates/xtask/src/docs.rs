//! `docs`: the reference pages are written by the binary they describe; `--check` refuses a page that
//! somebody edited by hand or forgot to write anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{self, build_adit, program, root, target_dir};

/// The one page in docs/reference that people write: an introduction to the others.
const WRITTEN_BY_HAND: &str = "README.md";

/// Writes docs/reference, or with `--check` compares it with what would be written.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let committed = root().join("docs/reference");
    match args {
        [] => generate(&build_adit()?, &committed),
        [flag] if flag == "--check" => check(&committed),
        _ => bail!("usage: cargo xtask docs [--check]"),
    }
}

fn check(committed: &Path) -> Result<()> {
    let folder = target_dir().join("docs-reference");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot empty the folder for generated pages")?;
    }
    generate(&build_adit()?, &folder)?;
    let fresh = pages(&folder)?;
    ensure!(!fresh.is_empty(), "`adit reference` wrote no page");
    let found = differences(&fresh, &pages(committed)?);
    if !found.is_empty() {
        bail!("docs/reference is not what the binary says; run `cargo xtask docs`\n{}", found.join("\n"));
    }
    println!("docs/reference: {} pages are what the binary says", fresh.len());
    Ok(())
}

fn generate(adit: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    process::run(program(adit).args(["reference", "--out"]).arg(folder))
}

type Pages = BTreeMap<String, String>;

fn pages(folder: &Path) -> Result<Pages> {
    let mut pages = Pages::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != WRITTEN_BY_HAND {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            pages.insert(name, text);
        }
    }
    Ok(pages)
}

fn differences(fresh: &Pages, committed: &Pages) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in fresh {
        match committed.get(name) {
            None => found.push(format!("docs/reference/{name}: missing")),
            Some(old) if old != text => {
                let same = old.lines().zip(text.lines()).take_while(|(old, new)| old == new).count();
                let line = |page: &str| page.lines().nth(same).unwrap_or("(the page ends)").to_owned();
                found.push(format!(
                    "docs/reference/{name}:{}: committed: {}\n  the binary says: {}",
                    same + 1,
                    line(old),
                    line(text)
                ));
            }
            Some(_) => {}
        }
    }
    for name in committed.keys().filter(|name| !fresh.contains_key(*name)) {
        found.push(format!("docs/reference/{name}: the binary no longer writes this page; delete it"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(pages: &[(&str, &str)]) -> Pages {
        pages.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn equal_pages_differ_in_nothing() {
        assert!(differences(&pages(&[("cli.md", "a\n")]), &pages(&[("cli.md", "a\n")])).is_empty());
    }

    #[test]
    fn a_changed_a_missing_and_a_left_over_page_are_each_named() {
        let fresh = pages(&[("cli.md", "a\nb\n"), ("metrics.md", "m")]);
        let found = differences(&fresh, &pages(&[("cli.md", "a\nc\n"), ("old.md", "")]));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("docs/reference/cli.md:2: committed: c"), "{found:?}");
        assert!(found[1].contains("metrics.md: missing"), "{found:?}");
        assert!(found[2].contains("old.md"), "{found:?}");
    }
}
