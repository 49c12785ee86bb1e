//! `adit service-policy …`.

use std::process::ExitCode;

use adit_control::model::{Kind, Resource, Semantic, ServicePolicy, Verb};
use adit_proto::name::Name;

use super::common::{self, Common, Labels, new_parts, parts};
use crate::error::CliError;

/// What roles are, for both helps.
const EXAMPLES: &str = "\
Examples:
  adit service-policy create web-dial Dial --service-roles @web --identity-roles '#developers'
  adit service-policy create web-bind Bind --service-roles @web --identity-roles @web.agent
  adit edge create service-policy \"web.dial\" Dial --service-roles \"@web\" --identity-roles \"#developers\"

Roles: #attribute is everybody (or everything) with that attribute, @name is one, #all is all; with commas or repeated.
The semantic combines the attributes of a list: AnyOf (one is enough) or AllOf. Whoever is named with @ is always meant.";

/// Arguments of `service-policy create`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Create {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Dial (reach) or Bind (offer).
    #[arg(value_name = "Dial|Bind")]
    verb: Verb,
    /// Which services.
    #[arg(long, value_name = "ROLE")]
    service_roles: Vec<String>,
    /// Which identities.
    #[arg(long, value_name = "ROLE")]
    identity_roles: Vec<String>,
    /// AnyOf or AllOf.
    #[arg(long, value_name = "SEMANTIC", default_value = "AnyOf")]
    semantic: Semantic,
    #[command(flatten)]
    elsewhere: Elsewhere,
    #[command(flatten)]
    common: Common,
}

/// Flags that are understood so that they can be answered.
#[derive(Debug, Clone, Default, clap::Args)]
struct Elsewhere {
    #[arg(short, long, hide = true, value_name = "ROLE")]
    posture_check_roles: Vec<String>,
    #[command(flatten)]
    labels: Labels,
}

impl Elsewhere {
    fn answer(&self) -> Result<(), CliError> {
        self.labels.answer();
        if self.posture_check_roles.iter().all(String::is_empty) {
            return Ok(());
        }
        Err(CliError::usage("--posture-check-roles cannot be used")
            .because("nothing here checks postures, and a policy without its checks would permit more than you mean")
            .next("leave it out if the policy is right without it"))
    }
}

/// Creates a policy.
pub(crate) async fn create(args: Create) -> Result<ExitCode, CliError> {
    args.elsewhere.answer()?;
    let policy = ServicePolicy {
        name: args.name,
        verb: args.verb,
        semantic: args.semantic,
        service_roles: parts("--service-roles", &args.service_roles)?,
        identity_roles: parts("--identity-roles", &args.identity_roles)?,
    };
    common::create(&args.common, Resource::ServicePolicy(policy)).await
}

/// Arguments of `service-policy update`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  adit service-policy update web-dial --identity-roles '#developers,@alice'")]
pub(crate) struct Update {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Which services from now on.
    #[arg(long, value_name = "ROLE")]
    service_roles: Option<Vec<String>>,
    /// Which identities from now on.
    #[arg(long, value_name = "ROLE")]
    identity_roles: Option<Vec<String>>,
    /// AnyOf or AllOf.
    #[arg(long, value_name = "SEMANTIC")]
    semantic: Option<Semantic>,
    #[command(flatten)]
    elsewhere: Elsewhere,
    #[command(flatten)]
    common: Common,
}

/// Changes a policy.
pub(crate) async fn update(args: Update) -> Result<ExitCode, CliError> {
    args.elsewhere.answer()?;
    let services = new_parts("--service-roles", args.service_roles.as_deref())?;
    let identities = new_parts("--identity-roles", args.identity_roles.as_deref())?;
    common::update(&args.common, Kind::ServicePolicy, &args.name, |resource| {
        if let Resource::ServicePolicy(policy) = resource {
            policy.service_roles = services.unwrap_or_else(|| policy.service_roles.clone());
            policy.identity_roles = identities.unwrap_or_else(|| policy.identity_roles.clone());
            policy.semantic = args.semantic.unwrap_or(policy.semantic);
        }
        Ok(())
    })
    .await
}
