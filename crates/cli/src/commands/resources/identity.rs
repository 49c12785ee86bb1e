//! `adit identity …`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adit_control::model::{Identity, Kind, Resource};
use adit_proto::name::Name;

use super::common::{self, Common, Labels, created, new_parts, parts, read, secret_file};
use crate::access::AccessArgs;
use crate::duration;
use crate::error::CliError;
use crate::interface::{Interface, Invitation, Revoked, moment};
use crate::output::{self, Form, LongFormArgs};
use crate::private_file::Pending;

/// Arguments of `identity create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit identity create dev.client -a prometheus-clients,reflectz-clients -o dev.client.jwt
  adit edge create identity user dev.client -a \"prometheus-clients\",\"reflectz-clients\"
  adit identity create alice --admin -o alice.jwt

The token in FILE enrolls the identity once (adit enroll FILE -o identity.json). Without -o no token is made;
adit identity enroll-token NAME -o FILE makes one at any time.")]
pub(crate) struct Create {
    /// Its name. `user NAME`, `device NAME` and `service NAME` are accepted and mean the same.
    #[arg(value_name = "NAME", required = true, num_args = 1..=2)]
    name: Vec<String>,
    /// What policies can select it by; with commas or repeated.
    #[arg(short = 'a', long, visible_alias = "role-attributes", value_name = "ATTRIBUTE")]
    attributes: Vec<String>,
    /// Where the token to enroll with is written (mode 0600).
    #[arg(short = 'o', long, visible_alias = "enroll-token", value_name = "FILE")]
    jwt_output_file: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long, requires = "jwt_output_file")]
    force: bool,
    /// How long the token can be used, 30d at most; 3h when left out.
    #[arg(long, value_name = "DURATION", value_parser = duration::ttl, requires = "jwt_output_file")]
    ttl: Option<Duration>,
    /// It may change resources.
    #[arg(short = 'A', long)]
    admin: bool,
    /// It may read /metrics of the gateway.
    #[arg(long)]
    metrics: bool,
    #[command(flatten)]
    elsewhere: Elsewhere,
    #[command(flatten)]
    form: LongFormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Flags that are understood so that they can be answered.
#[derive(Debug, Clone, Default, clap::Args)]
struct Elsewhere {
    #[arg(short = 'P', long, hide = true, value_name = "POLICY")]
    auth_policy: Option<String>,
    #[arg(long, hide = true, value_name = "ID")]
    external_id: Option<String>,
    #[arg(long, hide = true, value_name = "KEY=VALUE")]
    app_data: Vec<String>,
    #[arg(long, hide = true, value_name = "JSON")]
    app_data_json: Option<String>,
    #[arg(long, hide = true, value_name = "USER")]
    updb: Option<String>,
    #[command(flatten)]
    labels: Labels,
}

impl Elsewhere {
    fn answer(&self) -> Result<(), CliError> {
        self.labels.answer();
        if !self.app_data.is_empty() || self.app_data_json.is_some() {
            output::note("--app-data is not kept: nothing here reads it");
        }
        match self.auth_policy.as_deref() {
            None | Some("default") => {}
            Some(policy) => {
                return Err(CliError::usage(format!("-P {policy} cannot be used"))
                    .because(
                        "there are no policies for how to authenticate: every identity has a certificate",
                    )
                    .next("leave -P out"));
            }
        }
        let by = [("--external-id", self.external_id.is_some()), ("--updb", self.updb.is_some())];
        match by.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(CliError::usage(format!("{flag} cannot be used"))
                .because("identities are known by certificates that they enroll for, and by nothing else")
                .next("leave it out, and enroll the identity with the token of -o FILE")),
        }
    }
}

/// The name, without the type that older scripts put in front.
fn name(words: &[String]) -> Result<Name, CliError> {
    match words {
        [name] => read("the name", name),
        [kind, name] if matches!(kind.as_str(), "user" | "device" | "service") => read("the name", name),
        _ => Err(CliError::usage(format!("`{}` is not one name", words.join(" ")))
            .because("only user, device or service may stand in front of it")
            .next("write adit identity create NAME")),
    }
}

