//! `adit edge …`: the forms that people know from OpenZiti. Every verb ends in the same code as its short form.

use std::ffi::OsString;
use std::process::ExitCode;

use adit_control::model::Kind;
use clap::Subcommand;

use super::login;
use super::resources::common::{self, Delete, List, Show};
use super::resources::{config, identity, policy, route, service, token};
use crate::config::problem::nearest;
use crate::error::CliError;

/// What `adit edge` can be followed by.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a resource.
    #[command(subcommand, arg_required_else_help = true)]
    Create(Create),
    /// Change a resource.
    #[command(subcommand, arg_required_else_help = true)]
    Update(Update),
    /// Delete resources, by name or `where` a filter matches.
    #[command(subcommand, arg_required_else_help = true)]
    Delete(DeleteKind),
    /// List resources.
    #[command(subcommand, arg_required_else_help = true)]
    List(ListKind),
    /// Show a resource.
    #[command(subcommand, arg_required_else_help = true)]
    Show(ShowKind),
    /// Turn a one-time token into an identity (adit enroll).
    Enroll(super::enroll::Args),
    /// Remember a gateway and as whom it is asked (adit login).
    Login(login::Login),
    /// Forget a gateway (adit logout).
    Logout(login::Logout),
    /// Choose among the gateways logged in to, or list them (adit use).
    Use(login::Use),
    /// Tell who may reach and offer what, in one line each.
    #[command(subcommand, arg_required_else_help = true)]
    PolicyAdvisor(super::advisor::Advise),
}

/// What can be created.
#[derive(Debug, Subcommand)]
pub(crate) enum Create {
    /// An identity, and a token to enroll it with.
    Identity(identity::Create),
    /// A service.
    Service(service::Create),
    /// A config of a service.
    Config(config::Create),
    /// A policy: who may reach or offer which services.
    ServicePolicy(policy::Create),
    /// A route: hosts and ports that lead to a service.
    Route(route::Create),
    /// A token, with limits on what its agents may offer.
    Token(token::Create),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// What can be changed.
#[derive(Debug, Subcommand)]
pub(crate) enum Update {
    /// An identity.
    Identity(identity::Update),
    /// A service.
    Service(service::Update),
    /// A config of a service.
    Config(config::Update),
    /// A policy.
    ServicePolicy(policy::Update),
    /// A route.
    Route(route::Update),
    /// A token.
    Token(token::Update),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

macro_rules! kinds {
    ($name:ident, $args:ty, $about:literal) => {
        #[doc = $about]
        #[derive(Debug, Subcommand)]
        pub(crate) enum $name {
            /// Identities.
            #[command(name = "identity", alias = "identities")]
            Identity($args),
            /// Services.
            #[command(name = "service", alias = "services")]
            Service($args),
            /// Configs of services.
            #[command(name = "config", alias = "configs")]
            Config($args),
            /// Policies.
            #[command(name = "service-policy", alias = "service-policies")]
            ServicePolicy($args),
            /// Routes.
            #[command(name = "route", alias = "routes")]
            Route($args),
            /// Tokens.
            #[command(name = "token", alias = "tokens")]
            Token($args),
            #[command(external_subcommand)]
            Other(Vec<OsString>),
        }

        impl $name {
            fn kind(self) -> Result<(Kind, $args), CliError> {
                Ok(match self {
                    Self::Identity(args) => (Kind::Identity, args),
                    Self::Service(args) => (Kind::Service, args),
                    Self::Config(args) => (Kind::Config, args),
                    Self::ServicePolicy(args) => (Kind::ServicePolicy, args),
                    Self::Route(args) => (Kind::Route, args),
                    Self::Token(args) => (Kind::Token, args),
                    Self::Other(words) => return Err(other(&words)),
                })
            }
        }
    };
}

kinds!(DeleteKind, Delete, "What can be deleted.");
kinds!(ListKind, List, "What can be listed.");
kinds!(ShowKind, Show, "What can be shown.");

impl Verb {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Self::Create(noun) => Box::pin(noun.run()).await,
            Self::Update(noun) => Box::pin(noun.run()).await,
            Self::Delete(noun) => {
                let (kind, args) = noun.kind()?;
                common::delete(kind, args).await
            }
            Self::List(noun) => {
                let (kind, args) = noun.kind()?;
                common::list(kind, args).await
            }
            Self::Show(noun) => {
                let (kind, args) = noun.kind()?;
                common::show(kind, args).await
            }
            Self::Enroll(args) => Box::pin(super::enroll::run(args)).await,
            Self::Login(args) => Box::pin(login::login(args)).await,
            Self::Logout(args) => login::logout(args),
            Self::Use(args) => login::choose(&args),
            Self::PolicyAdvisor(advise) => Box::pin(super::advisor::run(advise)).await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Self::Identity(args) => identity::create(args).await,
            Self::Service(args) => service::create(args).await,
            Self::Config(args) => config::create(args).await,
            Self::ServicePolicy(args) => policy::create(args).await,
            Self::Route(args) => route::create(args).await,
            Self::Token(args) => token::create(args).await,
            Self::Other(words) => Err(other(&words)),
        }
    }
}

