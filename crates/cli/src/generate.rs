//! `--generate`: what runs the same role elsewhere, printed. Secrets are never part of it.

mod k8s;
mod systemd;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::CliError;
use crate::token::Source;

/// What is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// A systemd unit.
    Systemd,
    /// Kubernetes objects.
    #[value(name = "k8s_yaml")]
    K8sYaml,
}

/// The flags that ask for it.
#[derive(Debug, clap::Args)]
pub(crate) struct GenerateArgs {
    /// Print a systemd unit or Kubernetes objects that run this, instead of running it.
    #[arg(long, value_name = "KIND", value_enum)]
    generate: Option<Target>,
    /// The name of what is generated [default: adit-gateway or adit-agent].
    #[arg(long, value_name = "NAME")]
    generate_name: Option<String>,
}

impl GenerateArgs {
    /// What is asked for.
    pub(crate) const fn target(&self) -> Option<Target> {
        self.generate
    }

    /// Its name.
    pub(crate) fn name(&self, default: &str) -> Result<String, CliError> {
        let name = self.generate_name.as_deref().unwrap_or(default);
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=50).contains(&name.len())
            && name.chars().all(inner)
            && !name.starts_with('-')
            && !name.ends_with('-')
        {
            return Ok(name.to_owned());
        }
        Err(CliError::usage(format!("--generate-name {name} cannot be used"))
            .because("it names a unit, a directory and Kubernetes objects")
            .next("use lower-case letters, digits and `-`, at most 50"))
    }
}

/// Which role runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// A gateway with its ports.
    Gateway {
        /// The control port.
        control: u16,
        /// Its public ports, as far as they are known.
        public: Vec<PublicPort>,
    },
    /// An agent.
    Agent,
}

/// A public port and what Kubernetes objects call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicPort {
    /// At most 15 letters, digits and `-`.
    pub(crate) name: String,
    /// The port.
    pub(crate) port: u16,
}

/// A file whose content is handed to the process rather than its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandedFile {
    /// The flag that names it.
    pub(crate) flag: &'static str,
    /// Its name where the process finds it.
    pub(crate) id: &'static str,
    /// Where it is now.
    pub(crate) path: PathBuf,
}

/// A role as it would run.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// Which role.
    pub(crate) role: Role,
    /// What it is called.
    pub(crate) name: String,
    /// The command, after the binary.
    pub(crate) verb: &'static str,
    /// Its flags, each one word, without the token and the handed files.
    pub(crate) flags: Vec<String>,
    /// Where the token comes from; its text is never used.
    pub(crate) token: Source,
    /// Files handed over.
    pub(crate) files: Vec<HandedFile>,
    /// Where state is kept, when not in the default place.
    pub(crate) state: Option<PathBuf>,
    /// A file outside the state directory that is written.
    pub(crate) writes: Option<PathBuf>,
    /// How long a drain may take.
    pub(crate) drain_timeout: Duration,
}

impl Manifest {
    /// The command and its flags, each one word.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.verb.split(' ').chain(self.flags.iter().map(String::as_str))
    }

    /// Seconds until the supervisor may kill: the drain and a little.
    const fn stop_seconds(&self) -> u64 {
        self.drain_timeout.as_secs() + 10
    }

    fn binds_small_port(&self) -> bool {
        let Role::Gateway { control, public } = &self.role else { return false };
        public.iter().map(|public| public.port).chain([*control]).any(|port| port < 1024)
    }
}

/// Renders it.
///
/// # Errors
/// The binary's own path cannot be found.
pub(crate) fn render(target: Target, manifest: &Manifest) -> Result<String, CliError> {
    match target {
        Target::Systemd => {
            let binary = std::env::current_exe().map_err(|cause| {
                CliError::failure("cannot find the path of this binary").caused_by(&cause)
            })?;
            Ok(systemd::unit(manifest, &binary.display().to_string()))
        }
        Target::K8sYaml => Ok(k8s::objects(manifest)),
    }
}

/// A path that means the same in another directory.
///
/// # Errors
/// The path is empty.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|cause| {
        CliError::usage(format!("cannot use the path `{}`", path.display())).caused_by(&cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_telemetry::secret::Secret;

    pub(super) fn manifest(token: Source) -> Manifest {
        Manifest {
            role: Role::Gateway { control: 8123, public: vec![PublicPort { name: "http".into(), port: 80 }] },
            name: "adit-gateway".into(),
            verb: "http server",
            flags: vec!["--port=80".into(), "--auto-tls-san=a b%c$d\"e".into()],
            token,
            files: vec![HandedFile {
                flag: "--tls-cert",
                id: "tls.crt",
                path: "/etc/ssl/my cert.pem".into(),
            }],
            state: None,
            writes: None,
            drain_timeout: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_token_on_the_command_line_is_never_written() {
        let manifest = manifest(Source::Argument(Secret::new("hunter2".into()).unwrap()));
        for target in [Target::Systemd, Target::K8sYaml] {
            let text = render(target, &manifest).unwrap();
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("--token-file="), "{text}");
        }
    }

    #[test]
    fn names_fit_every_target() {
        let named = |name: &str| GenerateArgs { generate: None, generate_name: Some(name.into()) }.name("x");
        assert_eq!(named("edge-1").unwrap(), "edge-1");
        for name in ["", "A", "a b", "-a", "a/b"] {
            assert!(named(name).is_err(), "{name}");
        }
    }
}
