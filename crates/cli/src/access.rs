//! Which gateway a command talks to, and as whom: flags, else the environment, else the gateway logged in to.

use std::path::PathBuf;

use adit_agent::config::{GatewayUrl, UrlError, Verify};
use adit_telemetry::secret::Secret;
use adit_tunnel::identity::LiveIdentity;
use clap::Args;

use crate::config::env;
use crate::control_client::{Client, Credential, Target};
use crate::egress::EgressArgs;
use crate::error::CliError;
use crate::flags::go_bool;
use crate::interface::Interface;
use crate::logins::{Login, Logins};
use crate::output;
use crate::token::{Source, TokenArgs};

/// What to do when nobody said which gateway.
const LOG_IN: &str =
    "log in first (adit login wss://HOST:8123 --token-file FILE), or give --url with --token-file";

/// The flags that say it for one call.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which gateway, and as whom")]
pub(crate) struct AccessArgs {
    /// The gateway's control port, as in wss://HOST:8123; else ADIT_URL, else the gateway logged in to.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A gateway logged in to, by its name.
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    gateway: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// The flags that say as whom, and how both sides know each other.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// The identity file of an administrator; else ADIT_IDENTITY.
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
    #[command(flatten)]
    token: TokenArgs,
    /// PEM file with the only authorities that may have signed the gateway's certificate; the token is then sent.
    #[arg(long, visible_alias = "tls-ca", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Accept the gateway by its proof of the token, whatever its certificate; with --auto-tls=false by the system's
    /// authorities.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = go_bool)]
    auto_tls: Option<bool>,
    #[command(flatten)]
    egress: EgressArgs,
}

impl TrustArgs {
    /// The same with what other flags of a login said.
    ///
    /// # Errors
    /// They contradict these.
    pub(crate) fn with(mut self, identity: Option<PathBuf>, token: Option<Secret>) -> Result<Self, CliError> {
        self.identity_file = identity.or(self.identity_file);
        if let Some(token) = token {
            self.token = self.token.with(token)?;
        }
        Ok(self)
    }

    /// How the gateway is known.
    fn verify(&self) -> Result<Verify, CliError> {
        match (self.auto_tls, &self.ca) {
            (None | Some(true), None) => Ok(Verify::TokenProof),
            (Some(false), None) => Ok(Verify::System),
            (None | Some(false), Some(ca)) => Ok(Verify::Ca(ca.clone())),
            (Some(true), Some(_)) => Err(CliError::usage("--ca cannot be used with --auto-tls")
                .because("the gateway is known by its proof of the token, and any certificate will do")
                .next("leave one of them out")),
        }
    }

    /// Who asks, when a flag or the environment says so.
    fn credential(&self) -> Result<Option<Login>, CliError> {
        if let Some(file) = &self.identity_file {
            if self.token.is_given() {
                return Err(CliError::usage("--identity-file and a token are both given").next("keep one"));
            }
            return Ok(Some(Login::by_identity(file)?));
        }
        if self.token.is_given() {
            let verify = self.verify()?;
            return Ok(Some(Login::by_token(&self.token.source()?, self.token.read()?, &verify)?));
        }
        if let Some(file) = env::set("ADIT_IDENTITY") {
            return Ok(Some(Login::by_identity(file.as_ref())?));
        }
        if env::set("ADIT_TOKEN").is_some() {
            let source = Source::Env("ADIT_TOKEN".to_owned());
            return Ok(Some(Login::by_token(&source, source.read()?, &self.verify()?)?));
        }
        Ok(None)
    }

    /// Everything a login consists of but the address.
    ///
    /// # Errors
    /// Nothing says as whom, or what says so cannot be used.
    pub(crate) fn login(&self) -> Result<Login, CliError> {
        self.credential()?.ok_or_else(|| {
            CliError::usage("nothing says as whom to log in")
                .because("neither a token nor an identity is given")
                .next(
                    "give --token-file FILE with an admin token, or --identity-file FILE of an administrator",
                )
        })
    }

