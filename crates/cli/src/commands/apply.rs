//! `adit apply`, `adit plan` and `adit export`: a repository as the source of truth.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use adit_control::model::{Kind, READ_ONLY, Resource};
use adit_proto::name::Name;
use serde_json::{Map, Value};

use crate::access::AccessArgs;
use crate::documents;
use crate::error::CliError;
use crate::interface::{Action, Applied, Batch, Change, Interface};
use crate::output::{self, Form, FormArgs, printable};
use crate::yaml;

/// The exit code of `--detailed-exitcode` when the answer is not the quiet one.
pub(crate) const DIFFERS: u8 = 4;

/// What stands above an export.
const EXPORT_HEAD: &str = "\
# Every resource of the gateway, as `adit apply -f` takes it.
# Not in here, because it is never exported: secrets of tokens, certificates and keys of identities, tokens to enroll
# with, and tokens of the gateway's own configuration file.
";

/// Which files.
#[derive(Debug, Clone, clap::Args)]
struct Files {
    /// Files or directories with resources; `-` is standard input. Directories are read with everything below them.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Also delete what is in none of the files.
    #[arg(long)]
    prune: bool,
    /// With --prune: delete everything if that is what files without a resource mean.
    #[arg(long, requires = "prune")]
    force: bool,
}

/// Arguments of `adit apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit apply -f policies/
  adit apply -f policies/ --prune --dry-run
  adit export | adit apply -f -

