//! The commands that are cargo's own checks, each with the flags that CI means.

use anyhow::Result;

use crate::process::{cargo, run};

/// `fmt`: the sources are formatted.
pub(crate) fn fmt(_args: &[String]) -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

/// `clippy`: no warning anywhere, tests included.
pub(crate) fn clippy(_args: &[String]) -> Result<()> {
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// `doc`: rustdoc of our own crates has no warning, so that no link in it is dead.
pub(crate) fn doc(_args: &[String]) -> Result<()> {
    run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// `test`: every test of the workspace in one run; arguments choose tests by name.
pub(crate) fn test(args: &[String]) -> Result<()> {
    build_for_tests()?;
    run(cargo(&["test", "--workspace"]).args(args))
}

/// `e2e`: only the tests that start the real binary.
pub(crate) fn e2e(args: &[String]) -> Result<()> {
    build_for_tests()?;
    // Of the whole workspace rather than of one package: the same features, so nothing compiles twice.
    run(cargo(&["test", "--workspace", "--test", "process"]).args(args))
}

/// The tests of real processes need the binary, and cargo builds a package's binary only for its own tests.
fn build_for_tests() -> Result<()> {
    run(&mut cargo(&["build", "--workspace", "--bins", "--tests"]))
}
