//! `adit fileserver`: a directory over HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use adit_agent::files::Files;
use tokio::net::TcpListener;

use crate::error::CliError;
use crate::signals::Signals;
use crate::version::{SHA, VERSION};
use crate::{flags, output, role, serve, token};
use adit_telemetry::secret::Secret;

/// Flags of `adit fileserver`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory.
    #[arg(short, long, value_name = "DIR", default_value = "./")]
    webroot: PathBuf,
    /// List directories that have no index.html.
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false)]
    #[arg(default_missing_value = "true", value_parser = flags::go_bool, action = clap::ArgAction::Set)]
    allow_browsing: bool,
    /// The port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The address; this machine only unless changed.
    #[arg(long, visible_alias = "listen-addr", value_name = "IP", default_value = "127.0.0.1", value_parser = flags::bind_ip)]
    host: IpAddr,
    /// The user that basic auth asks for.
    #[arg(long, value_name = "USER", default_value = "admin")]
    basic_auth_username: String,
    /// The password that basic auth asks for; visible in the process list, so better the next one.
    #[arg(long, value_name = "PASSWORD", value_parser = flags::secret)]
    basic_auth_password: Option<Secret>,
    /// File with the password.
    #[arg(long, value_name = "FILE")]
    basic_auth_password_file: Option<PathBuf>,
}

/// Serves the directory until told to end.
///
/// # Errors
/// The flags are wrong, the directory cannot be read, or the address cannot be bound.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let password = args.password()?;
    let auth = password.is_some();
    let mut files = Files::open(&args.webroot, args.allow_browsing).map_err(|cause| {
        CliError::failure(format!("cannot serve {}", args.webroot.display()))
            .caused_by(&cause)
            .next("name a directory that this user may read with --webroot")
    })?;
    if let Some(password) = password {
        files = files.with_basic_auth(&args.basic_auth_username, password.expose());
    }
    let mut signals = Signals::install()?;
    let asked = SocketAddr::new(args.host, args.port);
    let cannot = |cause: io::Error| {
        CliError::failure(format!("cannot listen on {asked}"))
            .caused_by(&cause)
            .next(role::bind_advice(&cause))
    };
    let listener = TcpListener::bind(asked).await.map_err(cannot)?;
    let addr = listener.local_addr().map_err(cannot)?;
    for line in startup(&args, addr, auth) {
        output::line(line);
    }
    let service = move |request| {
        let files = files.clone();
        async move { files.serve(request).await }
    };
    serve::until(listener, service, async {
        signals.next().await;
    })
    .await;
    Ok(ExitCode::SUCCESS)
}

fn startup(args: &Args, addr: SocketAddr, auth: bool) -> [String; 2] {
    [
        format!("Starting Adit fileserver. Version: {VERSION} - {SHA}"),
        format!(
            "Serving: {}, on {addr}, browsing: {}, auth: {auth}",
            args.webroot.display(),
            args.allow_browsing
        ),
    ]
}

impl Args {
    fn password(&self) -> Result<Option<Secret>, CliError> {
        let password = match (&self.basic_auth_password, &self.basic_auth_password_file) {
            (Some(_), Some(_)) => {
                return Err(CliError::usage(
                    "--basic-auth-password and --basic-auth-password-file are both given",
                )
                .next("keep the file"));
            }
            (None, None) => return Ok(None),
            (Some(password), None) => {
                output::warning(
                    "a password on the command line is visible in the process list; use --basic-auth-password-file",
                );
                password.clone()
            }
            (None, Some(file)) => token::read_file(file, "--basic-auth-password-file")?,
        };
        if self.basic_auth_username.is_empty() || self.basic_auth_username.contains(':') {
            return Err(CliError::usage(format!(
                "--basic-auth-username `{}` cannot be used",
                self.basic_auth_username
            ))
            .because("basic auth needs a name, and ends it at the first colon"));
        }
        Ok(Some(password))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Args {
        Line::parse_from(std::iter::once("fileserver").chain(line.split_whitespace())).args
    }

    #[test]
    fn the_startup_lines_are_the_known_ones() {
        let args = parse("-w ./ --allow-browsing");
        let [first, second] = startup(&args, "127.0.0.1:8080".parse().unwrap(), false);
        assert_eq!(first, format!("Starting Adit fileserver. Version: {VERSION} - {SHA}"));
        assert_eq!(second, "Serving: ./, on 127.0.0.1:8080, browsing: true, auth: false");
    }

    #[test]
    fn the_defaults_serve_this_machine_only() {
        let args = parse("");
        assert_eq!(
            (args.host.to_string(), args.port, args.allow_browsing),
            ("127.0.0.1".into(), 8080, false)
        );
        assert_eq!(args.basic_auth_username, "admin");
    }

    #[test]
    fn a_password_is_never_empty_and_never_printed() {
        let args = parse("--basic-auth-password pw1234");
        assert_eq!(args.password().unwrap().unwrap().expose(), "pw1234");
        assert!(!format!("{args:?}").contains("pw1234"));
        let empty = Line::try_parse_from(["fileserver", "--basic-auth-password="]).unwrap_err().to_string();
        assert!(empty.contains("'--basic-auth-password <PASSWORD>': the secret is empty"), "{empty}");
        assert!(parse("--basic-auth-password x --basic-auth-password-file y").password().is_err());
        assert!(parse("--basic-auth-password x --basic-auth-username a:b").password().is_err());
    }
}
