//! `adit completion`: what a shell sources, and the live names that it completes.

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;

use adit_control::model::{Kind, PUBLIC};
use clap::{Command, CommandFactory as _};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;

use crate::access::AccessArgs;
use crate::control_client::Client;
use crate::error::CliError;
use crate::interface::{Interface, Item};
use crate::logins::Logins;
use crate::output;

/// The variable that a shell sets when it asks for completions.
const VARIABLE: &str = "ADIT_COMPLETE";
/// Nobody waits longer for a name.
const PATIENCE: Duration = Duration::from_millis(500);

/// For bash, which breaks words at `@`, `=` and `:`, so that `@web`, `--service=web` and `host:8123` arrive in pieces: they
/// are put together before anything is asked, and only the last piece of an answer is given back.
const BASH: &str = r#"_adit() {
    local line="${COMP_LINE:0:COMP_POINT}" current="$2" piece gap i last
    local -a words=() found=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece="${COMP_WORDS[i]}"
        gap="${line%%[^[:space:]]*}"
        line="${line#"$gap"}"
        if [[ $i -lt $COMP_CWORD ]]; then
            line="${line#"$piece"}"
        elif [[ $line == [\'\"]* ]]; then
            piece="$current"
        else
            piece="$line"
        fi
        last=$((${#words[@]} - 1))
        if [[ $i -gt 0 && -z $gap ]]; then
            words[last]+="$piece"
        else
            words+=("$piece")
        fi
    done
    last=$((${#words[@]} - 1))
    local whole="${words[last]}"
    IFS=$'\n' read -r -d '' -a found < <(
        ADIT_COMPLETE=bash _CLAP_COMPLETE_INDEX="$last" _CLAP_IFS=$'\n' "$1" -- "${words[@]}" 2> /dev/null
    )
    COMPREPLY=("${found[@]#"${whole%"$current"}"}")
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} =~ [=/:]$ ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
complete -F _adit adit
"#;

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
    if args.shell == "bash" {
        output::print(BASH);
        return Ok(ExitCode::SUCCESS);
    }
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
    completed(all(), &[])
}

/// The command line with every argument, those of commands that nobody asked for yet as well.
fn all() -> Command {
    let mut command = crate::cli::Cli::command();
    command.build();
    command
}

/// A command and everything below it.
fn completed(command: Command, path: &[String]) -> Command {
    // Two words for one thing are one choice too many; the other one is understood all the same.
    let others: Vec<&'static str> =
        ALIASES.into_iter().filter(|alias| command.get_visible_aliases().any(|it| it == *alias)).collect();
    let command = if others.is_empty() { command } else { command.visible_alias(None).aliases(others) };
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let command = command.mut_args(|argument| match names(&words, argument.get_id().as_str()) {
        Some(names) => {
            argument.add(ArgValueCompleter::new(move |current: &OsStr| names.starting_with(current)))
        }
        None => argument,
    });
    command.mut_subcommands(|below| {
        let path: Vec<String> = path.iter().cloned().chain([below.get_name().to_owned()]).collect();
        completed(below, &path)
    })
}

/// Second words for commands: plurals, and singulars where the first word is a plural.
const ALIASES: [&str; 8] =
    ["identities", "services", "configs", "service-policies", "routes", "tokens", "identity", "service"];

/// Names that can be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Of resources.
    Of(Kind),
    /// Whom policies can be about: identities, tokens and the public.
    Subjects,
    /// Attributes that resources of a kind have.
    Attributes(Kind),
    /// Roles of services: attributes and names.
    ServiceRoles,
    /// Roles of identities and tokens.
    IdentityRoles,
    /// Of the gateways logged in to.
    Gateways,
    /// These words.
    Words(&'static [&'static str]),
}

/// Which names an argument of a command takes, if any that are known here.
fn names(path: &[&str], argument: &str) -> Option<Names> {
    // `adit edge VERB NOUN` and `adit NOUN VERB` are the same command.
    let (noun, verb) = match path {
        ["edge", verb, noun] | [noun, verb] => (*noun, *verb),
        [verb] => ("", *verb),
        _ => return None,
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind.singular() == noun);
    let names = match (noun, verb, argument) {
        (_, _, "gateway") if path != ["agent"] => Names::Gateways,
        (_, "use" | "logout", "name") => Names::Gateways,
        ("explain", _, "identity") => Names::Subjects,
        ("explain", _, "service") | (_, "dial", "service") => Names::Of(Kind::Service),
        ("identities", "policy-advisor", "first") | ("services", "policy-advisor", "second") => {
            Names::Subjects
        }
        ("identities", "policy-advisor", "second") | ("services", "policy-advisor", "first") => {
            Names::Of(Kind::Service)
        }
        ("audit", "list" | "export", "kind") | (_, "export", "kind") => Names::Words(&KINDS),
        _ => match (kind?, argument) {
            (kind, "name" | "names") if verb != "create" => Names::Of(kind),
            (kind, "attributes") => Names::Attributes(kind),
            (Kind::ServicePolicy, "service_roles") => Names::ServiceRoles,
            (Kind::ServicePolicy, "identity_roles") => Names::IdentityRoles,
            (Kind::ServicePolicy, "semantic") => Names::Words(&["AnyOf", "AllOf"]),
            (Kind::ServicePolicy, "verb") => Names::Words(&["Dial", "Bind"]),
            (Kind::Config, "config_type") => Names::Words(&["host.v1", "intercept.v1"]),
            (Kind::Service, "configs") => Names::Of(Kind::Config),
            (Kind::Route, "service") | (Kind::Token, "services") => Names::Of(Kind::Service),
            _ => return None,
        },
    };
    Some(names)
}

/// The kinds of resources.
const KINDS: [&str; Kind::ALL.len()] = {
    let mut words = [""; Kind::ALL.len()];
    let mut index = 0;
    while index < words.len() {
        words[index] = Kind::ALL[index].singular();
        index += 1;
    }
    words
};

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
        let names = |items: &[Item]| -> Vec<String> { items.iter().map(|it| it.name().to_owned()).collect() };
        let roles = |items: &[Item]| -> Vec<String> {
            let attributes = attributes(items).into_iter().map(|attribute| format!("#{attribute}"));
            let names = items.iter().map(|item| format!("@{}", item.name()));
            std::iter::once("#all".to_owned()).chain(attributes).chain(names).collect()
        };
        let mut found = match self {
            Self::Words(words) => return Some(words.iter().map(|&word| word.to_owned()).collect()),
            Self::Gateways => Logins::load().ok()?.iter().map(|(name, _)| name.clone()).collect(),
            Self::Of(kind) => names(&asked(&[kind])?),
            Self::Attributes(kind) => attributes(&asked(&[kind])?),
            Self::Subjects => {
                let found = names(&asked(&[Kind::Identity, Kind::Token])?);
                found.into_iter().chain([PUBLIC.to_owned()]).collect()
            }
            Self::ServiceRoles => roles(&asked(&[Kind::Service])?),
            Self::IdentityRoles => {
                let found = roles(&asked(&[Kind::Identity, Kind::Token])?);
                found.into_iter().chain([format!("@{PUBLIC}")]).collect()
            }
        };
        found.sort();
        found.dedup();
        Some(found)
    }
}

/// The attributes of some resources, with repeats.
fn attributes(items: &[Item]) -> Vec<String> {
    let all = items.iter().flat_map(|item| item.list("attributes"));
    all.filter_map(|attribute| attribute.as_str().map(str::to_owned)).collect()
}

/// Asks the gateway logged in to for these kinds.
fn asked(kinds: &[Kind]) -> Option<Vec<Item>> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = Client::new(AccessArgs::default().target().ok()?).patient_for(PATIENCE);
    let mut interface = Interface::new(client);
    let asked = async {
        let mut found = Vec::new();
        for &kind in kinds {
            found.extend(interface.all(kind).await.ok()?);
        }
        Some(found)
    };
    let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.ok()? });
    runtime.shutdown_background();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with its arguments, by the names that complete them.
    fn walk(command: &Command, path: &[&str], found: &mut Vec<(String, Names)>) {
        for argument in command.get_arguments() {
            if let Some(names) = names(path, argument.get_id().as_str()) {
                found.push((format!("{} {}", path.join(" "), argument.get_id()), names));
            }
        }
        for below in command.get_subcommands() {
            let path: Vec<&str> = path.iter().copied().chain([below.get_name()]).collect();
            walk(below, &path, found);
        }
    }

    #[test]
    fn names_are_completed_where_they_are_wanted() {
        let mut found = Vec::new();
        walk(&all(), &[], &mut found);
        for (place, names) in [
            ("identity show name", Names::Of(Kind::Identity)),
            ("edge delete service-policy names", Names::Of(Kind::ServicePolicy)),
            ("token rotate name", Names::Of(Kind::Token)),
            ("dial service", Names::Of(Kind::Service)),
            ("route create service", Names::Of(Kind::Service)),
            ("explain bind identity", Names::Subjects),
            ("service-policy create verb", Names::Words(&["Dial", "Bind"])),
            ("edge update service-policy identity_roles", Names::IdentityRoles),
            ("config create config_type", Names::Words(&["host.v1", "intercept.v1"])),
            ("edge policy-advisor services second", Names::Subjects),
            ("export kind", Names::Words(&KINDS)),
            ("audit list gateway", Names::Gateways),
            ("logout name", Names::Gateways),
        ] {
            assert!(found.contains(&(place.to_owned(), names)), "{place}: {found:#?}");
        }
        let is_made = |(place, _): &(String, Names)| place.contains("create") && place.ends_with(" name");
        assert!(!found.iter().any(is_made), "a new name is nobody's: {found:#?}");
        // `adit dial --identity` takes a file.
        assert!(!found.iter().any(|(place, _)| place == "dial identity"));
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
