//! `adit completion`: what a shell sources, and the live names that it completes.

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;

use adit_control::model::Kind;
use clap::{Command, CommandFactory as _};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;

use crate::access::AccessArgs;
use crate::control_client::Client;
use crate::error::CliError;
use crate::interface::Interface;
use crate::logins::Logins;
use crate::output;

/// The variable that a shell sets when it asks for completions.
const VARIABLE: &str = "ADIT_COMPLETE";
/// Nobody waits longer for a name.
const PATIENCE: Duration = Duration::from_millis(800);

/// Arguments of `adit completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Put one of these into your shell's start file:
  source <(adit completion bash)
  source <(adit completion zsh)
  adit completion fish | source

Names of identities, services and the rest are completed from the gateway logged in to, when it answers at once.")]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish", "elvish", "powershell"])]
    shell: String,
}

/// Prints what the shell sources.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let failed = |cause: std::io::Error| CliError::failure("cannot write the completion").caused_by(&cause);
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).ok_or_else(|| CliError::usage("there is no such shell"))?;
    let mut text = Vec::new();
    shell.write_registration(VARIABLE, "adit", "adit", "adit", &mut text).map_err(failed)?;
    output::print(&String::from_utf8_lossy(&text));
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell that asks for completions. Whether one did.
///
/// # Errors
/// What the shell asked cannot be understood.
pub(crate) fn answer() -> clap::error::Result<bool> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(command).var(VARIABLE).try_complete(std::env::args_os(), here.as_deref())
}

/// The command line with the names that only a gateway knows.
fn command() -> Command {
    PLACES.iter().fold(all(), |command, (path, argument, names)| {
        let completer = ArgValueCompleter::new(|current: &OsStr| names.starting_with(current));
        at(command, path, |command| command.mut_arg(*argument, |argument| argument.add(completer)))
    })
}

/// The command line with every argument, those of commands that nobody asked for yet as well.
fn all() -> Command {
    let mut command = crate::cli::Cli::command();
    command.build();
    command
}

fn at(command: Command, path: &[&'static str], change: impl FnOnce(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [first, rest @ ..] => command.mut_subcommand(*first, |command| at(command, rest, change)),
    }
}

/// Names that can be completed.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// Of resources.
    Of(Kind),
    /// Roles: attributes and names.
    Roles(Kind),
    /// Of the gateways logged in to.
    Gateways,
}

/// Where live names stand: the command, the argument, which names.
const PLACES: &[(&[&str], &str, Names)] = &[
    (&["identity", "update"], "name", Names::Of(Kind::Identity)),
    (&["identity", "delete"], "names", Names::Of(Kind::Identity)),
    (&["identity", "show"], "name", Names::Of(Kind::Identity)),
    (&["identity", "enroll-token"], "name", Names::Of(Kind::Identity)),
    (&["identity", "revoke"], "name", Names::Of(Kind::Identity)),
    (&["service", "update"], "name", Names::Of(Kind::Service)),
    (&["service", "delete"], "names", Names::Of(Kind::Service)),
    (&["service", "show"], "name", Names::Of(Kind::Service)),
    (&["service", "create"], "configs", Names::Of(Kind::Config)),
    (&["service", "update"], "configs", Names::Of(Kind::Config)),
    (&["config", "update"], "name", Names::Of(Kind::Config)),
    (&["config", "delete"], "names", Names::Of(Kind::Config)),
    (&["config", "show"], "name", Names::Of(Kind::Config)),
    (&["service-policy", "update"], "name", Names::Of(Kind::ServicePolicy)),
    (&["service-policy", "delete"], "names", Names::Of(Kind::ServicePolicy)),
    (&["service-policy", "show"], "name", Names::Of(Kind::ServicePolicy)),
    (&["service-policy", "create"], "service_roles", Names::Roles(Kind::Service)),
    (&["service-policy", "create"], "identity_roles", Names::Roles(Kind::Identity)),
    (&["service-policy", "update"], "service_roles", Names::Roles(Kind::Service)),
    (&["service-policy", "update"], "identity_roles", Names::Roles(Kind::Identity)),
    (&["route", "update"], "name", Names::Of(Kind::Route)),
    (&["route", "delete"], "names", Names::Of(Kind::Route)),
    (&["route", "show"], "name", Names::Of(Kind::Route)),
    (&["route", "create"], "service", Names::Of(Kind::Service)),
    (&["route", "update"], "service", Names::Of(Kind::Service)),
    (&["token", "update"], "name", Names::Of(Kind::Token)),
    (&["token", "delete"], "names", Names::Of(Kind::Token)),
    (&["token", "show"], "name", Names::Of(Kind::Token)),
    (&["token", "rotate"], "name", Names::Of(Kind::Token)),
    (&["token", "revoke"], "name", Names::Of(Kind::Token)),
    (&["edge", "update", "identity"], "name", Names::Of(Kind::Identity)),
    (&["edge", "update", "service"], "name", Names::Of(Kind::Service)),
    (&["edge", "update", "config"], "name", Names::Of(Kind::Config)),
    (&["edge", "update", "service-policy"], "name", Names::Of(Kind::ServicePolicy)),
    (&["edge", "delete", "identity"], "names", Names::Of(Kind::Identity)),
    (&["edge", "delete", "service"], "names", Names::Of(Kind::Service)),
    (&["edge", "delete", "config"], "names", Names::Of(Kind::Config)),
    (&["edge", "delete", "service-policy"], "names", Names::Of(Kind::ServicePolicy)),
    (&["edge", "show", "identity"], "name", Names::Of(Kind::Identity)),
    (&["edge", "show", "service"], "name", Names::Of(Kind::Service)),
    (&["edge", "show", "config"], "name", Names::Of(Kind::Config)),
    (&["edge", "show", "service-policy"], "name", Names::Of(Kind::ServicePolicy)),
    (&["explain", "dial"], "identity", Names::Of(Kind::Identity)),
    (&["explain", "dial"], "service", Names::Of(Kind::Service)),
    (&["explain", "bind"], "identity", Names::Of(Kind::Identity)),
    (&["explain", "bind"], "service", Names::Of(Kind::Service)),
    (&["edge", "policy-advisor", "identities"], "first", Names::Of(Kind::Identity)),
    (&["edge", "policy-advisor", "identities"], "second", Names::Of(Kind::Service)),
    (&["edge", "policy-advisor", "services"], "first", Names::Of(Kind::Service)),
    (&["edge", "policy-advisor", "services"], "second", Names::Of(Kind::Identity)),
    (&["use"], "name", Names::Gateways),
    (&["logout"], "name", Names::Gateways),
    (&["edge", "use"], "name", Names::Gateways),
    (&["edge", "logout"], "name", Names::Gateways),
];

