//! `adit token …`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use adit_control::model::{Kind, Limits, Resource, Token};
use adit_proto::name::Name;
use serde_json::Value;

use super::common::{self, Common, created, new_parts, parts, secret_file};
use crate::access::AccessArgs;
use crate::duration;
use crate::error::CliError;
use crate::interface::moment;
use crate::output::{self, Form, LongFormArgs};
use crate::private_file::Pending;

/// What a token's agents may offer without a policy.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LimitArgs {
    /// Hosts that its agents may offer: app.example.com, *.example.com; with commas or repeated.
    #[arg(long, value_name = "HOST")]
    hosts: Option<Vec<String>>,
    /// Ports that its agents may offer: 5432, 8000-8010; with commas or repeated.
    #[arg(long, value_name = "PORTS")]
    ports: Option<Vec<String>>,
    /// Services that its agents may offer, by name; with commas or repeated.
    #[arg(long, value_name = "SERVICE")]
    services: Option<Vec<String>>,
}

impl LimitArgs {
    fn limits(&self) -> Result<Limits, CliError> {
        Ok(Limits {
            hosts: new_parts("--hosts", self.hosts.as_deref())?,
            ports: new_parts("--ports", self.ports.as_deref())?,
            services: new_parts("--services", self.services.as_deref())?,
        })
    }
}

/// Arguments of `token create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit token create shop --hosts shop.example.com -o shop.token
  adit token create db --ports 5432,8000-8010 -o db.token
  adit token create ci --admin -o ci.token
  adit token create prometheus --metrics -o prometheus.token

Without --hosts, --ports, --services and --metrics its agents may offer everything. The secret is shown or written this \
once.")]
pub(crate) struct Create {
    /// Its name, which is also that of the identity of its agents.
    #[arg(value_name = "NAME")]
    name: Name,
    #[command(flatten)]
    limits: LimitArgs,
    /// What policies can select its identity by; with commas or repeated.
    #[arg(short = 'a', long, visible_alias = "role-attributes", value_name = "ATTRIBUTE")]
    attributes: Vec<String>,
    /// Who has it may change resources.
    #[arg(short = 'A', long)]
    admin: bool,
    /// Who has it may read /metrics of the gateway; without --hosts, --ports and --services it may offer nothing.
    #[arg(long)]
    metrics: bool,
    /// Where the secret is written (mode 0600); standard output when left out.
    #[arg(short = 'o', long, value_name = "FILE")]
    token_output_file: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long, requires = "token_output_file")]
    force: bool,
    #[command(flatten)]
    form: LongFormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Creates a token.
pub(crate) async fn create(args: Create) -> Result<ExitCode, CliError> {
    let file = secret_file(args.token_output_file.as_deref())?;
    let mut limits = args.limits.limits()?;
    if args.metrics && limits.is_everything() {
        limits.hosts = Some(Vec::new());
    }
    let resource = Resource::Token(Token {
        name: args.name.clone(),
        attributes: parts("-a", &args.attributes)?,
        limits,
        admin: args.admin,
        metrics: args.metrics,
        disabled: false,
    });
    let pending = file.as_deref().map(|file| Pending::new_at(file, args.force)).transpose()?;
    let mut item = created(&mut args.access.interface()?, &resource).await?;
    let secret = secret_of(item.0.get("token"))?;
    if let Some(pending) = pending {
        item.0.remove("token");
        pending.write(format!("{secret}\n"))?;
    }
    let told = format!("token {} created", args.name);
    tell(args.form, &Value::Object(item.0), &secret, file.as_deref(), &told);
    Ok(ExitCode::SUCCESS)
}

fn secret_of(value: Option<&Value>) -> Result<String, CliError> {
    value.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
        CliError::failure("the gateway did not tell the token's secret")
            .next("adit token rotate NAME makes a new one; compare `adit version` on both sides")
    })
}

/// Tells of a secret: as a file if there is one, else the secret itself, which nobody will see again.
fn tell(form: LongFormArgs, value: &Value, secret: &str, file: Option<&Path>, what: &str) {
    match (file, form.quiet) {
        (Some(_), true) => {}
        (None, true) => output::line(secret),
        (Some(file), false) => {
            output::value(form.form(), value, || format!("{what}; its secret is in {}\n", file.display()))
        }
        (None, false) => {
            output::value(form.form(), value, || format!("{secret}\n"));
            if form.form() == Form::Text {
                output::note(format_args!("{what}; nobody will see this secret again"));
            }
        }
    }
}

