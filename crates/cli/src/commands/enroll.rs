//! `adit enroll`: a one-time token becomes an identity file.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use adit_agent::enroll::{self, EnrollError};
use adit_tunnel::identity::IdentityFile;

use crate::egress::EgressArgs;
use crate::error::CliError;
use crate::output;
use crate::private_file::Pending;

/// Where text ends that is longer than any token, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;

/// Flags of `adit enroll`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit enroll laptop.jwt                      writes laptop.json
  adit enroll laptop.jwt -o /etc/adit/id.json
  adit enroll - -o laptop.json < laptop.jwt

The key is made here and never leaves this machine. The token says which gateway it is for and how that one is known;
nothing is sent to any other. It works once, and only until it expires.")]
pub(crate) struct Args {
    /// File with the token; - reads it from the standard input.
    #[arg(value_name = "JWT", required_unless_present = "jwt", conflicts_with = "jwt")]
    token: Option<PathBuf>,
    /// The same, as a flag.
    #[arg(short = 'j', long, value_name = "JWT")]
    jwt: Option<PathBuf>,
    /// Where the identity is written (mode 0600); the token's name with .json in the place of .jwt unless given. -
    /// writes to the standard output.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace a file that is there. Its key is lost.
    #[arg(long)]
    force: bool,
    /// Remove the token's file afterwards.
    #[arg(short, long = "rm")]
    rm: bool,
    #[command(flatten)]
    egress: EgressArgs,
}

/// Enrolls.
///
/// # Errors
/// The token is not good, no gateway can be asked, or the file cannot be written.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let source = args.token.or(args.jwt).unwrap_or_default();
    let out = out(&source, args.out)?;
    // Before anything is sent: what can fail here must not cost the token.
    let text = read(&source)?;
    let egress = args.egress.egress()?;
    let pending = if is_standard(&out) { None } else { Some(Pending::new_at(&out, args.force)?) };
    let identity = enroll::enroll(&text, &egress).await.map_err(|error| failed(&source, &error))?;
    let json = identity.to_json();
    match pending {
        Some(pending) => {
            pending.write(&json)?;
            output::line(format_args!(
                "enrolled {} with {}: {}",
                output::printable(&identity.leaf().name),
                output::printable(identity.api()),
                out.display()
            ));
        }
        None => output::print(&json),
    }
    if args.rm && !is_standard(&source) {
        std::fs::remove_file(&source).map_err(|cause| {
            CliError::failure(format!("cannot remove {}", source.display()))
                .caused_by(&cause)
                .next("the identity is there, and the token is used up; remove it by hand")
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

fn out(source: &Path, given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    let out = match given {
        Some(given) => given,
        None if is_standard(source) => {
            return Err(CliError::usage("a token from the standard input needs -o FILE")
                .because("there is no name to make the identity's name from"));
        }
        None => source.with_extension("json"),
    };
    if out == source && !is_standard(&out) {
        return Err(CliError::usage(format!(
            "{} is the token and cannot be the identity as well",
            out.display()
        ))
        .next("name another file with -o"));
    }
    Ok(out)
}

fn read(source: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let result = if is_standard(source) {
        std::io::stdin().lock().take(MAX_TOKEN).read_to_string(&mut text)
    } else {
        std::fs::File::open(source).and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
    };
    result.map_err(|cause| {
        if cause.kind() == std::io::ErrorKind::InvalidData {
            return no_token(source, "it is not text");
        }
        CliError::usage(format!("cannot read the token in {}", source.display()))
            .caused_by(&cause)
            .next("name the file that adit identity create NAME -o FILE wrote")
    })?;
    Ok(text)
}

/// What was given is no token. Nothing was sent.
fn no_token(source: &Path, why: &str) -> CliError {
    CliError::usage(format!("{} is no enrollment token", source.display()))
        .because(why)
        .next("name the file that adit identity create NAME -o FILE wrote")
}

fn failed(source: &Path, error: &EnrollError) -> CliError {
    let shown = format!("cannot enroll with {}", source.display());
    let next = match error {
        EnrollError::Token(_) if IdentityFile::load(source).is_ok() => {
            return no_token(source, "it is an identity, which is enrolled already").next(format!(
                "use it as it is: adit login --identity-file {}, or as identity in agent.yaml",
                source.display()
            ));
        }
        EnrollError::Token(why) => return no_token(source, why),
        EnrollError::Expired(_) => "adit identity enroll-token NAME -o FILE makes a new one",
        EnrollError::Call { .. } => {
            "check that the gateway's control port can be reached from here under that name; --proxy-url or HTTPS_PROXY \
             if only a proxy leads there"
        }
        EnrollError::Another { .. } => "make sure that nothing between here and the gateway ends TLS",
        EnrollError::Refused { .. } => {
            "a token works once; ask for a new one (adit identity enroll-token NAME -o FILE)"
        }
        EnrollError::Answer { .. } | EnrollError::Key(_) => "try again with a new token",
    };
    CliError::failure(shown).caused_by(error).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_named_after_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("laptop.jwt");
        let made = out(&token, None).unwrap();
        assert_eq!(made, folder.path().join("laptop.json"));
        assert!(out(&token, Some(token.clone())).is_err());
        assert!(out(Path::new("-"), None).unwrap_err().to_string().contains("-o FILE"));
        assert_eq!(out(Path::new("-"), Some("-".into())).unwrap(), PathBuf::from("-"));
    }

    #[test]
    fn a_file_that_is_no_token_is_a_mistake_of_whoever_typed_the_command() {
        let error = failed(Path::new("a.yaml"), &EnrollError::Token("it must have three parts"));
        assert_eq!(error.exit_code(), ExitCode::from(2));
        assert_eq!(
            error.to_string(),
            "error: a.yaml is no enrollment token: it must have three parts\n next: name the file that adit \
             identity create NAME -o FILE wrote"
        );
        assert_eq!(
            failed(Path::new("a.jwt"), &EnrollError::Expired(5)).exit_code(),
            ExitCode::FAILURE,
            "a token that was one is another matter"
        );
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("x.jwt");
        std::fs::write(&binary, [0xff, 0xfe]).unwrap();
        let error = read(&binary).unwrap_err();
        assert!(error.to_string().contains("x.jwt is no enrollment token: it is not text"), "{error}");
        assert_eq!(error.exit_code(), ExitCode::from(2));
    }

    #[test]
    fn a_token_that_is_not_there_is_named() {
        let error = read(Path::new("/nowhere/x.jwt")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/x.jwt"), "{error}");
    }
}
