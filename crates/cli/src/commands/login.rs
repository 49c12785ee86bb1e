//! `adit login`, `adit logout` and `adit use`: which gateway the other commands ask, and as whom.

use std::path::PathBuf;
use std::process::ExitCode;

use adit_telemetry::secret::Secret;

use crate::access::{TrustArgs, gateway_url};
use crate::control_client::Client;
use crate::error::CliError;
use crate::interface::Interface;
use crate::logins::Logins;
use crate::output::{self, FormArgs, fitted_table};
use crate::{access, flags};

/// Arguments of `adit login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit login wss://gateway.example.com:8123 --token-file admin.token
  adit login gateway.example.com --identity alice.json
  adit edge login gateway.example.com:8123 -u admin -p \"$TOKEN\" -y

The gateway is asked who you are before anything is remembered. What is remembered stands in gateways.json of
ADIT_CONFIG_DIR, else of ~/.config/adit, readable for you alone.")]
pub(crate) struct Login {
    /// The gateway's control port: wss://HOST:8123, HOST:PORT, or HOST alone.
    #[arg(value_name = "URL")]
    url: String,
    /// What to call it in `adit use` and --gateway; HOST:PORT when left out.
    #[arg(short = 'n', long, short_alias = 'i', alias = "cli-identity", value_name = "NAME")]
    name: Option<String>,
    /// The identity file of an administrator.
    #[arg(long, short_alias = 'f', alias = "file", value_name = "FILE", conflicts_with = "identity_file")]
    identity: Option<PathBuf>,
    /// Accepted and not needed: the token says who you are.
    #[arg(short, long, hide = true, value_name = "NAME")]
    username: Option<String>,
    /// An admin token; visible in the process list, so better --token-file or --token-env.
    #[arg(short, long, hide = true, value_name = "TOKEN", value_parser = flags::secret)]
    password: Option<Secret>,
    /// Accepted and not needed: nothing is asked.
    #[arg(short, long)]
    yes: bool,
    /// Print nothing.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Asks the gateway who this is, and remembers it.
pub(crate) async fn login(args: Login) -> Result<ExitCode, CliError> {
    let url = gateway_url("the gateway", &args.url)?;
    let name = args.name.unwrap_or_else(|| format!("{}:{}", url.host, url.port));
    let trust = args.trust.with(args.identity, args.password)?;
    let login = trust.login()?;
    let mut interface = Interface::new(Client::new(trust.target(url.clone(), &login)?));
    let who = interface.whoami().await?;
    let mut logins = Logins::load()?;
    logins.add(&name, &url, login);
    let path = logins.save()?;
    if !args.quiet {
        let rights = if who.admin { "" } else { ", without the right to change anything" };
        output::line(format_args!(
            "logged in to {url} as {}{rights}; remembered in {}",
            output::printable(&who.name),
            path.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `adit logout`.
#[derive(Debug, clap::Args)]
pub(crate) struct Logout {
    /// Which gateway, by its name; the current one when left out.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print nothing.
    #[arg(short, long)]
    quiet: bool,
}

/// Forgets a gateway.
pub(crate) fn logout(args: Logout) -> Result<ExitCode, CliError> {
    let mut logins = Logins::load()?;
    let name = args.name.or_else(|| logins.current_name().map(str::to_owned)).ok_or_else(|| {
        CliError::usage("nothing says which gateway")
            .because("none is the current one")
            .next("adit use lists them; name the one to forget: adit logout NAME")
    })?;
    logins.remove(&name)?;
    logins.save()?;
    if !args.quiet {
        output::line(format_args!("{name} is forgotten"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `adit use`.
#[derive(Debug, clap::Args)]
pub(crate) struct Use {
    /// The gateway that commands ask from now on, by its name; lists all of them when left out.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    form: FormArgs,
}

/// Chooses a gateway, or lists them.
pub(crate) fn choose(args: &Use) -> Result<ExitCode, CliError> {
    let mut logins = Logins::load()?;
    if let Some(name) = &args.name {
        logins.choose(name)?;
        logins.save()?;
        if !args.form.quiet {
            output::line(format_args!("commands ask {name} from now on"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let value = logins
        .iter()
        .map(|(name, login)| {
            let is_current = logins.current_name() == Some(name);
            serde_json::json!({ "name": name, "url": login.url(), "as": login.whose(), "current": is_current })
        })
        .collect();
    output::value(args.form.form(), &value, || {
        let row = |(name, login): (&String, &crate::logins::Login)| {
            let mark = if logins.current_name() == Some(name) { "*" } else { "" };
            vec![mark.to_owned(), name.clone(), login.url().to_owned(), login.whose()]
        };
        let rows = logins.iter().map(row).collect();
        fitted_table(&["Current", "Name", "URL", "As"], rows, output::terminal_width())
    });
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `adit whoami`.
#[derive(Debug, clap::Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    access: access::AccessArgs,
}

/// Asks the gateway who this is.
pub(crate) async fn whoami(args: Whoami) -> Result<ExitCode, CliError> {
    let mut interface = args.access.interface()?;
    let value: serde_json::Value = interface.get("/v1/whoami".to_owned()).await?;
    let gateway = interface.gateway();
    output::value(args.form.form(), &value, || {
        let name = value.get("name").and_then(serde_json::Value::as_str).unwrap_or("nobody it knows");
        let is_admin = value.get("admin").and_then(serde_json::Value::as_bool).unwrap_or_default();
        let rights = if is_admin { "may change resources" } else { "may not change resources" };
        format!("{} at {gateway}, {rights}\n", output::printable(name))
    });
    Ok(ExitCode::SUCCESS)
}