Everything is changed in one transaction, or nothing is. --prune deletes what the files do not hold, except
the identity or token that asks for it.")]
pub(crate) struct Apply {
    #[command(flatten)]
    files: Files,
    /// Only tell what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Arguments of `adit plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit plan -f policies/ --prune
  adit plan -f policies/ --prune --detailed-exitcode    (for a pipeline: 0 nothing to do, 4 something to change)

In what is shown, + is new, ~ differs and - goes.")]
pub(crate) struct Plan {
    #[command(flatten)]
    files: Files,
    /// End with exit code 4 when something would change.
    #[arg(long)]
    detailed_exitcode: bool,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Arguments of `adit export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit export > everything.yaml
  adit export --kind service --kind service-policy -o json

Secrets of tokens and keys and certificates of identities are never exported.")]
pub(crate) struct Export {
    /// Only resources of this kind; repeat for several.
    #[arg(long, value_name = "KIND")]
    kind: Vec<Kind>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = ExportForm::Yaml)]
    output: ExportForm,
    #[command(flatten)]
    access: AccessArgs,
}

/// How resources are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ExportForm {
    /// One document for each resource.
    Yaml,
    /// One document with all of them.
    Json,
}

/// Applies files.
pub(crate) async fn apply(args: Apply) -> Result<ExitCode, CliError> {
    let applied = change(&args.files, &args.access, args.dry_run).await?;
    show(&applied, args.form, args.dry_run);
    Ok(ExitCode::SUCCESS)
}

/// Tells what an apply would change.
pub(crate) async fn plan(args: Plan) -> Result<ExitCode, CliError> {
    let applied = change(&args.files, &args.access, true).await?;
    show(&applied, args.form, true);
    let differs = applied.changes.iter().any(|change| change.action != Action::None);
    Ok(if args.detailed_exitcode && differs { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS })
}

async fn change(files: &Files, access: &AccessArgs, dry_run: bool) -> Result<Applied, CliError> {
    let resources = documents::load(&files.files)?.resources();
    if files.prune && resources.is_empty() && !files.force {
        return Err(CliError::usage(
            "there is no resource in these files, and --prune would delete all there are",
        )
        .because("a command that writes them may have failed")
        .next("check what -f is given; say --force if nothing is to be left"));
    }
    let mut interface = access.interface()?;
    let batch = Batch { resources, prune: files.prune, dry_run };
    let applied = interface.apply(&batch).await?;
    if files.prune {
        tell_of_the_caller(&mut interface, &batch.resources).await?;
    }
    let created = applied.changes.iter().filter(|change| change.action == Action::Create && !dry_run);
    for Change { name, .. } in created.filter(|change| change.kind == Kind::Token) {
        let name = printable(name);
        output::note(format_args!(
            "token {name} has no secret yet: adit token rotate {name} -o {name}.token"
        ));
    }
    Ok(applied)
}

/// Whoever deleted itself could not mend what else went wrong, so the gateway keeps whoever asks; that is told.
async fn tell_of_the_caller(interface: &mut Interface, resources: &[Resource]) -> Result<(), CliError> {
    let me = interface.whoami().await?.name;
    let Some((kind, name)) = me.split_once(':') else { return Ok(()) };
    let (Ok(kind), Ok(name)) = (kind.parse::<Kind>(), name.parse::<Name>()) else { return Ok(()) };
    let is_written = resources.iter().any(|resource| resource.kind() == kind && *resource.name() == name);
    // A token of the gateway's own file is no resource.
    if !is_written && interface.item(kind, &name).await.is_ok() {
        output::note(format_args!(
            "{kind} {name} is in none of the files; it is kept because it asks for this"
        ));
    }
    Ok(())
}

fn show(applied: &Applied, form: FormArgs, dry_run: bool) {
    if form.quiet && form.form() == Form::Text {
        return;
    }
    for remark in &applied.remarks {
        output::warning(printable(remark));
    }
    let value = serde_json::to_value(applied).unwrap_or_default();
    output::value(form.form(), &value, || text(applied, dry_run));
}

/// The difference for people.
fn text(applied: &Applied, dry_run: bool) -> String {
    let mut text = String::new();
    for change in &applied.changes {
        let Change { action, kind, name, before, after } = change;
        let name = printable(name);
        let what = match action {
            Action::None => continue,
            Action::Create => format!("+ {kind} {name}{}", fields(after.as_ref())),
            Action::Update => format!("~ {kind} {name}: {}", difference(before.as_ref(), after.as_ref())),
            Action::Delete => format!("- {kind} {name}"),
        };
        let _infallible = writeln!(text, "{what}");
    }
    let count = |action| applied.changes.iter().filter(|change| change.action == action).count();
    let words = if dry_run {
        ["to create", "to change", "to delete", "as they should be"]
    } else {
        ["created", "changed", "deleted", "as they should be"]
    };
    let parts: Vec<String> = [Action::Create, Action::Update, Action::Delete, Action::None]
        .into_iter()
        .zip(words)
        .map(|(action, words)| (count(action), words))
        .filter(|(count, _)| *count > 0)
        .map(|(count, words)| format!("{count} {words}"))
        .collect();
    let _infallible = match parts.as_slice() {
        [] => writeln!(text, "nothing to do"),
        parts => writeln!(text, "{}", parts.join(", ")),
    };
    text
}

/// The fields that tell something, in the order in which they are written.
fn told(fields: Option<&Map<String, Value>>) -> impl Iterator<Item = (&String, &Value)> {
    let is_told = |key: &str| key != "kind" && key != "name" && !READ_ONLY.contains(&key);
    fields.into_iter().flat_map(yaml::ordered).filter(move |(key, _)| is_told(key))
}

fn fields(after: Option<&Map<String, Value>>) -> String {
    let parts: Vec<String> = told(after).map(|(key, value)| format!("{key} {}", short(value))).collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}

fn difference(before: Option<&Map<String, Value>>, after: Option<&Map<String, Value>>) -> String {
    let was = |key: &str| before.and_then(|fields| fields.get(key));
    let mut parts = Vec::new();
    for (key, value) in told(after) {
        match was(key) {
            Some(old) if old == value => {}
            Some(Value::Array(old)) if value.is_array() => {
                let new = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let added =
                    new.iter().filter(|item| !old.contains(item)).map(|item| format!("+{}", short(item)));
                let gone =
                    old.iter().filter(|item| !new.contains(item)).map(|item| format!("-{}", short(item)));
                let moved: Vec<String> = added.chain(gone).collect();
                parts.push(format!(
                    "{key} {}",
                    if moved.is_empty() { "in another order".to_owned() } else { moved.join(" ") }
                ));
            }
            Some(old) => parts.push(format!("{key} {} -> {}", short(old), short(value))),
            None => parts.push(format!("{key} {}", short(value))),
        }
    }
    let is_there = |key: &str| after.is_some_and(|fields| fields.contains_key(key));
    parts.extend(
        told(before)
            .filter(|(key, _)| !is_there(key))
            .map(|(key, value)| format!("{key} no longer {}", short(value))),
    );
    parts.join("; ")
}

/// A value in few words, on one line.
fn short(value: &Value) -> String {
    /// Longer settings are not read on one line anyway.
    const MOST: usize = 120;
    let text = match value {
        Value::String(text) => printable(text),
        Value::Array(items) => format!("[{}]", items.iter().map(short).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    };
    if text.chars().count() > MOST { text.chars().take(MOST).chain(['…']).collect() } else { text }
}

/// Prints every resource.
pub(crate) async fn export(args: Export) -> Result<ExitCode, CliError> {
    let mut resources = args.access.interface()?.export().await?;
    if !args.kind.is_empty() {
        resources.retain(|resource| args.kind.contains(&resource.kind()));
    }
    output::print(&exported(&resources, args.output)?);
    Ok(ExitCode::SUCCESS)
}

fn exported(resources: &[Resource], form: ExportForm) -> Result<String, CliError> {
    let mut sorted: Vec<&Resource> = resources.iter().collect();
    let place = |kind: Kind| Kind::ALL.iter().position(|known| *known == kind);
    sorted.sort_by(|a, b| (place(a.kind()), a.name()).cmp(&(place(b.kind()), b.name())));
    let values: Vec<Value> = sorted
        .into_iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()
        .map_err(|cause| CliError::failure("cannot write the resources").caused_by(&cause))?;
    Ok(match form {
        ExportForm::Json => format!("{:#}\n", serde_json::json!({ "resources": values })),
        ExportForm::Yaml => values.iter().fold(EXPORT_HEAD.to_owned(), |mut text, value| {
            text.push_str("---\n");
            text.push_str(&yaml::document(value));
            text
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(json: Value) -> Applied {
        serde_json::from_value(serde_json::json!({ "changes": json, "revision": 7 })).unwrap()
    }

    #[test]
    fn a_difference_reads_as_a_list_of_changes() {
        let applied = applied(serde_json::json!([
            {"action": "create", "kind": "identity", "name": "x", "after": {"kind": "identity", "name": "x", "id": "1", "attributes": ["a", "b"]}},
            {"action": "update", "kind": "service-policy", "name": "y",
             "before": {"name": "y", "type": "Dial", "identity_roles": ["#a", "#b"], "semantic": "AnyOf", "revision": 1, "old": true},
             "after": {"name": "y", "type": "Dial", "identity_roles": ["#b", "@c"], "semantic": "AllOf", "revision": 2}},
            {"action": "delete", "kind": "route", "name": "z\u{1b}"},
            {"action": "none", "kind": "service", "name": "s"},
        ]));
        assert_eq!(
            text(&applied, true),
            "\
+ identity x: attributes [a b]
~ service-policy y: semantic AnyOf -> AllOf; identity_roles +@c -#a; old no longer true
- route z\u{fffd}
1 to create, 1 to change, 1 to delete, 1 as they should be
"
        );
        assert!(text(&applied, false).ends_with("1 created, 1 changed, 1 deleted, 1 as they should be\n"));
        let nothing = Applied { changes: Vec::new(), revision: Value::Null, remarks: Vec::new() };
        assert_eq!(text(&nothing, true), "nothing to do\n");
    }

    #[test]
    fn an_export_is_sorted_and_reads_back() {
        let resources: Vec<Resource> = serde_json::from_value(serde_json::json!([
            {"kind": "service", "name": "b"},
            {"kind": "service", "name": "A", "configs": ["c"]},
            {"kind": "identity", "name": "z", "attributes": ["no"]},
        ]))
        .unwrap();
        let yaml = exported(&resources, ExportForm::Yaml).unwrap();
        assert_eq!(
            yaml.strip_prefix(EXPORT_HEAD).unwrap(),
            "\
---
kind: identity
name: z
attributes: [\"no\"]
---
kind: service
name: A
configs: [c]
---
kind: service
name: b
"
        );
        let folder = tempfile::tempdir().unwrap();
        for (name, form) in [("x.yaml", ExportForm::Yaml), ("x.json", ExportForm::Json)] {
            let path = folder.path().join(name);
            std::fs::write(&path, exported(&resources, form).unwrap()).unwrap();
            assert_eq!(documents::load(&[path]).unwrap().resources().len(), 3);
        }
    }
}
