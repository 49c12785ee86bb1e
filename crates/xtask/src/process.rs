//! Runs other programs: prints each command line, gives none of them our standard input, and knows where
//! the workspace is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("crates/xtask lies two levels below the workspace")
}

/// Where cargo builds, whatever CARGO_TARGET_DIR says.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A program that will run in the workspace's folder.
///
/// `cargo xtask` itself runs under cargo, which describes the package xtask in the environment. Passed on,
/// those variables make build scripts believe that something changed, and cargo builds them again.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO" {
            command.env_remove(&name);
        }
    }
    command
}

/// `cargo` with these arguments.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = program("cargo");
    command.args(args);
    command
}

/// Prints the command line and runs it with our output.
///
/// # Errors
/// When it cannot start or does not end with success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("`{line}` did not start"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs it and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot start or does not end with success; the error carries what it wrote to standard error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.output().with_context(|| format!("`{line}` did not start"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of `{line}` is not UTF-8"))
}

/// The command as it would be typed, with the workspace's folder left out.
pub(crate) fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line += &arg.to_string_lossy();
    }
    line.replace(&format!("{}/", root().display()), "")
}

/// Where a program is: on the PATH, or in a folder for system programs that a user's PATH often lacks.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Builds the binaries of the workspace in the development profile and returns the path of `adit`.
///
/// The whole workspace, not only the package `adit`: cargo then resolves nearly the same features as
/// `cargo test --workspace` does and compiles the dependencies once.
///
/// # Errors
/// When it does not compile.
pub(crate) fn build_adit() -> Result<PathBuf> {
    run(&mut cargo(&["build", "--workspace", "--bins"]))?;
    Ok(target_dir().join("debug/adit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_where_the_workspace_is() {
        assert!(root().join("Cargo.lock").is_file());
        assert!(root().join("crates/xtask/Cargo.toml").is_file());
    }

    #[test]
    fn a_failing_program_is_an_error_that_says_what_it_wrote() {
        let error = read(program("sh").args(["-c", "echo no good >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("no good") && error.contains('3'), "{error}");
        assert!(run(&mut program("false")).is_err());
        assert!(read(&mut program("no-such-program-anywhere")).is_err());
    }
}
