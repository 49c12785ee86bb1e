//! `deny`: licences, banned crates, duplicates and sources, as deny.toml says.
//!
//! cargo-deny does it where it is installed. Elsewhere this reads the same file and the same facts from
//! `cargo metadata`, so that the check is never left out.

mod policy;
mod spdx;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::{self, cargo, find, program, read, root};
use policy::Policy;

/// The command.
pub(crate) fn run(_args: &[String]) -> Result<()> {
    if find("cargo-deny").is_some() {
        let checks = ["check", "licenses", "bans", "sources"];
        return process::run(program("cargo-deny").args(["--workspace", "--offline"]).args(checks));
    }
    println!(
        "deny: cargo-deny is not installed; reading deny.toml ourselves (without the text of licence files)"
    );
    let text = std::fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let packages = resolved_packages()?;
    let found = check(&Policy::parse(&text)?, &packages);
    for finding in &found {
        println!("deny: {finding}");
    }
    ensure!(found.is_empty(), "{} findings; the rules and their reasons are in deny.toml", found.len());
    println!("deny: {} packages of others, all allowed", packages.len());
    Ok(())
}

/// A package of somebody else that is compiled for this machine.
#[derive(Debug, Clone)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: String,
}

/// What cargo compiles on this platform, for tests included.
///
/// `cargo tree` knows what that is; `cargo metadata` lists more, such as optional crates that no enabled
/// feature asks for, but knows the licences and sources.
fn resolved_packages() -> Result<Vec<Package>> {
    let tree =
        read(&mut cargo(&["tree", "--workspace", "--edges", "all", "--prefix", "none", "--format", "{p}"]))?;
    let compiled: BTreeSet<(&str, &str)> = tree.lines().filter_map(name_and_version).collect();
    let version = read(program("rustc").arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not say its host")?;
    let text = read(&mut cargo(&["metadata", "--format-version", "1", "--filter-platform", host]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let mut packages = packages(&metadata).context("cargo metadata is not as expected")?;
    packages.retain(|package| compiled.contains(&(package.name.as_str(), package.version.as_str())));
    ensure!(!packages.is_empty(), "cargo metadata names no package of others");
    Ok(packages)
}

/// Of `name v1.2.3 (proc-macro)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}

fn packages(metadata: &Value) -> Option<Vec<Package>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut packages = Vec::new();
    for package in metadata.get("packages")?.as_array()? {
        // Our own packages have no source.
        let Some(source) = package.get("source").and_then(text) else { continue };
        packages.push(Package {
            name: text(package.get("name")?)?,
            version: text(package.get("version")?)?,
            license: package.get("license").and_then(text),
            source,
        });
    }
    Some(packages)
}

/// Every breach of the policy, as a sentence.
fn check(policy: &Policy, packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Package { name, version, license, source } in packages {
        versions.entry(name).or_default().insert(version);
        match license.as_deref() {
            None => found.push(format!("{name} {version} names no licence")),
            Some(license) => match spdx::is_allowed(license, &policy.licenses) {
                Ok(true) => {}
                Ok(false) => {
                    found.push(format!("{name} {version} has the licence `{license}`, which is not allowed"))
                }
                Err(error) => found.push(format!("{name} {version} has the licence `{license}`: {error}")),
            },
        }
        if policy.banned.contains(name) {
            found.push(format!("{name} {version} is banned; `cargo tree -i {name}` says who brings it"));
        }
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        if !policy.registries.iter().any(|allowed| allowed == registry) {
            found.push(format!("{name} {version} comes from {source}, which is not allowed"));
        }
    }
    for (name, versions) in versions {
        let kept: Vec<&str> = versions.into_iter().filter(|version| !policy.skips(name, version)).collect();
        if kept.len() > 1 {
            found.push(format!(
                "{name} is there as {}; update who holds the older one, or skip it in deny.toml with the reason",
                kept.join(" and ")
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "https://registry.example/index";

    fn policy() -> Policy {
        Policy::parse(&format!(
            "[licenses]\nallow = [\"MIT\"]\n[bans]\ndeny = [{{ crate = \"ring\" }}]\nskip = [{{ crate = \"syn@2\" }}]\n\
             [sources]\nallow-registry = [\"{INDEX}\"]\n"
        ))
        .unwrap()
    }

    fn package(name: &str, version: &str, license: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            license: license.map(str::to_owned),
            source: format!("registry+{INDEX}"),
        }
    }

    #[test]
    fn what_the_policy_allows_passes() {
        let packages =
            [package("a", "1.0.0", Some("MIT OR GPL-3.0")), package("syn", "2.0.1", Some("MIT")), {
                package("syn", "3.0.1", Some("MIT"))
            }];
        assert_eq!(check(&policy(), &packages), Vec::<String>::new());
    }

    #[test]
    fn each_breach_is_named_with_the_package() {
        let mut foreign = package("fork", "0.1.0", Some("MIT"));
        foreign.source = "git+https://git.example/fork".into();
        let packages = [
            package("gpl", "1.0.0", Some("GPL-3.0")),
            package("bare", "1.0.0", None),
            package("ring", "0.17.0", Some("MIT")),
            foreign,
            package("twice", "1.0.0", Some("MIT")),
            package("twice", "2.0.0", Some("MIT")),
        ];
        let found = check(&policy(), &packages);
        assert_eq!(found.len(), 5, "{found:#?}");
        for (finding, name) in found.iter().zip(["gpl", "bare", "ring", "fork", "twice"]) {
            assert!(finding.starts_with(name), "{finding}");
        }
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_no_policy() {
        assert!(Policy::parse("").is_err());
        let real = Policy::parse(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap();
        assert!(real.banned.iter().any(|name| name == "openssl"));
    }
}
