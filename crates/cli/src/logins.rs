//! The gateways logged in to, kept in a file that only its user can read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use adit_agent::config::{GatewayUrl, Verify};
use adit_control::model::SecretText;
use adit_telemetry::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::config::env;
use crate::error::CliError;
use crate::private_file;
use crate::token::{self, Source, Token};

/// The file's name.
const FILE: &str = "gateways.json";

/// Everything that is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logins {
    /// The one that is used when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    /// By name.
    #[serde(default)]
    gateways: BTreeMap<String, Login>,
}

/// One gateway and as whom it is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    #[serde(default)]
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<SecretText>,
    /// Verified by these authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// Verified by the system's authorities.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    system_authorities: bool,
    /// Where the token came from, for messages, in the process that was given it.
    #[serde(skip)]
    source: Option<String>,
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path)
        .map_err(|cause| CliError::usage(format!("cannot use {}", path.display())).caused_by(&cause))
}

impl Login {
    /// With an identity file.
    ///
    /// # Errors
    /// The path cannot be made absolute.
    pub(crate) fn by_identity(file: &Path) -> Result<Self, CliError> {
        Ok(Self { identity_file: Some(absolute(file)?), ..Self::default() })
    }

    /// With a token. A token file is remembered by its path, any other token by itself.
    ///
    /// # Errors
    /// A path cannot be made absolute.
    pub(crate) fn by_token(source: &Source, token: Token, verify: &Verify) -> Result<Self, CliError> {
        let mut login = Self::default();
        match source {
            Source::File(file) => login.token_file = Some(absolute(file)?),
            Source::Argument(_) | Source::Env(_) => {
                login.token = Some(SecretText::new(token.secret().expose().to_owned()));
                login.source = Some(token.source().to_owned());
            }
        }
        match verify {
            Verify::TokenProof => {}
            Verify::System => login.system_authorities = true,
            Verify::Ca(file) => login.ca = Some(absolute(file)?),
        }
        Ok(login)
    }

    /// Which gateway.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// As whom, in words.
    pub(crate) fn whose(&self) -> String {
        match (&self.identity_file, &self.token_file) {
            (Some(file), _) => format!("identity {}", file.display()),
            (None, Some(file)) => format!("token of {}", file.display()),
            (None, None) => "token".to_owned(),
        }
    }

    /// Whether it is with an identity file.
    pub(crate) const fn is_identity(&self) -> bool {
        self.identity_file.is_some()
    }

    /// The identity file, when it is one.
    pub(crate) fn identity_file(&self) -> Option<&Path> {
        self.identity_file.as_deref()
    }

    /// The token.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn token(&self) -> Result<Token, CliError> {
        if let Some(file) = &self.token_file {
            let secret = token::read_file(file, "the token file of this login,")?;
            return Ok(Token::kept(secret, format!("{}", file.display())));
        }
        let secret = self.token.as_ref().and_then(|text| Secret::new(text.expose().to_owned()).ok());
        let secret = secret.ok_or_else(|| {
            CliError::usage(format!("the login of {} has no token", self.url))
                .next("log in again: adit login")
        })?;
        Ok(Token::kept(secret, self.source.clone().unwrap_or_else(|| "this login".to_owned())))
    }

    /// How the gateway's certificate is checked.
    pub(crate) fn verify(&self) -> Verify {
        match &self.ca {
            Some(file) => Verify::Ca(file.clone()),
            None if self.system_authorities => Verify::System,
            None => Verify::TokenProof,
        }
    }
}

fn path() -> Result<PathBuf, CliError> {
    let directory = env::config_directory().ok_or_else(|| {
        CliError::usage("there is no place for the gateways logged in to")
            .because("neither ADIT_CONFIG_DIR nor HOME is set")
            .next("set ADIT_CONFIG_DIR to a directory of this user")
    })?;
    Ok(directory.join(FILE))
}

impl Logins {
    /// Reads the file; without one nobody is logged in.
    ///
    /// # Errors
    /// There is no place for it, or it cannot be read.
    pub(crate) fn load() -> Result<Self, CliError> {
        Self::load_from(&path()?)
    }

    fn load_from(path: &Path) -> Result<Self, CliError> {
        let broken = |cause: &dyn std::error::Error| {
            CliError::usage(format!("cannot read {}", path.display()))
                .caused_by(cause)
                .next("mend the file, or delete it and log in again")
        };
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map_err(|cause| broken(&cause)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(cause) => Err(broken(&cause)),
        }
    }