/// Creates an identity, and the token to enroll it with when there is a file for it.
pub(crate) async fn create(args: Create) -> Result<ExitCode, CliError> {
    args.elsewhere.answer()?;
    let name = name(&args.name)?;
    let file = secret_file(args.jwt_output_file.as_deref())?;
    if file.is_none() && args.jwt_output_file.is_some() {
        return Err(CliError::usage("-o - cannot be used here")
            .next(format!("create {name}, then print its token: adit identity enroll-token {name} -o -")));
    }
    let attributes = parts("-a", &args.attributes)?;
    let (admin, metrics) = (args.admin, args.metrics);
    let resource =
        Resource::Identity(Identity { name: name.clone(), attributes, admin, metrics, disabled: false });
    // What cannot be written must not be found out when the identity is there already.
    let pending =
        file.map(|file| Pending::new_at(&file, args.force).map(|pending| (pending, file))).transpose()?;
    let mut interface = args.access.interface()?;
    let item = created(&mut interface, &resource).await?;
    common::tell(args.form.form(), args.form.quiet, Kind::Identity, item, "created");
    let Some((pending, file)) = pending else {
        if args.form.form() == Form::Text && !args.form.quiet {
            output::line(format_args!("to enroll it: adit identity enroll-token {name} -o {name}.jwt"));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let invitation = invite(&mut interface, &name, args.ttl).await.map_err(|error| {
        let (what, next) = error.what_and_next();
        let force = if args.force { " --force" } else { "" };
        let again =
            format!("the identity is there; adit identity enroll-token {name} -o {}{force}", file.display());
        CliError::failure(what).next(next.map_or_else(|| again.clone(), |next| format!("{next}; {again}")))
    })?;
    pending.write(&invitation.jwt)?;
    if args.form.form() == Form::Text && !args.form.quiet {
        tell_of(&invitation, &file.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

async fn invite(
    interface: &mut Interface,
    name: &Name,
    ttl: Option<Duration>,
) -> Result<Invitation, CliError> {
    interface.invite(name, ttl.map(|ttl| ttl.as_secs())).await
}

fn tell_of(invitation: &Invitation, file: &str) {
    output::line(format_args!(
        "token written to {file}: it enrolls once, until {}\nto enroll: adit enroll {file}",
        moment(&invitation.expires_at)
    ));
}

/// Arguments of `identity update`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit identity update dev.client -a prometheus-clients
  adit identity update dev.client -a \"\"           (no attribute at all)
  adit identity update dev.client --disabled=true  (out at once, until --disabled=false)")]
pub(crate) struct Update {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Its attributes from now on, in place of those it had.
    #[arg(short = 'a', long, visible_alias = "role-attributes", value_name = "ATTRIBUTE")]
    attributes: Option<Vec<String>>,
    /// Whether it may change resources.
    #[arg(short = 'A', long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = crate::flags::go_bool)]
    admin: Option<bool>,
    /// Whether it may read /metrics of the gateway.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = crate::flags::go_bool)]
    metrics: Option<bool>,
    /// Whether it is kept out, with everything it has open.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = crate::flags::go_bool)]
    disabled: Option<bool>,
    #[command(flatten)]
    elsewhere: Elsewhere,
    #[command(flatten)]
    common: Common,
}

/// Changes an identity.
pub(crate) async fn update(args: Update) -> Result<ExitCode, CliError> {
    args.elsewhere.answer()?;
    let attributes = new_parts("-a", args.attributes.as_deref())?;
    common::update(&args.common, Kind::Identity, &args.name, |resource| {
        if let Resource::Identity(identity) = resource {
            identity.attributes = attributes.unwrap_or_else(|| identity.attributes.clone());
            identity.admin = args.admin.unwrap_or(identity.admin);
            identity.metrics = args.metrics.unwrap_or(identity.metrics);
            identity.disabled = args.disabled.unwrap_or(identity.disabled);
        }
        Ok(())
    })
    .await
}

/// Arguments of `identity enroll-token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  adit identity enroll-token dev.client -o dev.client.jwt --ttl 30m")]
pub(crate) struct EnrollToken {
    /// The identity's name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Where the token is written (mode 0600); standard output when left out.
    #[arg(short = 'o', long, value_name = "FILE")]
    jwt_output_file: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long, requires = "jwt_output_file")]
    force: bool,
    /// How long it can be used, 30d at most; 3h when left out.
    #[arg(long, value_name = "DURATION", value_parser = duration::ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    form: LongFormArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Makes a token to enroll with.
pub(crate) async fn enroll_token(args: EnrollToken) -> Result<ExitCode, CliError> {
    let file = secret_file(args.jwt_output_file.as_deref())?;
    let pending = file.as_deref().map(|file| Pending::new_at(file, args.force)).transpose()?;
    let invitation = invite(&mut args.access.interface()?, &args.name, args.ttl).await?;
    match (pending, file) {
        (Some(pending), Some(file)) => {
            pending.write(&invitation.jwt)?;
            if !args.form.quiet {
                tell_of(&invitation, &file.display().to_string());
            }
        }
        _ => {
            let value = serde_json::json!({
                "identity": args.name, "jwt": invitation.jwt, "expires_at": invitation.expires_at
            });
            output::value(args.form.form(), &value, || format!("{}\n", invitation.jwt));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `identity revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit identity revoke dev.client
  adit identity revoke dev.client --serial 5f3a   (as adit identity show dev.client tells it)")]
pub(crate) struct Revoke {
    /// The identity's name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Only the certificate with this serial number and those that were renewed from it; all when left out.
    #[arg(long, value_name = "SERIAL")]
    serial: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Revokes certificates.
pub(crate) async fn revoke(args: Revoke) -> Result<ExitCode, CliError> {
    let Revoke { name, serial, common } = args;
    if serial.as_deref().is_some_and(|serial| !serial.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(CliError::usage("--serial takes hexadecimal digits")
            .next(format!("adit identity show {name} tells the serial numbers")));
    }
    let serial = serial.map(|serial| serial.to_ascii_lowercase());
    let revoked = common.access.interface()?.revoke(&name, serial.as_deref()).await?;
    if !common.form.quiet {
        let value = serde_json::json!({
            "identity": name, "serial": serial, "revoked": revoked.serials, "remaining": revoked.remaining,
        });
        output::value(common.form.form(), &value, || {
            format!(
                "identity {name}: {}\nto enroll it anew: adit identity enroll-token {name} -o {name}.jwt\n",
                taken_back(serial.as_deref(), &revoked)
            )
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// What is not good any more, and what still is.
fn taken_back(serial: Option<&str>, Revoked { serials, remaining }: &Revoked) -> String {
    let Some(serial) = serial else { return "every certificate is revoked".to_owned() };
    let others: Vec<&str> = serials.iter().map(String::as_str).filter(|it| *it != serial).collect();
    let along = match &others[..] {
        [] => "is revoked".to_owned(),
        others => format!("is revoked, with those that were renewed from it: {}", others.join(", ")),
    };
    let still = match &remaining[..] {
        [] => "no other is good".to_owned(),
        good => format!("still good: {}", good.join(", ")),
    };
    output::printable(&format!("certificate {serial} {along}; {still}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_one_serial_number_takes_back_and_leaves_is_told() {
        let told = |serials: &[&str], remaining: &[&str]| {
            let all = |these: &[&str]| these.iter().map(|it| (*it).to_owned()).collect();
            taken_back(Some("a1"), &Revoked { serials: all(serials), remaining: all(remaining) })
        };
        assert_eq!(told(&["a1"], &[]), "certificate a1 is revoked; no other is good");
        assert_eq!(
            told(&["a1", "a2"], &["b0", "b1"]),
            "certificate a1 is revoked, with those that were renewed from it: a2; still good: b0, b1"
        );
    }

    #[test]
    fn the_type_in_front_of_a_name_means_nothing() {
        for text in ["a", "user a", "device a", "service a"] {
            assert_eq!(name(&words(text)).unwrap().as_str(), "a");
        }
        assert_eq!(name(&words("user")).unwrap().as_str(), "user");
        assert!(name(&words("robot a")).unwrap_err().to_string().contains("only user, device or service"));
        assert!(name(&words("user @a")).unwrap_err().to_string().contains("must begin"));
    }

    #[test]
    fn what_the_other_tool_has_and_we_do_not_is_answered() {
        let refused = |elsewhere: Elsewhere| elsewhere.answer().unwrap_err().to_string();
        let policy = Elsewhere { auth_policy: Some("strict".into()), ..Elsewhere::default() };
        assert!(refused(policy).contains("every identity has a certificate"));
        let external = Elsewhere { external_id: Some("x".into()), ..Elsewhere::default() };
        assert!(refused(external).contains("--external-id cannot be used"));
        let fine = Elsewhere {
            auth_policy: Some("default".into()),
            app_data: vec!["a=b".into()],
            ..Elsewhere::default()
        };
        assert!(fine.answer().is_ok());
    }
}
