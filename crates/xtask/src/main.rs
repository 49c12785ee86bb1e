//! The developers' one interface: `cargo xtask <command>`. Without a command it prints the list.
//!
//! Nothing has to be installed first but Rust. CI and the README call exactly these commands, and
//! `cargo xtask ci` on a developer's machine is what CI runs.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for people: standard output is its result, standard error its progress"
)]

mod bench;
mod checks;
mod churn;
mod ci;
mod deny;
mod docs;
mod edges;
mod fuzz;
mod process;
mod setup;
mod sim;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

/// One command: what is typed, what the list says about it, and what it does with the remaining arguments.
struct Task {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const TASKS: &[Task] = &[
    Task {
        name: "ci",
        usage: "",
        about: "setup and every check and test below; the README's test command",
        run: ci::run,
    },
    Task {
        name: "setup",
        usage: "",
        about: "install what checks and tests need and this machine lacks",
        run: setup::run,
    },
    Task { name: "fmt", usage: "", about: "formatting is as rustfmt.toml says", run: checks::fmt },
    Task {
        name: "clippy",
        usage: "",
        about: "the lints of Cargo.toml and clippy.toml, warnings refused",
        run: checks::clippy,
    },
    Task {
        name: "tidy",
        usage: "",
        about: "the house rules no lint knows: edges, words, sizes, links, ...",
        run: tidy::run,
    },
    Task {
        name: "docs",
        usage: "[--check]",
        about: "write docs/reference from the binary, or compare with it",
        run: docs::run,
    },
    Task { name: "doc", usage: "", about: "rustdoc of the workspace, warnings refused", run: checks::doc },
    Task { name: "deny", usage: "", about: "licences, banned crates, duplicates, sources", run: deny::run },
    Task {
        name: "test",
        usage: "[filter...]",
        about: "every test of the workspace, end-to-end ones included",
        run: checks::test,
    },
    Task {
        name: "e2e",
        usage: "[filter...]",
        about: "only the tests that run the real binary",
        run: checks::e2e,
    },
    Task {
        name: "fuzz-replay",
        usage: "",
        about: "every file of fuzz/corpus through its decoder, on stable",
        run: fuzz::replay,
    },
    Task {
        name: "fuzz",
        usage: "[target] [seconds]",
        about: "search for new inputs with cargo-fuzz (nightly)",
        run: fuzz::run,
    },
    Task {
        name: "sim",
        usage: "[--seeds N] [--first N] [--seed N]",
        about: "sessions in a simulated network: many seeds, or one told in detail",
        run: sim::run,
    },
    Task {
        name: "chaos",
        usage: "",
        about: "the real binary on a bad network that is also gone for five minutes",
        run: churn::chaos,
    },
    Task {
        name: "soak",
        usage: "[--minutes N]",
        about: "an hour of churn: nothing wrong, nothing twice, nothing grows",
        run: churn::soak,
    },
    Task {
        name: "bench",
        usage: "[peer...] [--quick] [option...]",
        about: "compare with proxies and tunnels on this machine; docs/benchmarks.md",
        run: bench::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) =
        args.split_first().filter(|(name, _)| !matches!(name.as_str(), "help" | "--help" | "-h"))
    else {
        print!("{}", list());
        return ExitCode::SUCCESS;
    };
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprintln!("`{name}` is not a command.\n\n{}", list());
        return ExitCode::from(2);
    };
    match (task.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> String {
    let mut text = String::from("usage: cargo xtask <command>\n\n");
    let width = TASKS
        .iter()
        .map(|task| task.name.len() + task.usage.len())
        .filter(|len| *len < 32)
        .max()
        .unwrap_or(0);
    for task in TASKS {
        let call = format!("{} {}", task.name, task.usage);
        text += &format!("  {:<width$}  {}\n", call.trim_end(), task.about, width = width + 1);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_own_name_and_stands_in_the_list() {
        let list = list();
        for (at, task) in TASKS.iter().enumerate() {
            assert!(list.contains(&format!("  {}", task.name)), "{} is not listed", task.name);
            assert!(TASKS[..at].iter().all(|other| other.name != task.name), "{} is there twice", task.name);
        }
    }
}
