//! `adit policy test`: what files allow and deny, checked without a gateway by the code that a gateway decides with.

use std::path::PathBuf;
use std::process::ExitCode;

use adit_control::expectation::{self, Expectation, Outcome, Verdict};
use adit_control::model::{Model, Verb};
use adit_control::snapshot::Generation;
use adit_control::{Local, Question, Snapshot, explain};

use crate::documents::{self, Documents, Placed};
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
struct Tested<'t> {
    test: &'t Placed<Expectation>,
    outcome: Outcome,
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
    documents.tests_of(&model)?;
    for name in documents.strangers(&model) {
        output::note(format_args!(
            "policies name {name}, which is in none of the files; a token of the gateway's own file may have the name"
        ));
    }
    let tested = tested(&documents, &model);
    let failed = tested.iter().filter(|it| !it.outcome.holds).count();
    if !(args.form.quiet && failed == 0) {
        let value = tested.iter().map(json).collect();
        output::value(args.form.form(), &value, || text(&tested));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks all of them.
fn tested<'t>(documents: &'t Documents, model: &Model) -> Vec<Tested<'t>> {
    let expectations: Vec<Expectation> = documents.tests.iter().map(|test| test.it.clone()).collect();
    let outcomes = expectation::check(model, &Local::default(), &expectations);
    let snapshot = Snapshot::compile(Generation::FIRST, model, &Local::default());
    let tested = documents.tests.iter().zip(outcomes).map(|(test, mut outcome)| {
        if !outcome.holds && outcome.verdict == Verdict::Allowed {
            outcome.why = allowed_by(&snapshot, &test.it);
        }
        Tested { test, outcome }
    });
    tested.collect()
}

/// Which policies allow what should be denied.
fn allowed_by(snapshot: &Snapshot, Expectation { identity, service, verb, .. }: &Expectation) -> String {
    let (identity, service) = (identity.clone(), Some(service.clone()));
    let matched = explain(snapshot, &Question { verb: *verb, identity, service, to: None }, &[]).matched;
    let names: Vec<&str> = matched.iter().map(|policy| policy.name.as_str()).collect();
    match names.as_slice() {
        [] => "no policy is needed for that".to_owned(),
        [name] => format!("policy {name} allows it"),
        names => format!("policies {} allow it", names.join(", ")),
    }
}

fn text(tested: &[Tested<'_>]) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    let mut failed = 0;
    for Tested { test: Placed { file, at, it }, outcome } in tested.iter().filter(|it| !it.outcome.holds) {
        failed += 1;
        let name = it.name.as_ref().map(|name| format!("{}: ", output::printable(name))).unwrap_or_default();
        let verb = match it.verb {
            Verb::Dial => "dial",
            Verb::Bind => "bind",
        };
        let (found, wanted) = match outcome.verdict {
            Verdict::Allowed => ("may", "may not"),
            Verdict::Denied => ("may not", "may"),
        };
        let Expectation { identity, service, .. } = it;
        let _infallible = writeln!(
            text,
            "{file}:{}:{}: failed: {name}{identity} {found} {verb} {service}, and the test expects that it {wanted}: {}",
            at.line, at.column, outcome.why
        );
    }
    let passed = tested.len() - failed;
    let _infallible = writeln!(text, "{passed} passed, {failed} failed");
    text
}

fn json(tested: &Tested<'_>) -> serde_json::Value {
    let Tested { test: Placed { file, at, it }, outcome: Outcome { holds, why, .. } } = tested;
    serde_json::json!({
        "file": file, "line": at.line, "name": it.name, "identity": it.identity, "service": it.service,
        "verb": it.verb, "expect": it.expect, "holds": holds, "why": why,
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
        let tested = tested(&documents, &model);
        let text = text(&tested).replace(&path.display().to_string(), "x.yaml");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[0].starts_with(
                "x.yaml:24:5: failed: wrong: agent may not dial web, and the test expects that it may: "
            ) && lines[0].contains("web"),
            "{text}"
        );
        assert_eq!(
            lines[1],
            "x.yaml:25:5: failed: wrong too: alice may dial web, and the test expects that it may not: policy d allows it"
        );
        assert_eq!(lines[2], "5 passed, 2 failed");
        assert_eq!(json(&tested[6])["holds"], false);
    }

    #[test]
    fn a_policy_that_names_a_token_of_the_gateways_file_keeps_no_test_from_running() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        std::fs::write(&path, FILE.replace("'@agent'", "'@agent', '@ops'")).unwrap();
        let documents = documents::load(std::slice::from_ref(&path)).unwrap();
        let held = tested(&documents, &documents.model().unwrap());
        assert_eq!(held.iter().filter(|it| it.outcome.holds).count(), 5);
    }

    #[test]
    fn a_test_about_what_is_not_written_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        let more = "  - {identity: alcie, service: wbe, expect: denied}\n";
        std::fs::write(&path, format!("{FILE}{more}")).unwrap();
        let documents = documents::load(std::slice::from_ref(&path)).unwrap();
        let error = documents.tests_of(&documents.model().unwrap()).unwrap_err().to_string();
        for part in ["x.yaml:26:5: ", "identity alcie", "service wbe", "2 problems in 1 file"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
}
