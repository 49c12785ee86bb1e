//! Words of other tools that this one does not take: answered with what takes their place here, instead of with "unexpected
//! argument".

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::CliError;

/// A word, why it is not taken, and what to do instead.
type Answer = (&'static [&'static str], &'static str, &'static str);

/// Flags of commands for resources and logins.
const FLAGS: &[Answer] = &[
    (
        &[
            "--default-hosting-cost",
            "--default-hosting-precedence",
            "--service-costs",
            "--service-precedences",
        ],
        "whoever offers a service takes turns, at the same cost",
        "leave it out",
    ),
    (
        &["--client-cert", "--client-key", "--ext-jwt", "--service-account"],
        "a login is by an admin token, or by the identity file of an administrator",
        "adit login HOST:8123 --token-file FILE, or --identity FILE",
    ),
    (&["--read-only"], "what a login may do is what its token or identity may do", "leave it out"),
    (
        &["--edge-router-roles", "--edge-routers"],
        "there are no routers: every agent has its session with the gateway",
        "leave it out",
    ),
];

/// Commands, with their plurals and their verbs left aside.
const COMMANDS: &[Answer] = &[
    (
        &["re-enroll", "reenroll"],
        "a lost identity is revoked, and enrolled again with a new token",
        "adit identity revoke NAME, then adit identity enroll-token NAME -o NAME.jwt",
    ),
    (&["db"], "the state is the gateway's own file, and a copy of it is a backup", "adit backup create FILE"),
    (
        &["ops"],
        "these are commands of their own here",
        "adit export for `ops export`, adit apply -f FILE for `ops import`, adit explain for `ops verify`",
    ),
    (
        &["validate"],
        "the advisor tells for each service how many agents offer it now",
        "adit edge policy-advisor services",
    ),
    (
        &["traceroute", "trace"],
        "there is one way to a service, through the gateway; why it is open or not is explained",
        "adit explain dial --identity NAME --service SERVICE",
    ),
    (
        &["verify"],
        "identities have certificates of the gateway's own authority, so that there is no other to verify",
        "adit identity show NAME tells the certificates",
    ),
    (
        &["tunnel"],
        "an agent offers services, and dials them",
        "adit agent -f agent.yaml, or adit dial SERVICE --listen ADDRESS for `tunnel proxy`",
    ),
    (&["controller"], "the gateway is all there is", "adit gateway -f gateway.yaml"),
    (
        &["router", "fabric"],
        "there are no routers: every agent has its session with the gateway",
        "adit gateway -f gateway.yaml, and adit status for what is connected",
    ),
    (&["version"], "it is a command of its own here", "adit version"),
    (&["import"], "files are applied", "adit apply -f FILE"),
    (&["export"], "it is a command of its own here", "adit export"),
];

/// What a neighbour's word is answered, if what was wrong with a command line is one.
pub(crate) fn answer(error: &clap::Error) -> Option<CliError> {
    let (context, answers, what) = match error.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, FLAGS, "cannot be used"),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, COMMANDS, "is no command here"),
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(context) else { return None };
    let word = word.split_once('=').map_or(word.as_str(), |(word, _)| word);
    let (_, why, next) = answers.iter().find(|(words, ..)| words.contains(&word))?;
    Some(CliError::usage(format!("{word} {what}")).because(why).next(*next))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(line: &str) -> Option<String> {
        let error = crate::cli::Cli::try_parse_from(line.split(' ')).unwrap_err();
        answer(&error).map(|error| error.to_string())
    }

    #[test]
    fn words_of_the_neighbour_are_answered_with_what_takes_their_place() {
        for (line, part) in [
            ("adit edge re-enroll dev", "next: adit identity revoke NAME, then adit identity enroll-token"),
            ("adit edge db snapshot", "next: adit backup create FILE"),
            ("adit ops export", "adit apply -f FILE for `ops import`"),
            ("adit tunnel run x.json", "next: adit agent -f agent.yaml"),
            ("adit edge traceroute web", "next: adit explain dial"),
            ("adit edge create identity x --default-hosting-cost=5", "takes turns, at the same cost"),
            ("adit edge login h:1 --client-cert a", "--identity FILE"),
        ] {
            let said = said(line).unwrap_or_else(|| panic!("{line}"));
            assert!(said.contains(part), "{line}: {said}");
        }
        assert_eq!(said("adit identty"), None);
        assert_eq!(said("adit identity list --colour"), None);
    }
}
