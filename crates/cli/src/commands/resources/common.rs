//! What every kind of resource has in common: lists, single ones, deletion, and how a change is told.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use adit_control::model::{Kind, Resource};
use adit_proto::name::Name;
use serde_json::Value;

use crate::access::AccessArgs;
use crate::error::CliError;
use crate::filter::Filter;
use crate::interface::{Action, Change, Deletion, Doomed, Interface, Item};
use crate::output::{self, Form, FormArgs};
use crate::yaml;

/// Flags of every plain creation and change.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Flags that are understood because scripts for OpenZiti have them.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Labels {
    /// Accepted and not kept: labels that nothing here reads.
    #[arg(short, long, hide = true, value_name = "KEY=VALUE")]
    tags: Vec<String>,
    /// Accepted and not kept.
    #[arg(long, hide = true, value_name = "JSON")]
    tags_json: Option<String>,
}

impl Labels {
    /// Says what becomes of them.
    pub(crate) fn answer(&self) {
        if !self.tags.is_empty() || self.tags_json.is_some() {
            output::note("tags are not kept; use attributes (-a) for what policies select by");
        }
    }
}

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit identity delete dev.client
  adit service delete where 'name~kubeB'
  adit service delete a b c                (all of them or none)
  adit edge delete services where 'name contains \"kubeB\" limit none'

