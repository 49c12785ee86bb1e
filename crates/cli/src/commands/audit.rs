//! `adit audit` and `adit watch`: what was changed, and what is being changed.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use adit_control::model::Kind;
use adit_proto::name::Name;
use http::Method;
use serde_json::Value;

use crate::access::AccessArgs;
use crate::control_client::Question;
use crate::error::CliError;
use crate::interface::{Item, moment, query};
use crate::output::{self, Form, FormArgs, fitted_table, printable};
use crate::yaml;

/// What can be done with the audit log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List who changed what, the newest first.
    List(List),
    /// Write the whole log as JSON lines, the oldest first.
    Export(Export),
}

/// Which records.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only about this kind of resource.
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// Only about the resource of this name.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Only by this one: identity:alice, or alice for short; token:ops; local.
    #[arg(long, value_name = "ACTOR", value_parser = actor)]
    actor: Option<String>,
    /// Only what follows this record, by its number.
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
}

/// An actor as records name it. Most are identities, so a bare name is one's.
#[expect(clippy::unnecessary_wraps, reason = "the parser of the command line wants it so")]
fn actor(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(if text == "local" || text.contains(':') { text.to_owned() } else { format!("identity:{text}") })
}

impl Which {
    fn query(&self, more: &[(&str, &str)]) -> String {
        let after = self.after.map(|after| after.to_string()).unwrap_or_default();
        let mut parts = vec![
            ("kind", self.kind.map_or("", Kind::singular)),
            ("name", self.name.as_ref().map_or("", Name::as_str)),
            ("actor", self.actor.as_deref().unwrap_or_default()),
            ("after", after.as_str()),
        ];
        parts.extend(more);
        query(&parts)
    }
}

/// Arguments of `audit list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit audit list --limit 20
  adit audit list --kind service-policy --name web-dial -o yaml   (with what was there before and after)
  adit audit list --actor identity:alice")]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// At most so many records.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Arguments of `audit export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit audit export -o audit.jsonl
  adit audit export --after 1200 | jq .actor")]
pub(crate) struct Export {
    #[command(flatten)]
    which: Which,
    /// Where the lines are written; standard output when left out.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArgs,
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Self::List(args) => list(args).await,
            Self::Export(args) => export(args).await,
        }
    }
}

async fn list(args: List) -> Result<ExitCode, CliError> {
    let limit = args.limit.to_string();
    // What follows a record is read from there on; else the newest are wanted.
    let order = if args.which.after.is_some() { "asc" } else { "desc" };
    let path = format!("/v1/audit{}", args.which.query(&[("limit", &limit), ("order", order)]));
    let page: Value = args.access.interface()?.get(path).await?;
    let records = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let value = Value::Array(records.clone());
    output::value(args.form.form(), &value, || table(&records, output::terminal_width()));
    Ok(ExitCode::SUCCESS)
}

fn table(records: &[Value], width: Option<usize>) -> String {
    let rows = records
        .iter()
        .filter_map(Value::as_object)
        .map(|record| {
            let record = Item(record.clone());
            let number = record.0.get("seq").map(ToString::to_string).unwrap_or_default();
            let at = record.0.get("at").map(moment).unwrap_or_default();
            let what = format!("{} {}", record.text("kind"), record.name()).trim().to_owned();
            let [actor, address, action] =
                ["actor", "address", "action"].map(|field| record.text(field).to_owned());
            vec![number, at, actor, address, action, what]
        })
        .collect();
    fitted_table(&["Number", "Time", "Actor", "From", "Action", "What"], rows, width)
}

