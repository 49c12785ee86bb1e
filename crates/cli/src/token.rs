//! The shared token: from exactly one of the flags, never empty, never printed.

use std::path::{Path, PathBuf};

use adit_gateway::config::{LocalToken, SecretText};
use adit_proto::name::BadName;
use adit_tunnel::proof::TokenKey;
use clap::Args;

use crate::config::env;
use crate::error::CliError;
use crate::{flags, output};
use adit_telemetry::secret::Secret;

/// The flags a token can come from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TokenArgs {
    /// The token itself; visible in the process list, so better one of the next two.
    #[arg(long, value_name = "TOKEN", value_parser = flags::secret)]
    token: Option<Secret>,
    /// File with the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name of the environment variable with the token.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Deprecated: use --token-file.
    #[arg(long, value_name = "FILE", hide = true)]
    token_from: Option<PathBuf>,
}

/// The flags that the token of an administrator can come from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AdminTokenArgs {
    /// A token that may use the admin interface; visible in the process list, so better one of the next two.
    #[arg(long, value_name = "TOKEN", value_parser = flags::secret)]
    admin_token: Option<Secret>,
    /// File with a token that may use the admin interface.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Name of the environment variable with a token that may use the admin interface.
    #[arg(long, value_name = "NAME")]
    admin_token_env: Option<String>,
}

impl AdminTokenArgs {
    /// The token, called `admin`, if one is given. Its agents may offer nothing.
    ///
    /// # Errors
    /// It is given twice, cannot be read or is empty.
    pub(crate) fn read(&self) -> Result<Option<LocalToken>, CliError> {
        let args = (&self.admin_token, &self.admin_token_file, &self.admin_token_env);
        let secret = match args {
            (None, None, None) => return Ok(None),
            (Some(token), None, None) => {
                output::warning(
                    "a token on the command line is visible in the process list; use --admin-token-file or --admin-token-env",
                );
                clean(token, "--admin-token")?
            }
            (None, Some(path), None) => read_file(path, "--admin-token-file")?,
            (None, None, Some(name)) => read_env(name, "--admin-token-env")?,
            _ => {
                return Err(CliError::usage("the administrator's token is given more than once")
                    .because("--admin-token, --admin-token-file and --admin-token-env say the same")
                    .next("keep one of them"));
            }
        };
        let name =
            "admin".parse().map_err(|cause: BadName| CliError::failure("bad name").caused_by(&cause))?;
        let mut token = LocalToken::new(name, SecretText::new(secret.expose().to_owned()));
        token.token.admin = true;
        token.token.limits.hosts = Some(Vec::new());
        Ok(Some(token))
    }

    /// The flags again, with absolute paths, for what is generated; a token itself is not repeated.
    pub(crate) fn source(&self) -> Option<(&'static str, &Path)> {
        self.admin_token_file.as_deref().map(|path| ("--admin-token-file", path))
    }
}

/// Where a token comes from; nothing is read yet.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The command line.
    Argument(Secret),
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// A token that was read.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    secret: Secret,
    source: String,
}

/// The one token of a gateway that has no other.
///
/// # Errors
/// Never: its name is one.
pub(crate) fn of_gateway(secret: &Secret) -> Result<LocalToken, CliError> {
    let name = "default".parse().map_err(|cause: BadName| CliError::failure("bad name").caused_by(&cause))?;
    Ok(LocalToken::new(name, SecretText::new(secret.expose().to_owned())))
}

impl TokenArgs {
    /// Whether any of the flags is there.
    pub(crate) const fn is_given(&self) -> bool {
        self.token.is_some()
            || self.token_file.is_some()
            || self.token_env.is_some()
            || self.token_from.is_some()
    }

    /// The same with a token from another flag of the command line.
    ///
    /// # Errors
    /// There is one already.
    pub(crate) fn with(self, token: Secret) -> Result<Self, CliError> {
        if self.is_given() {
            return Err(CliError::usage("-p and a token are both given").next("keep one of them"));
        }
        Ok(Self { token: Some(token), ..self })
    }

    /// Which one flag gives the token. Warns of flags that work but should be changed.
    ///
    /// # Errors
    /// No flag, or more than one.
    pub(crate) fn source(&self) -> Result<Source, CliError> {
        let mut given = Vec::new();
        if let Some(token) = &self.token {
            given.push(("--token", Source::Argument(token.clone())));
        }
        if let Some(file) = &self.token_file {
            given.push(("--token-file", Source::File(file.clone())));
        }
        if let Some(name) = &self.token_env {
            given.push(("--token-env", Source::Env(name.clone())));
        }
        if let Some(file) = &self.token_from {
            output::warning("--token-from is deprecated and goes away; use --token-file, which is the same");
            given.push(("--token-from", Source::File(file.clone())));
        }
        let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
        if names.len() > 1 {
            return Err(CliError::usage(format!("the token is given {} times", names.len()))
                .because(names.join(", "))
                .next("keep one of them"));
        }
        let Some((_, source)) = given.pop() else {
            return Err(CliError::usage("no token")
                .because("gateway and agent prove to each other that they know the same one")
                .next("give it with --token-file FILE or --token-env NAME"));
        };
        Ok(source)
    }