/// Arguments of `token update`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit token update shop --hosts shop.example.com,www.example.com
  adit token update shop --no-limits")]
pub(crate) struct Update {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    #[command(flatten)]
    limits: LimitArgs,
    /// Its agents may offer everything from now on.
    #[arg(long, conflicts_with_all = ["hosts", "ports", "services"])]
    no_limits: bool,
    /// Its attributes from now on, in place of those it had.
    #[arg(short = 'a', long, visible_alias = "role-attributes", value_name = "ATTRIBUTE")]
    attributes: Option<Vec<String>>,
    /// Whether who has it may change resources.
    #[arg(short = 'A', long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = crate::flags::go_bool)]
    admin: Option<bool>,
    /// Whether who has it may read /metrics of the gateway.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = crate::flags::go_bool)]
    metrics: Option<bool>,
    /// Whether it is kept out, with everything it has open.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = crate::flags::go_bool)]
    disabled: Option<bool>,
    #[command(flatten)]
    common: Common,
}

/// Changes a token.
pub(crate) async fn update(args: Update) -> Result<ExitCode, CliError> {
    let attributes = new_parts("-a", args.attributes.as_deref())?;
    let limits = args.limits.limits()?;
    common::update(&args.common, Kind::Token, &args.name, |resource| {
        if let Resource::Token(token) = resource {
            if args.no_limits {
                token.limits = Limits::default();
            }
            token.limits.hosts = limits.hosts.or_else(|| token.limits.hosts.clone());
            token.limits.ports = limits.ports.or_else(|| token.limits.ports.clone());
            token.limits.services = limits.services.or_else(|| token.limits.services.clone());
            token.attributes = attributes.unwrap_or_else(|| token.attributes.clone());
            token.admin = args.admin.unwrap_or(token.admin);
            token.metrics = args.metrics.unwrap_or(token.metrics);
            token.disabled = args.disabled.unwrap_or(token.disabled);
        }
        Ok(())
    })
    .await
}

/// Arguments of `token rotate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit token rotate shop --window 24h -o shop.token --force
  adit token rotate shop --window 0s -o shop.new     (the old secret is refused at once)")]
pub(crate) struct Rotate {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// How long the old secret is taken beside the new one, 30d at most; 1h when left out.
    #[arg(long, value_name = "DURATION", value_parser = duration::window)]
    window: Option<Duration>,
    /// Where the new secret is written (mode 0600); standard output when left out.
    #[arg(short = 'o', long, value_name = "FILE")]
    token_output_file: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long, requires = "token_output_file")]
    force: bool,
    #[command(flatten)]
    form: LongFormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Gives a token a new secret.
pub(crate) async fn rotate(args: Rotate) -> Result<ExitCode, CliError> {
    let file = secret_file(args.token_output_file.as_deref())?;
    let pending = file.as_deref().map(|file| Pending::new_at(file, args.force)).transpose()?;
    let window = args.window.map(|window| window.as_secs());
    let rotated = args.access.interface()?.rotate(&args.name, window).await?;
    let mut value = serde_json::json!({ "name": args.name, "old_until": rotated.old_until });
    match pending {
        Some(pending) => pending.write(format!("{}\n", rotated.token))?,
        None => value["token"] = rotated.token.clone().into(),
    }
    let old = match &rotated.old_until {
        Value::Null => "no other is taken".to_owned(),
        until => format!("the old one is taken until {}", moment(until)),
    };
    let told = format!("token {} has a new secret; {old}", args.name);
    tell(args.form, &value, &rotated.token, file.as_deref(), &told);
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `token revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit token revoke shop
  adit token rotate shop -o shop.new       (the way back: a new secret, and the same rights)

What was revoked is never taken again. To keep a token out for a while, with the same secret afterwards:
adit token update shop --disabled, and --disabled=false.")]
pub(crate) struct Revoke {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    #[command(flatten)]
    common: Common,
}

/// Takes a token's secrets back.
pub(crate) async fn revoke(args: Revoke) -> Result<ExitCode, CliError> {
    let Revoke { name, common } = args;
    common.access.interface()?.revoke_secrets(&name).await?;
    if !common.form.quiet {
        let value = serde_json::json!({ "name": name, "revoked": true });
        output::value(common.form.form(), &value, || {
            format!(
                "token {name}: every secret is revoked\nto give it a new one: adit token rotate {name} -o {name}.new\n"
            )
        });
    }
    Ok(ExitCode::SUCCESS)
}
