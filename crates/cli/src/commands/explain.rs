//! `adit explain`: why somebody may or may not reach or offer a service, and the command that would change it.

use std::process::ExitCode;

use adit_control::explain::Explanation;
use adit_proto::name::Name;
use serde_json::Value;

use super::apply::DIFFERS;
use crate::access::AccessArgs;
use crate::error::CliError;
use crate::interface::{Interface, query};
use crate::output::{self, Form, FormArgs};

/// What is asked about.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Why an identity may or may not reach a service.
    Dial(Args),
    /// Why an identity may or may not offer a service.
    Bind(Args),
}

/// Arguments of `adit explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit explain dial --identity dev.client --service local.prometheus.svc
  adit explain dial --identity dev.client --to local.prometheus.svc:80
  adit explain dial --identity public --to app.example.com:443
  adit explain bind --identity web.agent --service web -o json
  adit explain dial --identity public --service web --detailed-exitcode   (0 allowed, 4 denied)

The answer shows the policies that matched and those that nearly did, who offers the service now, and the command that
would change the verdict.")]
#[command(group = clap::ArgGroup::new("target").args(["service", "to"]).required(true).multiple(true))]
pub(crate) struct Args {
    /// Who: an identity, a token, or `public` for clients of public listeners.
    #[arg(long, value_name = "NAME")]
    identity: Name,
    /// Which service.
    #[arg(long, value_name = "SERVICE")]
    service: Option<Name>,
    /// Where a client would connect to. An identity finds a service there by its intercept.v1 config, clients of public
    /// listeners by a route, or what agents offer themselves.
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    /// End with exit code 4 when it is denied.
    #[arg(long)]
    detailed_exitcode: bool,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Asks and prints the answer.
pub(crate) async fn run(verb: Verb) -> Result<ExitCode, CliError> {
    let (verb, args) = match verb {
        Verb::Dial(args) => ("dial", args),
        Verb::Bind(args) => ("bind", args),
    };
    let service = args.service.as_ref().map_or("", Name::as_str);
    let to = args.to.as_deref().unwrap_or_default();
    let has_port =
        to.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if args.to.is_some() && !has_port {
        return Err(CliError::usage(format!("--to {to} cannot be used"))
            .because("it is no host with a port")
            .next(format!("write --to {}:80", if to.is_empty() { "HOST" } else { to })));
    }
    let value = ask(&mut args.access.interface()?, verb, args.identity.as_str(), service, to).await?;
    let explanation = read(&value)?;
    if args.form.quiet && args.form.form() == Form::Text {
        output::line(output::printable(&explanation.verdict));
    } else {
        output::value(args.form.form(), &value, || lines(&explanation));
    }
    let is_no = args.detailed_exitcode && !explanation.allowed;
    Ok(if is_no { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS })
}

/// The gateway's answer.
pub(crate) async fn ask(
    interface: &mut Interface,
    verb: &str,
    identity: &str,
    service: &str,
    to: &str,
) -> Result<Value, CliError> {
    let query = query(&[("verb", verb), ("identity", identity), ("service", service), ("to", to)]);
    interface.get(format!("/v1/explain{query}")).await
}

/// The answer as the code that made it knows it.
pub(crate) fn read(value: &Value) -> Result<Explanation, CliError> {
    serde_json::from_value(value.clone()).map_err(|cause| {
        CliError::failure("the gateway's explanation cannot be read")
            .caused_by(&cause)
            .next("compare `adit version` on both sides, or look at -o json")
    })
}

/// As people read it. Agents chose some of the words; a terminal must not obey them.
fn lines(explanation: &Explanation) -> String {
    explanation.to_string().lines().map(|line| format!("{}\n", output::printable(line))).collect()
}