    /// The token itself.
    ///
    /// # Errors
    /// As [`TokenArgs::source`], and when what it names cannot be read or is empty.
    pub(crate) fn read(&self) -> Result<Token, CliError> {
        let source = self.source()?;
        if matches!(source, Source::Argument(_)) {
            output::warning(
                "a token on the command line is visible in the process list; use --token-file or --token-env",
            );
        }
        source.read()
    }
}

/// What to do about a secret that cannot be had.
const CHECK_IT: &str = "check that it is set and readable";

fn empty(key: &str) -> CliError {
    CliError::usage(format!("{key} is empty"))
        .because("an empty secret would let everybody in")
        .next(CHECK_IT)
}

/// Takes the blanks and line ends off that editors and `echo` leave, and refuses what no header could carry.
fn clean(text: &Secret, key: &str) -> Result<Secret, CliError> {
    let text = text.expose().trim();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CliError::usage(format!("{key} cannot be used as a token"))
            .because("it has spaces, line ends or characters other than ASCII in it")
            .next("make a new one: head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'"));
    }
    Secret::new(text.to_owned()).map_err(|_empty| empty(key))
}

/// Reads a secret file: the text without surrounding blanks, never empty.
pub(crate) fn read_file(path: &Path, key: &str) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(path).map_err(|cause| {
        CliError::usage(format!("cannot read {key} {}", path.display())).caused_by(&cause).next(CHECK_IT)
    })?;
    let key = format!("{key} {}", path.display());
    clean(&Secret::new(text).map_err(|_empty| empty(&key))?, &key)
}

/// Reads a secret environment variable: the text without surrounding blanks, never empty.
pub(crate) fn read_env(name: &str, key: &str) -> Result<Secret, CliError> {
    let text = env::var(name).ok_or_else(|| {
        CliError::usage(format!("{key} {name} is not set"))
            .because("no environment variable has this name, or its value is not UTF-8")
            .next(CHECK_IT)
    })?;
    let key = format!("{key} {name}");
    clean(&Secret::new(text).map_err(|_empty| empty(&key))?, &key)
}

impl Source {
    /// Reads the token.
    pub(crate) fn read(&self) -> Result<Token, CliError> {
        let (secret, source) = match self {
            Self::Argument(token) => (clean(token, "--token")?, "--token".to_owned()),
            Self::File(path) => {
                (read_file(path, "--token-file")?, format!("--token-file {}", path.display()))
            }
            Self::Env(name) => (read_env(name, "--token-env")?, format!("--token-env {name}")),
        };
        Ok(Token { secret, source })
    }
}

impl Token {
    /// One that was kept somewhere; `source` says where, for messages.
    pub(crate) const fn kept(secret: Secret, source: String) -> Self {
        Self { secret, source }
    }

    /// As gateway and agent take it.
    pub(crate) fn key(&self) -> TokenKey {
        TokenKey::new(self.secret.expose().as_bytes())
    }

    /// As a gateway takes it that has no other.
    ///
    /// # Errors
    /// Never: its name is one.
    pub(crate) fn of_gateway(&self) -> Result<LocalToken, CliError> {
        of_gateway(&self.secret)
    }

    /// The text, for an `Authorization` header.
    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The flag it came from, for messages.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        _args: TokenArgs,
    }

    fn failed(arguments: &TokenArgs) -> String {
        arguments.read().unwrap_err().to_string()
    }

    #[test]
    fn a_token_comes_from_exactly_one_flag() {
        assert!(failed(&TokenArgs::default()).starts_with("error: no token"));
        let both = TokenArgs {
            token: Some(Secret::new("hunter2".into()).unwrap()),
            token_env: Some("TOKEN".into()),
            ..TokenArgs::default()
        };
        let text = failed(&both);
        assert!(text.contains("2 times: --token, --token-env"), "{text}");
        assert!(!text.contains("hunter2"));
    }

    #[test]
    fn an_empty_token_is_refused_with_the_name_of_its_key() {
        let argument = Line::try_parse_from(["adit", "--token", " "]).unwrap_err().to_string();
        assert!(argument.contains("'--token <TOKEN>': the secret is empty; check"), "{argument}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\n").unwrap();
        let from_file = TokenArgs { token_file: Some(file.path().into()), ..TokenArgs::default() };
        assert!(failed(&from_file).contains(&format!("--token-file {} is empty", file.path().display())));
        let unset = TokenArgs { token_env: Some("ADIT_TEST_NEVER_SET".into()), ..TokenArgs::default() };
        assert!(failed(&unset).contains("--token-env ADIT_TEST_NEVER_SET is not set"));
    }

    #[test]
    fn a_line_end_is_not_part_of_the_token_and_the_old_flag_still_works() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc\r\n").unwrap();
        let old = TokenArgs { token_from: Some(file.path().into()), ..TokenArgs::default() };
        let token = old.read().unwrap();
        assert_eq!(token.secret().expose(), "abc");
        assert!(token.key().is_token(b"abc"));
        assert!(!format!("{old:?} {token:?}").contains("abc"));
        std::fs::write(file.path(), "a b").unwrap();
        assert!(failed(&old).contains("cannot be used as a token"));
    }
}
