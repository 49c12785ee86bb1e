//! Errors of the command line: what failed, on which thing, why or whose fault, and what to do next.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::config::problem::Problem;

/// Which exit code an error ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Flags or a configuration file are wrong: 2.
    Usage,
    /// Something could not be done: 1.
    Failure,
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) struct CliError {
    kind: Kind,
    what: String,
    why: Vec<String>,
    next: Option<String>,
    problems: Vec<Problem>,
}

impl CliError {
    const fn new(kind: Kind, what: String) -> Self {
        Self { kind, what, why: Vec::new(), next: None, problems: Vec::new() }
    }

    /// Flags that are wrong: exit code 2.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what.into())
    }

    /// Something that could not be done: exit code 1.
    pub(crate) fn failure(what: impl Into<String>) -> Self {
        Self::new(Kind::Failure, what.into())
    }

    /// A configuration file with these problems: exit code 2.
    pub(crate) fn config(file: &str, problems: Vec<Problem>) -> Self {
        let count = problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        Self { problems, ..Self::usage(format!("{file} has {count} {noun}")) }
    }

    /// Several files with these problems: exit code 2.
    pub(crate) fn files(problems: Vec<Problem>) -> Self {
        let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let files: std::collections::BTreeSet<&str> = problems.iter().map(|it| it.file.as_str()).collect();
        let what = format!("{} in {}", count(problems.len(), "problem"), count(files.len(), "file"));
        Self { problems, ..Self::usage(what) }
    }

    /// Adds the reason, in words.
    pub(crate) fn because(mut self, why: impl fmt::Display) -> Self {
        self.why.push(why.to_string());
        self
    }

    /// Adds an error and everything behind it as the reason.
    pub(crate) fn caused_by(mut self, cause: &dyn Error) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some errors already quote their source; saying it twice helps nobody.
            if self.why.last().is_none_or(|said| !said.ends_with(&text)) {
                self.why.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Adds what to do about it.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same error, where something else could not be done for it.
    pub(crate) fn instead(mut self, what: impl Into<String>) -> Self {
        self.what = what.into();
        self
    }

    /// The same error as the failure of a check: exit code 1 whatever it was.
    pub(crate) fn into_failure(self) -> Self {
        Self { kind: Kind::Failure, ..self }
    }

    /// What and why in one line, and what to do next, for a place that tells it in its own form.
    pub(crate) fn what_and_next(self) -> (String, Option<String>) {
        let Self { what, why, next, kind: _, problems: _ } = self;
        let parts: Vec<String> = std::iter::once(what).chain(why).collect();
        (parts.join(": "), next)
    }

    /// The code the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::Usage => ExitCode::from(2),
            Kind::Failure => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        write!(f, "error: {}", self.what)?;
        for why in &self.why {
            write!(f, ": {why}")?;
        }
        self.next.as_ref().map_or(Ok(()), |next| write!(f, "\n next: {next}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let cause = std::io::Error::other("disk on fire");
        let error = CliError::failure("cannot read /a").caused_by(&cause).next("put it out");
        assert_eq!(error.to_string(), "error: cannot read /a: disk on fire\n next: put it out");
        assert_eq!(error.exit_code(), ExitCode::FAILURE);
        assert_eq!(CliError::usage("x").exit_code(), ExitCode::from(2));
        assert_eq!(CliError::usage("x").into_failure().exit_code(), ExitCode::FAILURE);
    }
}
