//! Identities, services, configs, policies, routes and tokens: created, changed, shown.
//!
//! `adit identity create …` and `adit edge create identity …` are the same arguments and the same code.

use std::process::ExitCode;

use adit_control::model::Kind;
use clap::Subcommand;

use crate::error::CliError;
use common::{Delete, List, Show};

pub(crate) mod common;
pub(crate) mod config;
pub(crate) mod identity;
pub(crate) mod policy;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod table;
pub(crate) mod token;

/// What can be done with identities.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityVerb {
    /// Create an identity, and a token to enroll it with.
    Create(identity::Create),
    /// Change an identity.
    Update(identity::Update),
    /// Delete identities; whoever has them is out at once.
    Delete(Delete),
    /// List identities.
    List(List),
    /// Show an identity with its certificates.
    Show(Show),
    /// Make a new token to enroll an identity with.
    EnrollToken(identity::EnrollToken),
    /// Revoke certificates of an identity; what they have open ends at once.
    Revoke(identity::Revoke),
}

/// What can be done with services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceVerb {
    /// Create a service.
    Create(service::Create),
    /// Change a service.
    Update(service::Update),
    /// Delete services.
    Delete(Delete),
    /// List services.
    List(List),
    /// Show a service.
    Show(Show),
}

/// What can be done with configs.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Create a config of a service: how it is hosted (host.v1) or intercepted (intercept.v1).
    Create(config::Create),
    /// Change a config.
    Update(config::Update),
    /// Delete configs.
    Delete(Delete),
    /// List configs.
    List(List),
    /// Show a config.
    Show(Show),
}

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Create a policy: who may reach (Dial) or offer (Bind) which services.
    Create(policy::Create),
    /// Change a policy.
    Update(policy::Update),
    /// Delete policies; what only they permitted ends at once.
    Delete(Delete),
    /// List policies.
    List(List),
    /// Show a policy.
    Show(Show),
}

/// What can be done with routes.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteVerb {
    /// Create a route: hosts and ports of the gateway that lead to a service.
    Create(route::Create),
    /// Change a route.
    Update(route::Update),
    /// Delete routes.
    Delete(Delete),
    /// List routes.
    List(List),
    /// Show a route.
    Show(Show),
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Create a token, with limits on what its agents may offer.
    Create(token::Create),
    /// Change a token.
    Update(token::Update),
    /// Delete tokens; whoever has them is out at once.
    Delete(Delete),
    /// List tokens.
    List(List),
    /// Show a token, without its secret.
    Show(Show),
    /// Give a token a new secret; the old one is taken for a while longer.
    Rotate(token::Rotate),
    /// Revoke every secret of a token; what they have open ends at once.
    Revoke(token::Revoke),
}

impl IdentityVerb {
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Self::Create(args) => Box::pin(identity::create(args)).await,
            Self::Update(args) => Box::pin(identity::update(args)).await,
            Self::Delete(args) => common::delete(Kind::Identity, args).await,
            Self::List(args) => common::list(Kind::Identity, args).await,
            Self::Show(args) => common::show(Kind::Identity, args).await,
            Self::EnrollToken(args) => Box::pin(identity::enroll_token(args)).await,
            Self::Revoke(args) => Box::pin(identity::revoke(args)).await,
        }
    }
}

impl TokenVerb {
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Self::Create(args) => Box::pin(token::create(args)).await,
            Self::Update(args) => Box::pin(token::update(args)).await,
            Self::Delete(args) => common::delete(Kind::Token, args).await,
            Self::List(args) => common::list(Kind::Token, args).await,
            Self::Show(args) => common::show(Kind::Token, args).await,
            Self::Rotate(args) => Box::pin(token::rotate(args)).await,
            Self::Revoke(args) => Box::pin(token::revoke(args)).await,
        }
    }
}

macro_rules! plain_verbs {
    ($($verbs:ident: $module:ident, $kind:expr;)*) => {$(
        impl $verbs {
            pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
                match self {
                    Self::Create(args) => Box::pin($module::create(args)).await,
                    Self::Update(args) => Box::pin($module::update(args)).await,
                    Self::Delete(args) => common::delete($kind, args).await,
                    Self::List(args) => common::list($kind, args).await,
                    Self::Show(args) => common::show($kind, args).await,
                }
            }
        }
    )*};
}

plain_verbs! {
    ServiceVerb: service, Kind::Service;
    ConfigVerb: config, Kind::Config;
    PolicyVerb: policy, Kind::ServicePolicy;
    RouteVerb: route, Kind::Route;
}