impl Update {
    async fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Self::Identity(args) => identity::update(args).await,
            Self::Service(args) => service::update(args).await,
            Self::Config(args) => config::update(args).await,
            Self::ServicePolicy(args) => policy::update(args).await,
            Self::Route(args) => route::update(args).await,
            Self::Token(args) => token::update(args).await,
            Self::Other(words) => Err(other(&words)),
        }
    }
}

/// What the other tool has and this one does not, and why.
fn other(words: &[OsString]) -> CliError {
    let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let (one, next) = (word.to_ascii_lowercase(), "leave the command out");
    let stem = one
        .strip_suffix("ies")
        .map_or_else(|| one.trim_end_matches('s').to_owned(), |stem| format!("{stem}y"));
    let why = match stem.as_str() {
        "edge-router" | "edge-router-policy" | "service-edge-router-policy" | "transit-router" => {
            "there are no routers: every agent has its session with the gateway, and a policy is all that is needed"
        }
        "posture-check" => "nothing here checks postures",
        "terminator" | "session" | "api-session" | "circuit" => {
            return CliError::usage(format!("there is nothing called `{word}` here"))
                .because("agents say what they offer when they connect")
                .next("adit status lists who is connected, adit explain dial who offers a service");
        }
        "summary" => {
            return CliError::usage("there is no summary of resources")
                .because("all of them can be exported")
                .next("adit export, or adit edge list KIND");
        }
        "config-type" => "there are two, host.v1 and intercept.v1, and they cannot be changed",
        "ca" | "auth-policy" | "authenticator" | "ext-jwt-signer" => {
            "identities are known by certificates of the gateway's own authority, and by nothing else"
        }
        "enrollment" => {
            return CliError::usage(format!("there is nothing called `{word}` here"))
                .because("an identity's token to enroll with is made by a command of its own")
                .next("adit identity enroll-token NAME -o FILE");
        }
        _ => {
            let kinds = Kind::ALL.map(Kind::singular);
            let hint = nearest(&word, kinds.into_iter()).map_or_else(
                || format!("there are {}", kinds.join(", ")),
                |kind| format!("did you mean {kind}?"),
            );
            return CliError::usage(format!("`{word}` is no kind of resource")).next(hint);
        }
    };
    CliError::usage(format!("there is nothing called `{word}` here")).because(why).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(word: &str) -> String {
        other(&[word.into()]).to_string()
    }

    #[test]
    fn what_only_the_other_tool_has_is_answered_and_mistypings_are_corrected() {
        assert!(said("edge-router-policy").contains("there are no routers"));
        assert!(said("service-edge-router-policies").contains("there are no routers"));
        assert!(said("enrollments").contains("adit identity enroll-token NAME"));
        assert!(said("identiy").contains("did you mean identity?"));
        assert!(said("zebra").contains("there are identity, token, config"));
    }
}
