//! Which way connections to a gateway leave: as a flag or a key says, else as the environment says.

use adit_telemetry::secret::Secret;
use adit_tunnel::proxy::{Egress, Proxy, ProxyUrlError};
use clap::Args;

use crate::config::env;
use crate::error::CliError;
use crate::{flags, output};

/// What is written where no proxy is wanted, whatever the environment says.
const DIRECT: &str = "direct";
/// How a proxy is written.
pub(crate) const FORM: &str = "http://HOST:PORT, socks5://HOST:PORT, or direct";

/// The flag for the way out.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EgressArgs {
    /// The proxy on the way to the gateway: http://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ in front of the
    /// host where it wants them, or `direct`; else HTTPS_PROXY or ALL_PROXY with NO_PROXY.
    #[arg(long, value_name = "URL", value_parser = flags::secret)]
    proxy_url: Option<Secret>,
}

/// What is written in a flag or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// No proxy.
    Direct,
    /// This one.
    Proxy(Proxy),
}

impl std::str::FromStr for Choice {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        if text == DIRECT { Ok(Self::Direct) } else { text.parse().map(Self::Proxy) }
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct => f.write_str(DIRECT),
            Self::Proxy(proxy) => proxy.fmt(f),
        }
    }
}

impl From<Choice> for Egress {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Direct => Self::direct(),
            Choice::Proxy(proxy) => Self::through(proxy),
        }
    }
}

impl EgressArgs {
    fn choice(&self) -> Result<Option<Choice>, CliError> {
        let Some(text) = &self.proxy_url else { return Ok(None) };
        // The text is not repeated: a password may be in it.
        text.expose().parse().map(Some).map_err(|cause: ProxyUrlError| {
            CliError::usage("--proxy-url cannot be used").caused_by(&cause).next(format!("write {FORM}"))
        })
    }

    /// The way out. Warns of a password that others can see.
    ///
    /// # Errors
    /// The flag or the variable is not a proxy.
    pub(crate) fn egress(&self) -> Result<Egress, CliError> {
        let Some(choice) = self.choice()? else { return from_environment() };
        if matches!(&choice, Choice::Proxy(proxy) if proxy.has_password()) {
            output::warning(
                "a password on the command line is visible in the process list; put the URL into HTTPS_PROXY",
            );
        }
        Ok(choice.into())
    }

    /// The flag as it was given, for generated units.
    ///
    /// # Errors
    /// It is not a proxy, or holds a password, which does not belong into a unit.
    pub(crate) fn arguments(&self) -> Result<Vec<String>, CliError> {
        match self.choice()? {
            None => Ok(Vec::new()),
            Some(Choice::Proxy(proxy)) if proxy.has_password() => Err(CliError::usage(
                "--proxy-url has a password, which everybody could read in what is generated",
            )
            .next("leave it out, and give HTTPS_PROXY in the environment of the service")),
            Some(choice) => Ok(vec![format!("--proxy-url={choice}")]),
        }
    }
}

/// The way out as the environment has it.
///
/// # Errors
/// The variable is not a proxy.
pub(crate) fn from_environment() -> Result<Egress, CliError> {
    let Some((name, url)) = env::proxy() else { return Ok(Egress::direct()) };
    let proxy = url.expose().parse().map_err(|cause: ProxyUrlError| {
        CliError::usage(format!("the proxy in the environment variable {name} cannot be used"))
            .caused_by(&cause)
            .next(format!("correct it, unset it, or say --proxy-url {DIRECT}"))
    })?;
    Ok(Egress::from_environment(proxy, &env::no_proxy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> EgressArgs {
        EgressArgs { proxy_url: Some(flags::secret(url).unwrap()) }
    }

    #[test]
    fn a_password_is_never_printed_or_generated() {
        let given = args("http://me:s3cret@proxy:3128");
        let refused = given.arguments().unwrap_err().to_string();
        assert!(refused.contains("HTTPS_PROXY"), "{refused}");
        let wrong = args("ftp://me:s3cret@proxy").egress().unwrap_err().to_string();
        assert!(wrong.contains("http://, socks5://"), "{wrong}");
        let egress = given.egress().unwrap();
        for text in [refused, wrong, format!("{given:?}"), format!("{egress:?}")] {
            assert!(!text.contains("s3cret"), "{text}");
        }
        assert_eq!(egress.proxy_for("127.0.0.1", 1).unwrap().to_string(), "http://me@proxy:3128");
        assert_eq!(args("socks5://p").arguments().unwrap(), ["--proxy-url=socks5://p:1080"]);
    }

    #[test]
    fn direct_is_a_way_too() {
        assert_eq!(args("direct").egress().unwrap(), Egress::direct());
        assert_eq!(args("direct").arguments().unwrap(), ["--proxy-url=direct"]);
        assert!(EgressArgs::default().arguments().unwrap().is_empty());
    }
}