async fn export(args: Export) -> Result<ExitCode, CliError> {
    let mut out: Box<dyn std::io::Write> = match &args.out {
        Some(path) => Box::new(std::fs::File::create(path).map_err(|cause| {
            CliError::failure(format!("cannot write {}", path.display())).caused_by(&cause)
        })?),
        None => Box::new(std::io::stdout()),
    };
    let path = format!("/v1/audit{}", args.which.query(&[]));
    let question = Question { accept: "application/x-ndjson", ..Question::new(Method::GET, path) };
    let mut written = Ok(());
    args.access
        .interface()?
        .follow(question, |bytes| {
            written = out.write_all(bytes);
            written.is_ok()
        })
        .await?;
    written.and_then(|()| out.flush()).map_err(|cause| {
        CliError::failure("the audit log could not be written to its end").caused_by(&cause)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `adit watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit watch
  adit watch --since 120 -o json    (one line for each change)")]
pub(crate) struct Watch {
    /// Also what was changed since this revision, as far as the gateway remembers.
    #[arg(long, value_name = "REVISION")]
    since: Option<u64>,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Prints changes as they happen, until the gateway or the user ends it.
pub(crate) async fn watch(args: Watch) -> Result<ExitCode, CliError> {
    let since = args.since.map(|since| since.to_string()).unwrap_or_default();
    let path = format!("/v1/watch{}", query(&[("since", &since)]));
    let question = Question { accept: "text/event-stream", ..Question::new(Method::GET, path) };
    let (form, mut events) = (args.form.form(), Events::default());
    let mut interface = args.access.interface()?;
    interface
        .follow(question, |bytes| {
            for (event, data) in events.take(bytes) {
                output::print(&told(form, &event, &data));
            }
            true
        })
        .await?;
    Err(CliError::failure(format!("{} ended the watch", interface.gateway()))
        .next("it may be draining, or the right to watch has ended; start the command again"))
}

fn told(form: Form, event: &str, data: &Value) -> String {
    let value = || serde_json::json!({ "event": event, "resource": data });
    match form {
        Form::Json => format!("{}\n", value()),
        Form::Yaml => format!("---\n{}", yaml::document(&value())),
        Form::Text => {
            let text =
                |field: &str| data.get(field).and_then(Value::as_str).map(printable).unwrap_or_default();
            let revision = data.get("revision").map(ToString::to_string).unwrap_or_default();
            format!("{event} {} {} (revision {revision})\n", text("kind"), text("name"))
        }
    }
}

/// Server-sent events out of the bytes they arrive in (HTML, "Server-sent events").
#[derive(Debug, Default)]
struct Events {
    rest: Vec<u8>,
}

impl Events {
    fn take(&mut self, bytes: &[u8]) -> Vec<(String, Value)> {
        self.rest.extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
            if let (Some(event), Some(data)) = (field("event:"), field("data:"))
                && let Ok(data) = serde_json::from_str(data)
            {
                found.push((printable(event), data));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_the_actor_of_an_identity() {
        let read = ["carl", "identity:carl", "token:ops", "local"].map(|text| actor(text).unwrap());
        assert_eq!(read, ["identity:carl", "identity:carl", "token:ops", "local"]);
    }

    #[test]
    fn events_are_found_however_they_are_cut() {
        let stream = b": changes from here on\nid: 1\n\nevent: create\nid: 7\ndata: {\"kind\":\"identity\",\"name\":\"x\",\"revision\":7}\n\n: here\n\n";
        for cut in 1..stream.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for part in stream.chunks(cut) {
                found.extend(events.take(part));
            }
            assert_eq!(found.len(), 1, "{cut}");
            assert_eq!(told(Form::Text, &found[0].0, &found[0].1), "create identity x (revision 7)\n");
        }
    }

    #[test]
    fn records_are_a_table() {
        let records = [serde_json::json!({
            "seq": 3, "at": "1970-01-01T00:00:00Z", "actor": "token:ops", "address": "192.0.2.1:5", "action": "create",
            "kind": "identity", "name": "x",
        })];
        assert_eq!(
            table(&records, None),
            "\
Number  Time                  Actor      From         Action  What
3       1970-01-01T00:00:00Z  token:ops  192.0.2.1:5  create  identity x
"
        );
    }
}
