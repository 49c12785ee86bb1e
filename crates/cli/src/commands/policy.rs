//! `adit policy test`: what files allow and deny, checked without a gateway by the code that a gateway decides with.

use std::path::PathBuf;
use std::process::ExitCode;

use adit_control::model::{Model, PUBLIC, Verb};
use adit_control::snapshot::Generation;
use adit_control::{Denial, Local, Snapshot, Subject, Who, authorize, authorize_offer};
use adit_proto::name::Name;
use adit_proto::names::ServiceName;

use crate::documents::{self, Placed, Test};
use crate::error::CliError;
use crate::output::{self, FormArgs};

/// What can be done with the policies of files.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PolicyVerb {
    /// Check the `tests:` of files against their policies; no gateway is asked.
    Test(Args),
}

/// Arguments of `adit policy test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  adit policy test -f policies/

with, in any of the files:
  tests:
    - {identity: dev.client, service: web, expect: allowed}
    - {name: strangers stay out, identity: public, service: web, expect: denied}
    - {identity: web.agent, service: web, verb: bind, expect: allowed}

The exit code is 0 when every test holds, 1 when one does not.")]
pub(crate) struct Args {
    /// Files or directories with resources and tests; `-` is standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    form: FormArgs,
}

/// How one test went.
struct Outcome<'t> {
    test: &'t Placed<Test>,
    /// Whether it is as it should be.
    holds: bool,
    /// Why it is as it is, where it is denied.
    why: String,
}

/// Runs the tests.
pub(crate) fn run(verb: PolicyVerb) -> Result<ExitCode, CliError> {
    let PolicyVerb::Test(args) = verb;
    let documents = documents::load(&args.files)?;
    let model = documents.model()?;
    if documents.tests.is_empty() {
        return Err(CliError::usage("there is no test in these files").next(
            "write `tests:` with a list of {identity, service, expect: allowed} beside the resources",
        ));
    }
    let snapshot = Snapshot::compile(Generation::FIRST, &model, &Local::default());
    let outcomes: Vec<Outcome<'_>> =
        documents.tests.iter().map(|test| outcome(&model, &snapshot, test)).collect();
    let failed = outcomes.iter().filter(|outcome| !outcome.holds).count();
    if !(args.form.quiet && failed == 0) {
        let value = outcomes.iter().map(json).collect();
        output::value(args.form.form(), &value, || text(&outcomes));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn outcome<'t>(model: &Model, snapshot: &Snapshot, test: &'t Placed<Test>) -> Outcome<'t> {
    let Test { identity, service, verb, is_allowed, .. } = &test.it;
    let decided = decide(model, snapshot, identity, service, *verb);
    let holds = decided.is_ok() == *is_allowed;
    Outcome { test, holds, why: decided.err().map(|denial| denial.message).unwrap_or_default() }
}

/// What a gateway with these resources would say.
///
/// # Errors
/// No, and why.
pub(crate) fn decide(
    model: &Model,
    snapshot: &Snapshot,
    identity: &Name,
    service: &Name,
    verb: Verb,
) -> Result<(), Denial> {
    let who = if *identity == *PUBLIC {
        Who::Public
    } else if model.identities.contains_key(identity) || !model.tokens.contains_key(identity) {
        Who::Identity(identity.clone())
    } else {
        Who::Token(identity.clone())
    };
    let service = ServiceName::Named(service.clone());
    match verb {
        Verb::Dial => authorize(snapshot, &Subject { who, address: None }, &service).map(drop),
        Verb::Bind => authorize_offer(snapshot, &who, &service).map(drop),
    }
}

fn described(test: &Test) -> String {
    let verb = match test.verb {
        Verb::Dial => "dial",
        Verb::Bind => "bind",
    };
    let may = if test.is_allowed { "may" } else { "may not" };
    let what = format!("{} {may} {verb} {}", test.identity, test.service);
    test.name.as_ref().map_or_else(|| what.clone(), |name| format!("{name} ({what})"))
}

fn text(outcomes: &[Outcome<'_>]) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    for Outcome { test, holds, why } in outcomes.iter().filter(|outcome| !outcome.holds) {
        debug_assert!(!holds, "only failures are told");
        let place = format!("{}:{}:{}", test.file, test.at.line, test.at.column);
        let instead = if why.is_empty() { "it is allowed" } else { why };
        let _infallible = writeln!(text, "{place}: failed: {}: {instead}", described(&test.it));
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.holds).count();
    let passed = outcomes.len() - failed;
    let _infallible = writeln!(text, "{passed} passed, {failed} failed");
    text
}

fn json(outcome: &Outcome<'_>) -> serde_json::Value {
    let Outcome { test: Placed { file, at, it }, holds, why } = outcome;
    serde_json::json!({
        "file": file, "line": at.line, "name": it.name, "identity": it.identity, "service": it.service,
        "verb": it.verb, "expect": if it.is_allowed { "allowed" } else { "denied" }, "holds": holds, "why": why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
kind: identity
name: alice
attributes: [dev]
---
kind: identity
name: agent
---
kind: token
name: shop
---
kind: service
name: web
---
{kind: service-policy, name: d, type: Dial, service_roles: ['@web'], identity_roles: ['#dev']}
---
{kind: service-policy, name: b, type: Bind, service_roles: ['@web'], identity_roles: ['@agent']}
---
tests:
  - {identity: alice, service: web, expect: allowed}
  - {identity: agent, service: web, verb: bind, expect: allowed}
  - {identity: alice, service: web, verb: bind, expect: denied}
  - {identity: public, service: web, expect: denied}
  - {identity: shop, service: web, expect: denied}
  - {name: wrong, identity: agent, service: web, expect: allowed}
  - {name: wrong too, identity: alice, service: web, expect: denied}
";

    #[test]
    fn tests_hold_or_are_told_with_their_place_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        std::fs::write(&path, FILE).unwrap();
        let documents = documents::load(std::slice::from_ref(&path)).unwrap();
        let model = documents.model().unwrap();
        let snapshot = Snapshot::compile(Generation::FIRST, &model, &Local::default());
        let outcomes: Vec<Outcome<'_>> =
            documents.tests.iter().map(|test| outcome(&model, &snapshot, test)).collect();
        let text = text(&outcomes).replace(&path.display().to_string(), "x.yaml");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[0].starts_with("x.yaml:24:5: failed: wrong (agent may dial web): ")
                && lines[0].contains("web"),
            "{text}"
        );
        assert_eq!(lines[1], "x.yaml:25:5: failed: wrong too (alice may not dial web): it is allowed");
        assert_eq!(lines[2], "5 passed, 2 failed");
        assert_eq!(json(&outcomes[6])["holds"], false);
    }
}