impl Names {
    /// Candidates for what was typed so far; none when the gateway does not answer, whatever the reason.
    fn starting_with(self, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(current) = current.to_str() else { return Vec::new() };
        // A list with commas is completed behind its last one.
        let (before, typed) = current.rsplit_once(',').map_or(("", current), |(before, typed)| {
            (current.get(..=before.len()).unwrap_or_default(), typed)
        });
        let typed = typed.to_ascii_lowercase();
        let fits = |name: &String| name.to_ascii_lowercase().starts_with(&typed);
        let names = self.all().unwrap_or_default();
        names
            .into_iter()
            .filter(fits)
            .map(|name| CompletionCandidate::new(format!("{before}{name}")))
            .collect()
    }

    fn all(self) -> Option<Vec<String>> {
        match self {
            Self::Gateways => Some(Logins::load().ok()?.iter().map(|(name, _)| name.clone()).collect()),
            Self::Of(kind) => Some(asked(kind)?.iter().map(|item| item.name().to_owned()).collect()),
            Self::Roles(kind) => {
                let items = asked(kind)?;
                let attributes = items
                    .iter()
                    .flat_map(|item| item.list("attributes"))
                    .filter_map(|attribute| attribute.as_str().map(|attribute| format!("#{attribute}")));
                let names = items.iter().map(|item| format!("@{}", item.name()));
                let all = std::iter::once("#all".to_owned()).chain(attributes).chain(names);
                let sorted: std::collections::BTreeSet<String> = all.collect();
                Some(sorted.into_iter().collect())
            }
        }
    }
}

/// Asks the gateway logged in to.
fn asked(kind: Kind) -> Option<Vec<crate::interface::Item>> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = Client::new(AccessArgs::default().target().ok()?).patient_for(PATIENCE);
    let found = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, Interface::new(client).all(kind)).await.ok()?.ok()
    });
    runtime.shutdown_background();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_where_names_are_completed_is_there() {
        for (path, argument, _) in PLACES {
            let mut found = all();
            for verb in *path {
                found = found.find_subcommand(verb).unwrap_or_else(|| panic!("{path:?}")).clone();
            }
            assert!(found.get_arguments().any(|it| it.get_id() == argument), "{path:?} {argument}");
        }
        command().debug_assert();
    }

    #[test]
    fn each_shell_is_told_how_to_ask() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let mut text = Vec::new();
            let found = Shells::builtins();
            let shell = found.completer(shell).unwrap();
            shell.write_registration(VARIABLE, "adit", "adit", "adit", &mut text).unwrap();
            assert!(String::from_utf8(text).unwrap().contains(VARIABLE), "{}", shell.name());
        }
    }
}
