//! `fuzz-replay` and `fuzz`: the decoders of `adit-proto` against hostile bytes.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, cargo, find, program, root, target_dir};

/// The decoders: one program in fuzz/fuzz_targets and one folder in fuzz/corpus each.
pub(crate) const TARGETS: &[&str] =
    &["frame", "hello", "welcome", "refused", "stream_header", "hostname", "host_pattern", "proxy_header"];

const SECONDS: u32 = 60;

/// `fuzz-replay`: what was ever found, as an ordinary test.
pub(crate) fn replay(_args: &[String]) -> Result<()> {
    process::run(&mut cargo(&["test", "-p", "adit-proto", "--test", "corpus"]))
}

/// `fuzz [target] [seconds]`: all targets for a minute each, unless told otherwise.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (targets, seconds) = parse(args)?;
    if find("rustup").is_none()
        || process::read(program("rustup").args(["run", "nightly", "rustc", "-V"])).is_err()
    {
        bail!("fuzzing needs a nightly compiler: rustup toolchain install nightly");
    }
    if find("cargo-fuzz").is_none() {
        bail!("cargo-fuzz is not installed: cargo install cargo-fuzz --locked (a few minutes)");
    }
    for target in targets {
        let time = format!("-max_total_time={seconds}");
        // libFuzzer adds what it finds to the first folder: what is committed grows only by hand.
        let found = target_dir().join("fuzz-corpus").join(target);
        fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
        // `cargo` would be the toolchain that rust-toolchain.toml names.
        process::run(
            program("rustup")
                .args(["run", "nightly", "cargo", "fuzz", "run", target])
                .arg(found)
                .arg(root().join("fuzz/corpus").join(target))
                .args(["--", &time])
                .env_remove("RUSTUP_TOOLCHAIN"),
        )
        .with_context(|| {
            format!("the input is in fuzz/artifacts/{target}; mend it and keep it in fuzz/corpus/{target}")
        })?;
    }
    Ok(())
}

fn parse(args: &[String]) -> Result<(Vec<&'static str>, u32)> {
    let (target, seconds) = match args {
        [] => (None, None),
        [one] if one.parse::<u32>().is_ok() => (None, Some(one)),
        [one] => (Some(one), None),
        [target, seconds] => (Some(target), Some(seconds)),
        _ => bail!("usage: cargo xtask fuzz [target] [seconds]"),
    };
    let seconds = match seconds {
        Some(text) => text.parse().with_context(|| format!("`{text}` is not a number of seconds"))?,
        None => SECONDS,
    };
    let targets = match target {
        None => TARGETS.to_vec(),
        Some(name) => {
            let Some(known) = TARGETS.iter().find(|known| *known == name) else {
                bail!("`{name}` is not a target; there are: {}", TARGETS.join(", "));
            };
            vec![*known]
        }
    };
    Ok((targets, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<(Vec<&'static str>, u32)> {
        parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_a_target_or_seconds_or_both() {
        assert_eq!(parsed(&[]).unwrap(), (TARGETS.to_vec(), SECONDS));
        assert_eq!(parsed(&["5"]).unwrap(), (TARGETS.to_vec(), 5));
        assert_eq!(parsed(&["hello"]).unwrap(), (vec!["hello"], SECONDS));
        assert_eq!(parsed(&["hello", "7"]).unwrap(), (vec!["hello"], 7));
        assert!(parsed(&["helo"]).is_err());
        assert!(parsed(&["hello", "soon"]).is_err());
    }

    #[test]
    fn every_target_has_a_program_and_every_program_is_a_target() {
        let mut programs: Vec<String> = fs::read_dir(root().join("fuzz/fuzz_targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let mut targets: Vec<String> = TARGETS.iter().map(|name| (*name).to_owned()).collect();
        programs.sort();
        targets.sort();
        assert_eq!(programs, targets);
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
        }
    }
}
