//! `adit backup`: the state of a gateway as one file, and back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adit_control::authority::Authority;
use adit_control::store::sqlite::restore;
use http::Method;

use crate::access::AccessArgs;
use crate::control_client::{Client, Question};
use crate::error::CliError;
use crate::interface::Interface;
use crate::output;
use crate::private_file::Pending;

/// The gateway copies and checks all of it before it answers.
const PATIENCE: Duration = Duration::from_secs(120);
/// How the file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// What is done with a backup.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Copy the state of a gateway that runs, as of one moment, to a file. It holds secrets.
    Create(Box<Create>),
    /// Put a backup in the place of the state of a gateway that does not run.
    Restore(Restore),
}

/// The flags of a backup.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Where to write it, for its owner alone.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// The flags of a restore.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The gateway's state directory; it is made if there is none. What it holds now is kept as adit.db.replaced.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Self::Create(args) => create(&args).await,
            Self::Restore(args) => put_back(&args),
        }
    }
}

async fn create(Create { file, force, access }: &Create) -> Result<ExitCode, CliError> {
    let pending = Pending::new_at(file, *force)?;
    let mut interface = Interface::new(Client::new(access.target()?).patient_for(PATIENCE));
    let question = Question { accept: "*/*", ..Question::new(Method::POST, "/v1/backup") };
    let answer = interface.call(question).await?;
    if !answer.body.starts_with(MAGIC) {
        return Err(CliError::failure("the gateway answered something that is no backup")
            .because(format!("{} bytes came that are not a database", answer.body.len()))
            .next("compare `adit version` on both sides"));
    }
    pending.write(&answer.body)?;
    output::line(format_args!("wrote the state of {} to {}", interface.gateway(), file.display()));
    output::note(
        "it holds secrets, and not the keys of the gateway's authority: those stay in its state directory",
    );
    Ok(ExitCode::SUCCESS)
}

fn put_back(Restore { file, state_dir }: &Restore) -> Result<ExitCode, CliError> {
    // Said here: the store would take a file that is not there for a fault of its own.
    std::fs::File::open(file).map_err(|cause| {
        CliError::failure(format!("cannot read the backup {}", file.display()))
            .caused_by(&cause)
            .next("name the file that adit backup create FILE wrote, and see that this user may read it")
    })?;
    let restored = restore(file, state_dir).map_err(|cause| {
        CliError::failure(format!("cannot restore {}", file.display()))
            .caused_by(&cause)
            .next("put that right and try again; until it is done the state is as it was")
    })?;
    output::line(format_args!("restored into {}, entries: {}", state_dir.display(), restored.entries));
    if let Some(replaced) = restored.replaced {
        output::line(format_args!("what was there before is kept as {}", replaced.display()));
    }
    if !Authority::is_kept_in(state_dir) {
        output::note(format_args!(
            "{} has no ca.crt and no ca.key: a gateway that starts there makes a new authority, and every identity has \
             to enroll again; to keep them, copy ca.* and intermediate.* there first, from where they are kept",
            state_dir.display()
        ));
    }
    output::note("what was revoked since the backup was made is valid again; revoke it once more");
    Ok(ExitCode::SUCCESS)
}
