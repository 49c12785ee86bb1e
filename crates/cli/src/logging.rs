//! The process log on standard error and the request log, as configured.

use std::io::IsTerminal as _;

use adit_telemetry::logs::{self, FlushGuard, LineWriter};

use crate::config::env;
use crate::config::values::{LogFormat, LogSettings, LogTarget};
use crate::error::CliError;
use crate::reload::{READ_TIMEOUT, bounded};

/// Starts logging on standard error. Dropping the guard writes out what is still waiting.
///
/// # Errors
/// The writer's thread cannot be started.
pub(crate) fn init(settings: LogSettings) -> Result<(LineWriter, Level, FlushGuard), CliError> {
    let cannot = |cause: &dyn std::error::Error| CliError::failure("cannot start the log").caused_by(cause);
    let (writer, guard) = LineWriter::stderr().map_err(|cause| cannot(&cause))?;
    let format = match settings.format {
        LogFormat::Text => logs::LogFormat::Text,
        LogFormat::Json => logs::LogFormat::Json,
    };
    // https://no-color.org: set and not empty.
    let wants_color = env::var("NO_COLOR").is_none_or(|value| value.is_empty());
    let color = wants_color && std::io::stderr().is_terminal();
    let level = logs::init(format, settings.level.label(), writer.clone(), color);
    Ok((writer, Level(level.map_err(|cause| cannot(&cause))?), guard))
}

/// How much is logged, while the process runs.
#[derive(Debug)]
pub(crate) struct Level(logs::FilterHandle);

impl Level {
    /// Logs so much from now on.
    ///
    /// # Errors
    /// The log is gone.
    pub(crate) fn set(&self, settings: LogSettings) -> Result<(), CliError> {
        let set = self.0.set(settings.level.label());
        set.map_err(|cause| CliError::failure("cannot change how much is logged").caused_by(&cause))
    }
}

/// The request log: where it goes, and what writes it out at the end.
#[derive(Debug)]
pub(crate) struct RequestLog {
    target: LogTarget,
    /// `None` writes nothing.
    open: Option<(LineWriter, FlushGuard)>,
}

impl RequestLog {
    /// Opens it.
    ///
    /// # Errors
    /// The file cannot be opened, or the writer's thread not be started.
    pub(crate) fn open(target: LogTarget) -> Result<Self, CliError> {
        let opened = match &target {
            LogTarget::Off => return Ok(Self { target, open: None }),
            LogTarget::Stdout => LineWriter::stdout(),
            LogTarget::Stderr => LineWriter::stderr(),
            LogTarget::File(path) => LineWriter::file(path),
        };
        let open = opened.map_err(|cause| {
            CliError::failure(format!("cannot open the request log {}", target.show()))
                .caused_by(&cause)
                .next("check that its directory exists and that this user may write there")
        })?;
        Ok(Self { target, open: Some(open) })
    }

    /// What lines are written to.
    pub(crate) fn writer(&self) -> Option<LineWriter> {
        self.open.as_ref().map(|(writer, _)| writer.clone())
    }

    /// Opens another one, unless it goes where this one does, while the process goes on with what it is there for.
    ///
    /// # Errors
    /// As [`RequestLog::open`], or it was not open in time.
    pub(crate) async fn other(&self, target: LogTarget) -> Result<Option<Self>, CliError> {
        if target == self.target {
            return Ok(None);
        }
        let name = target.show();
        let opened = bounded("request log", move || Self::open(target)).await;
        let opened = opened.unwrap_or_else(|| {
            let what = format!("the request log {name} was not open within {} s", READ_TIMEOUT.as_secs());
            Err(CliError::failure(what)
                .because("it does not answer: a mount that hangs, or a pipe that nobody reads")
                .next("name a plain file on a file system that answers"))
        });
        opened.map(Some)
    }

    /// Writes out what waits, without anybody waiting for that: the disk may hang.
    pub(crate) fn retire(self) {
        let retiring = std::thread::Builder::new().name("retired log".to_owned());
        if let Err(error) = retiring.spawn(move || drop(self)) {
            tracing::warn!(%error, "cannot start a thread");
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_log_that_cannot_be_opened_in_time_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let log = RequestLog::open(LogTarget::Off).unwrap();
        let error = log.other(LogTarget::File(pipe)).await.unwrap_err().to_string();
        assert!(error.contains("was not open within 10 s"), "{error}");
    }
}
