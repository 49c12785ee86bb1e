//! `setup`: installs what the checks and tests need and this machine lacks. Quick when all is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process::{self, find, program, read, target_dir};

/// Programs that tests or the benchmark start, and the Debian package each comes from.
const PROGRAMS: &[(&str, &str)] = &[
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
    ("nghttp", "nghttp2-client"),
    ("h2load", "nghttp2-client"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// WebSocket peers that we did not write, for the tests of upgrades.
const WEBSOCKETS: &str = "17.4";
/// Asks the admin interface for everything that its description allows, and for what it does not.
const SCHEMATHESIS: &str = "4.32.5";
const WS: &str = "8.23.0";

/// The folder for what is installed for tests only.
fn tools() -> PathBuf {
    target_dir().join("test-tools")
}

/// Installs what is missing.
pub(crate) fn run(_args: &[String]) -> Result<()> {
    system_packages()?;
    python(&tools().join("venv"))?;
    node(&tools().join("node"))
}

fn system_packages() -> Result<()> {
    let packages = missing(|name| find(name).is_some(), has_venv());
    if packages.is_empty() {
        println!("setup: every program is there");
        return Ok(());
    }
    let list = packages.join(" ");
    ensure!(
        find("apt-get").is_some(),
        "these Debian packages, or what your system calls them, are missing: {list}"
    );
    let is_root = read(program("id").arg("-u"))?.trim() == "0";
    ensure!(is_root, "these packages are missing; as root: apt-get install --no-install-recommends {list}");
    process::run(program("apt-get").args(["update", "-q"]))?;
    process::run(
        program("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(&packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Tests start their own instances; a runlevel without services keeps the packages from starting theirs.
            .env("RUNLEVEL", "1"),
    )?;
    let still = missing(|name| find(name).is_some(), has_venv());
    ensure!(
        still.is_empty(),
        "apt-get installed the packages, yet programs of these are missing: {}",
        still.join(" ")
    );
    Ok(())
}

/// The Debian packages of the programs that are not there.
fn missing(is_there: impl Fn(&str) -> bool, has_venv: bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> = Vec::new();
    for (name, package) in PROGRAMS {
        if !is_there(name) && !packages.contains(package) {
            packages.push(package);
        }
    }
    if !has_venv {
        packages.push("python3-venv");
    }
    packages
}

/// Debian splits the modules that make a virtual environment off into a package of their own.
fn has_venv() -> bool {
    read(program("python3").args(["-c", "import venv, ensurepip"])).is_ok()
}

fn python(venv: &Path) -> Result<()> {
    let python = venv.join("bin/python");
    let versions = "from importlib.metadata import version as v; print(v('websockets'), v('schemathesis'))";
    let wanted = format!("{WEBSOCKETS} {SCHEMATHESIS}");
    if read(program(&python).args(["-c", versions])).is_ok_and(|found| found.trim() == wanted) {
        println!("setup: python websockets {WEBSOCKETS} and schemathesis {SCHEMATHESIS} are there");
        return Ok(());
    }
    process::run(program("python3").args(["-m", "venv", "--clear"]).arg(venv))?;
    let packages = [format!("websockets=={WEBSOCKETS}"), format!("schemathesis=={SCHEMATHESIS}")];
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    process::run(program(&python).args(install).args(&packages))
}

fn node(folder: &Path) -> Result<()> {
    let manifest = folder.join("node_modules/ws/package.json");
    if installed_version(&manifest).is_some_and(|version| version == WS) {
        println!("setup: node ws {WS} is there");
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let package = format!("ws@{WS}");
    process::run(
        program("npm")
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error", &package, "--prefix"])
            .arg(folder),
    )?;
    if installed_version(&manifest).is_none() {
        bail!("npm ended well, yet {} is not there", manifest.display());
    }
    Ok(())
}

fn installed_version(manifest: &Path) -> Option<String> {
    let manifest: Value = serde_json::from_str(&fs::read_to_string(manifest).ok()?).ok()?;
    Some(manifest.get("version")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_of_missing_programs_are_installed_and_each_once() {
        assert!(missing(|_| true, true).is_empty());
        assert_eq!(missing(|name| !matches!(name, "prometheus" | "promtool"), true), ["prometheus"]);
        assert_eq!(missing(|name| name != "wrk", false), ["wrk", "python3-venv"]);
    }
}