    /// Writes the file: all of it or nothing, for its user alone.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save(&self) -> Result<PathBuf, CliError> {
        let path = path()?;
        self.save_to(&path)?;
        Ok(path)
    }

    fn save_to(&self, path: &Path) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|cause| CliError::failure("cannot write the login down").caused_by(&cause))?;
        if let Some(directory) = path.parent() {
            private_file::directory(directory)?;
        }
        private_file::Pending::at(path)?.write(format!("{text}\n"))
    }

    /// Adds one, or replaces the one of this name, and makes it the current one.
    pub(crate) fn add(&mut self, name: &str, url: &GatewayUrl, login: Login) {
        self.gateways.insert(name.to_owned(), Login { url: url.to_string(), ..login });
        self.current = Some(name.to_owned());
    }

    /// Takes one out. The current one has no successor: which would be a guess.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), CliError> {
        self.named(name)?;
        self.gateways.remove(name);
        self.current.take_if(|current| current == name);
        Ok(())
    }

    /// Makes one the current one.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn choose(&mut self, name: &str) -> Result<(), CliError> {
        self.named(name)?;
        self.current = Some(name.to_owned());
        Ok(())
    }

    /// One by name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn named(&self, name: &str) -> Result<&Login, CliError> {
        self.gateways.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.gateways.keys().map(String::as_str).collect();
            let known = if names.is_empty() {
                "nobody has logged in to any yet".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            };
            CliError::usage(format!("you are not logged in to a gateway called {name}"))
                .because(known)
                .next("adit use lists them; adit login adds one")
        })
    }

    /// The name of the current one.
    pub(crate) fn current_name(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// The current one.
    pub(crate) fn current(&self) -> Option<&Login> {
        self.gateways.get(self.current.as_ref()?)
    }

    /// The one of this address; the current one when it is among several.
    pub(crate) fn of_url(&self, url: &GatewayUrl) -> Option<&Login> {
        let is_it = |login: &&Login| {
            login
                .url()
                .parse::<GatewayUrl>()
                .is_ok_and(|known| (known.host, known.port) == (url.host.clone(), url.port))
        };
        self.current().filter(|login| is_it(login)).or_else(|| self.gateways.values().find(is_it))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Login)> {
        self.gateways.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_login(text: &str) -> Login {
        let source = Source::Argument(Secret::new(text.to_owned()).unwrap());
        Login::by_token(&source, source.read().unwrap(), &Verify::TokenProof).unwrap()
    }

    #[test]
    fn what_was_logged_in_to_is_there_again_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/gateways.json");
        let mut logins = Logins::load_from(&path).unwrap();
        assert!(logins.current().is_none());
        logins.add("a", &"wss://a".parse().unwrap(), token_login("s3cret"));
        logins.add("b", &"wss://b:1".parse().unwrap(), Login::by_identity(Path::new("/x.json")).unwrap());
        logins.save_to(&path).unwrap();
        let again = Logins::load_from(&path).unwrap();
        assert_eq!(again.current_name(), Some("b"));
        assert_eq!(again.named("a").unwrap().token().unwrap().secret().expose(), "s3cret");
        assert_eq!(again.current().unwrap().whose(), "identity /x.json");
        assert_eq!(again.of_url(&"wss://a:8123".parse().unwrap()).unwrap().url(), "wss://a:8123");
        assert!(!format!("{again:?}").contains("s3cret"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
    }

    #[test]
    fn logging_out_leaves_no_gateway_that_was_not_chosen() {
        let mut logins = Logins::default();
        logins.add("a", &"wss://a".parse().unwrap(), token_login("x"));
        logins.add("b", &"wss://b".parse().unwrap(), token_login("x"));
        logins.remove("b").unwrap();
        assert!(logins.current().is_none());
        logins.choose("a").unwrap();
        assert_eq!(logins.current_name(), Some("a"));
        let error = logins.remove("c").unwrap_err().to_string();
        assert!(
            error.contains("not logged in to a gateway called c: there are a\n next: adit use lists"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_no_list_of_logins_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateways.json");
        std::fs::write(&path, "{\"gateway\":1}").unwrap();
        let error = Logins::load_from(&path).unwrap_err().to_string();
        assert!(error.contains("unknown field `gateway`") && error.contains("log in again"), "{error}");
    }
}
