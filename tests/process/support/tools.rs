//! Where the programs are: `adit` beside the tests, the others where `cargo xtask setup` puts them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that this test was built into, as in `target/debug`.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.ancestors().nth(2).unwrap().to_owned()
}

fn target_dir() -> PathBuf {
    profile_dir().parent().unwrap().to_owned()
}

/// The binary under test.
pub(crate) fn adit() -> PathBuf {
    let path = profile_dir().join("adit");
    assert!(
        path.is_file(),
        "{} is not there; build it with `cargo build --workspace --bins`, or run `cargo xtask e2e`",
        path.display()
    );
    path
}

fn existing(path: &Path, name: &str) -> PathBuf {
    assert!(path.exists(), "{name} is not at {}; run `cargo xtask setup`", path.display());
    path.to_owned()
}

/// A program on the PATH, or in a folder for system programs.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A program that the tests need.
pub(crate) fn find(name: &str) -> PathBuf {
    on_path(name).unwrap_or_else(|| panic!("{name} is not installed; run `cargo xtask setup`"))
}

/// A Python with `websockets`, about to run one of the scripts in `peers`.
pub(crate) fn python(script: &str) -> Command {
    let python = existing(&target_dir().join("test-tools/venv/bin/python"), "python with websockets");
    let mut command = command(&python);
    command.arg("-u").arg(peer(script));
    command
}

/// Schemathesis, with its settings from `peers`.
pub(crate) fn schemathesis() -> Command {
    let path = existing(&target_dir().join("test-tools/venv/bin/schemathesis"), "schemathesis");
    let mut command = command(&path);
    command.arg("--config-file").arg(peer("schemathesis.toml"));
    command
}

/// A Node with `ws`, about to run one of the scripts in `peers`.
pub(crate) fn node(script: &str) -> Command {
    let modules = existing(&target_dir().join("test-tools/node/node_modules"), "the node module ws");
    let mut command = command(&find("node"));
    command.env("NODE_PATH", modules).arg(peer(script));
    command
}

fn peer(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("process/peers").join(script)
}

/// A command that takes nothing from the machine that could change what it does: no proxy, no colours, no input.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(std::process::Stdio::null()).env("NO_COLOR", "1").env("LC_ALL", "C");
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// curl, silent except for errors.
pub(crate) fn curl(args: &[&str]) -> Command {
    let mut command = command(&find("curl"));
    command.args(["--disable", "--silent", "--show-error", "--max-time", "60"]).args(args);
    command
}

/// A line typed into a shell in which `adit` is a known command.
pub(crate) fn shell(line: &str) -> Command {
    let mut command = command(&find("bash"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(adit().parent().unwrap().to_owned()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).unwrap()).args(["-euo", "pipefail", "-c", line]);
    command
}
