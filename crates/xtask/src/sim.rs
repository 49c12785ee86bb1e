//! `sim`: the session layer in a simulated network, one seed after the other.

use anyhow::{Context as _, Result, bail};

use crate::process::{cargo, run as run_command};

const SEEDS: u64 = 10_000;

/// What to run: which seeds, or one that is told in detail.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Many { first: u64, seeds: u64 },
    One(u64),
}

/// `sim [--seeds N] [--first N] [--seed N]`: ten thousand seeds from 0 on, unless told otherwise.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut command =
        cargo(&["test", "-p", "adit-tunnel", "--test", "simulation", "no_byte", "--", "--nocapture"]);
    match parse(args)? {
        Wanted::One(seed) => command.env("ADIT_SIM_SEED", seed.to_string()),
        Wanted::Many { first, seeds } => {
            command.env("ADIT_SIM_FIRST", first.to_string()).env("ADIT_SIM_SEEDS", seeds.to_string())
        }
    };
    run_command(&mut command)
}

fn parse(args: &[String]) -> Result<Wanted> {
    let (mut first, mut seeds, mut one) = (0, SEEDS, None);
    for pair in args.chunks(2) {
        let [name, value] = pair else { bail!("`{}` needs a number", pair.concat()) };
        let number = value.parse().with_context(|| format!("{name} {value}: not a number"))?;
        match name.as_str() {
            "--seeds" => seeds = number,
            "--first" => first = number,
            "--seed" => one = Some(number),
            _ => bail!("usage: cargo xtask sim [--seeds N] [--first N] [--seed N]"),
        }
    }
    Ok(one.map_or(Wanted::Many { first, seeds }, Wanted::One))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_many_seeds_or_one() {
        let parsed = |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parsed("").unwrap(), Wanted::Many { first: 0, seeds: SEEDS });
        assert_eq!(parsed("--seeds 5 --first 7").unwrap(), Wanted::Many { first: 7, seeds: 5 });
        assert_eq!(parsed("--seed 9").unwrap(), Wanted::One(9));
        assert!(parsed("--seeds").is_err() && parsed("--seeds x").is_err() && parsed("--sed 1").is_err());
    }
}
