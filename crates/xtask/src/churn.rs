//! `chaos` and `soak`: the real binary on a bad network, for longer than an ordinary test run has time for.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{cargo, run};

/// How long `chaos` takes the network away.
const GONE: Duration = Duration::from_secs(300);
/// How long `soak` runs.
const MINUTES: u64 = 60;

/// `chaos`: the tests of `tests/process/chaos.rs` with a network that is gone for five minutes.
pub(crate) fn chaos(_args: &[String]) -> Result<()> {
    // One after the other, and by the clock: here it counts how long a recovery takes.
    process_tests("chaos::", &[("ADIT_CHAOS_GONE", GONE.as_secs()), ("ADIT_TIMED", 1)])
}

/// `soak [--minutes N]`: an hour of churn, unless told otherwise.
pub(crate) fn soak(args: &[String]) -> Result<()> {
    process_tests("soak::", &[("ADIT_SOAK_SECONDS", 60 * minutes(args)?)])
}

fn process_tests(filter: &str, told: &[(&str, u64)]) -> Result<()> {
    run(&mut cargo(&["build", "--workspace", "--bins", "--tests"]))?;
    run(cargo(&["test", "--workspace", "--test", "process", filter, "--", "--nocapture", "--test-threads=1"])
        .envs(told.iter().map(|(name, value)| (name, value.to_string()))))
}

fn minutes(args: &[String]) -> Result<u64> {
    match args {
        [] => Ok(MINUTES),
        [name, value] if name == "--minutes" => {
            value.parse().with_context(|| format!("`{value}` is not a number of minutes"))
        }
        _ => bail!("usage: cargo xtask soak [--minutes N]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_lasts_an_hour_unless_told_otherwise() {
        let told = |args: &[&str]| minutes(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        assert_eq!(told(&[]).unwrap(), 60);
        assert_eq!(told(&["--minutes", "2"]).unwrap(), 2);
        assert!(told(&["--minutes"]).is_err() && told(&["--minutes", "x"]).is_err() && told(&["2"]).is_err());
    }
}