    /// The target of a login.
    ///
    /// # Errors
    /// What the login names cannot be read.
    pub(crate) fn target(&self, url: GatewayUrl, login: &Login) -> Result<Target, CliError> {
        let (credential, verify) = login.credential()?;
        Ok(Target { url, egress: self.egress.egress()?, verify, credential })
    }
}

/// Reads the address of a gateway.
///
/// # Errors
/// It is none.
pub(crate) fn gateway_url(flag: &str, text: &str) -> Result<GatewayUrl, CliError> {
    text.parse().map_err(|cause: UrlError| {
        CliError::usage(format!("{flag} {text} cannot be used"))
            .caused_by(&cause)
            .next("write wss://HOST:8123")
    })
}

impl AccessArgs {
    /// Whom to ask.
    ///
    /// # Errors
    /// Nothing says which gateway, or it cannot be used.
    pub(crate) fn target(&self) -> Result<Target, CliError> {
        let given = self.trust.credential()?;
        let url = match (&self.url, &self.gateway) {
            (Some(text), _) => Some(gateway_url("--url", text)?),
            (None, Some(_)) => None,
            (None, None) => env::set("ADIT_URL").map(|text| gateway_url("ADIT_URL", &text)).transpose()?,
        };
        match (url, given) {
            (Some(url), Some(login)) => self.trust.target(url, &login),
            (Some(url), None) => {
                let logins = Logins::load()?;
                let login = logins.of_url(&url).ok_or_else(|| {
                    CliError::usage(format!("nothing says as whom to ask {url}")).next(LOG_IN)
                })?;
                self.trust.target(url, login)
            }
            (None, given) => {
                let logins = Logins::load()?;
                let login = match &self.gateway {
                    Some(name) => logins.named(name)?,
                    // An identity file knows where it was made.
                    None if logins.current().is_none() && given.as_ref().is_some_and(Login::is_identity) => {
                        return self.at_home(given.unwrap_or_default());
                    }
                    None => logins.current().ok_or_else(|| {
                        CliError::usage("nothing says which gateway")
                            .because("nobody is logged in")
                            .next(LOG_IN)
                    })?,
                };
                let url = gateway_url("the gateway logged in to,", login.url())?;
                self.trust.target(url, given.as_ref().unwrap_or(login))
            }
        }
    }

    /// The gateway that an identity was enrolled with.
    fn at_home(&self, login: Login) -> Result<Target, CliError> {
        let (credential, verify) = login.credential()?;
        let api = match &credential {
            Credential::Certificate(identity) => identity.file().api().to_owned(),
            Credential::Token(_) => String::new(),
        };
        let url = gateway_url("the identity's gateway", &api)?;
        Ok(Target { url, egress: self.trust.egress.egress()?, verify, credential })
    }

    /// The gateway's interface, not asked anything yet.
    ///
    /// # Errors
    /// As [`AccessArgs::target`].
    pub(crate) fn interface(&self) -> Result<Interface, CliError> {
        Ok(Interface::new(Client::new(self.target()?)))
    }
}

impl Login {
    /// As whom, and how both sides know each other.
    ///
    /// # Errors
    /// What it names cannot be read.
    pub(crate) fn credential(&self) -> Result<(Credential, Verify), CliError> {
        let Some(file) = self.identity_file() else {
            return Ok((Credential::Token(self.token()?), self.verify()));
        };
        let identity = LiveIdentity::open(file).map_err(|cause| {
            CliError::usage(format!("the identity {} cannot be used", file.display()))
                .caused_by(&cause)
                .next("name the file that adit enroll wrote")
        })?;
        warn_if_exposed(&identity);
        Ok((Credential::Certificate(identity), Verify::System))
    }
}

/// Says it where others can read the key of an identity: it is used all the same.
pub(crate) fn warn_if_exposed(identity: &LiveIdentity) {
    if let Some(file) = identity.file().exposed() {
        let file = file.display();
        output::warning(format!(
            "others can read {file}, and it holds a private key; `chmod 600 {file}` keeps it private"
        ));
    }
}