Filters: name~part, name=whole, attribute=x, type=x, joined with `and` and `or`; `true` for all. Behind them:
sort by name desc, skip 10, limit 5.")]
pub(crate) struct Delete {
    /// Their names; or the word `where` and a filter.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// Also take them out of the policies that name them, and tell which these are.
    #[arg(long)]
    force: bool,
    /// It is well if there is none of a name.
    #[arg(long)]
    ignore_missing: bool,
    /// Print nothing.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit identity list
  adit identity list attribute=reflectz-clients
  adit service list 'name~kubeA' -o yaml
  adit edge list identities 'name contains \"prometheus\" limit none'

Filters: name~part, name=whole, attribute=x, type=x, joined with `and` and `or`; `true` for all. Behind them:
sort by name desc, skip 10, limit 5.")]
pub(crate) struct List {
    /// Which; all when left out.
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub(crate) name: Name,
    #[command(flatten)]
    common: Common,
}

/// Lists a kind.
pub(crate) async fn list(kind: Kind, args: List) -> Result<ExitCode, CliError> {
    let filter = Filter::parse(&args.filter.join(" "))?;
    let items = filter.select(args.common.access.interface()?.all(kind).await?);
    if args.common.form.quiet {
        output::print(&items.iter().map(|item| format!("{}\n", item.name())).collect::<String>());
        return Ok(ExitCode::SUCCESS);
    }
    let width = output::terminal_width();
    let value = items.iter().map(|item| Value::Object(item.0.clone())).collect();
    output::value(args.common.form.form(), &value, || super::table::of(kind, &items, width));
    Ok(ExitCode::SUCCESS)
}

/// Shows one.
pub(crate) async fn show(kind: Kind, args: Show) -> Result<ExitCode, CliError> {
    let item = args.common.access.interface()?.item(kind, &args.name).await?;
    let remarks = super::table::remarks(kind, &item, time::OffsetDateTime::now_utc());
    let value = Value::Object(item.0);
    output::value(args.common.form.form(), &value, || {
        // Comments: what is printed stays YAML.
        let remarks = remarks.iter().map(|remark| format!("# {}\n", output::printable(remark)));
        yaml::document(&value) + &remarks.collect::<String>()
    });
    Ok(ExitCode::SUCCESS)
}

/// Deletes some, all of them or none.
pub(crate) async fn delete(kind: Kind, args: Delete) -> Result<ExitCode, CliError> {
    let mut interface = args.access.interface()?;
    let names = match args.names.split_first() {
        Some((first, filter)) if first == "where" => {
            if filter.is_empty() {
                return Err(
                    CliError::usage("`where` has no filter").next("write it behind: where 'name~part'")
                );
            }
            let filter = Filter::parse(&filter.join(" "))?;
            let found = filter.select(interface.all(kind).await?);
            if found.is_empty() && !args.quiet {
                output::line(format_args!("no {kind} matches"));
            }
            found.iter().map(|item| item.name().to_owned()).collect()
        }
        _ => args.names.clone(),
    };
    let mut delete: Vec<Doomed> = Vec::with_capacity(names.len());
    for name in &names {
        let name: Name = read("a name", name)?;
        if delete.iter().all(|known| known.name != name) {
            delete.push(Doomed { kind, name });
        }
    }
    if delete.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let (force, ignore_missing) = (args.force, args.ignore_missing);
    let done = interface.delete(&Deletion { delete, force, ignore_missing }).await?;
    if !args.quiet {
        done.changes.iter().filter_map(|change| gone(kind, change)).for_each(output::line);
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of one resource when others were deleted.
fn gone(kind: Kind, Change { action, kind: of, name, .. }: &Change) -> Option<String> {
    let name = output::printable(name);
    match action {
        Action::Delete if *of == kind => Some(format!("{of} {name} deleted")),
        Action::Delete => Some(format!("{of} {name} deleted too: it would have been left with nothing")),
        Action::Update => Some(format!("{of} {name} does not name it any more")),
        Action::Create | Action::None => None,
    }
}

/// Creates a plain resource.
pub(crate) async fn create(common: &Common, resource: Resource) -> Result<ExitCode, CliError> {
    let item = created(&mut common.access.interface()?, &resource).await?;
    tell(common.form.form(), common.form.quiet, resource.kind(), item, "created");
    Ok(ExitCode::SUCCESS)
}

/// Creates a resource, with the command for the case that it is there already.
pub(crate) async fn created(interface: &mut Interface, resource: &Resource) -> Result<Item, CliError> {
    resource.check().map_err(|why| {
        CliError::usage(format!("{} {} cannot be created", resource.kind(), resource.name())).because(why)
    })?;
    interface.create(resource).await
}

/// Changes a resource that nobody else has changed meanwhile.
pub(crate) async fn update(
    common: &Common,
    kind: Kind,
    name: &Name,
    change: impl FnOnce(&mut Resource) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let mut interface = common.access.interface()?;
    let item = interface.item(kind, name).await?;
    let before = item.resource()?;
    let mut resource = before.clone();
    change(&mut resource)?;
    resource
        .check()
        .map_err(|why| CliError::usage(format!("{kind} {name} cannot become this")).because(why))?;
    if resource == before {
        tell(common.form.form(), common.form.quiet, kind, item, "is as it should be");
        return Ok(ExitCode::SUCCESS);
    }
    let item = interface.replace(&resource, item.revision()).await?;
    tell(common.form.form(), common.form.quiet, kind, item, "updated");
    Ok(ExitCode::SUCCESS)
}

/// Tells of a change.
pub(crate) fn tell(form: Form, quiet: bool, kind: Kind, item: Item, what: &str) {
    if quiet {
        return;
    }
    let line = format!("{kind} {} {what}\n", output::printable(item.name()));
    for remark in item.list("remarks").iter().filter_map(Value::as_str) {
        output::warning(format_args!("{kind} {}: {}", item.name(), output::printable(remark)));
    }
    output::value(form, &Value::Object(item.0), || line);
}

/// Reads one value of a flag.
///
/// # Errors
/// It is not of this form.
pub(crate) fn read<T: FromStr<Err: std::fmt::Display>>(flag: &str, text: &str) -> Result<T, CliError> {
    text.parse().map_err(|why| CliError::usage(format!("{flag} `{text}` cannot be used")).because(why))
}

/// The parts of a list that was written with commas, with the flag repeated, or both.
///
/// # Errors
/// One of them is not of this form.
pub(crate) fn parts<T: FromStr<Err: std::fmt::Display>>(
    flag: &str,
    values: &[String],
) -> Result<Vec<T>, CliError> {
    values
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| read(flag, part))
        .collect()
}

/// The same where a flag that is not there changes nothing, and an empty one empties the list.
///
/// # Errors
/// As [`parts`].
pub(crate) fn new_parts<T: FromStr<Err: std::fmt::Display>>(
    flag: &str,
    values: Option<&[String]>,
) -> Result<Option<Vec<T>>, CliError> {
    values.map(|values| parts(flag, values)).transpose()
}

/// Where a secret is written; `None`: standard output, which is `-` as well. The words of the other meaning of `-o` are
/// not taken for a file.
///
/// # Errors
/// It is one of them.
pub(crate) fn secret_file(file: Option<&Path>) -> Result<Option<PathBuf>, CliError> {
    match file.and_then(Path::to_str) {
        Some(word @ ("json" | "yaml" | "text")) => {
            Err(CliError::usage(format!("-o {word} would write a secret to a file called {word}"))
                .because("-o names the file of the secret here")
                .next(format!("write --output {word} for the form, or -o ./{word} for the file")))
        }
        Some("-") => Ok(None),
        _ => Ok(file.map(Path::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_along_is_told() {
        let change = |action: &str, kind: &str| -> Change {
            serde_json::from_value(serde_json::json!({ "action": action, "kind": kind, "name": "x" }))
                .unwrap()
        };
        let told = |action, kind| gone(Kind::Service, &change(action, kind)).unwrap_or_default();
        assert_eq!(told("delete", "service"), "service x deleted");
        assert_eq!(
            told("delete", "service-policy"),
            "service-policy x deleted too: it would have been left with nothing"
        );
        assert_eq!(told("update", "service-policy"), "service-policy x does not name it any more");
        assert_eq!(told("none", "service"), "");
    }

    #[test]
    fn lists_are_written_with_commas_or_repeats() {
        let values = ["a, b".to_owned(), "c".to_owned(), String::new()];
        let names: Vec<Name> = parts("-a", &values).unwrap();
        assert_eq!(names.iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(new_parts::<Name>("-a", Some(&[String::new()])).unwrap(), Some(Vec::new()));
        let error = parts::<Name>("-a", &["a b".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("-a `a b` cannot be used: ` ` is not allowed"), "{error}");
    }

    #[test]
    fn the_form_is_not_taken_for_a_file() {
        let error = secret_file(Some(Path::new("json"))).unwrap_err().to_string();
        assert!(error.contains("next: write --output json"), "{error}");
        assert_eq!(secret_file(Some(Path::new("-"))).unwrap(), None);
        assert_eq!(secret_file(Some(Path::new("./json"))).unwrap(), Some("./json".into()));
    }
}
