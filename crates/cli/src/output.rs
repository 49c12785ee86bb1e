//! Everything the program prints: results on standard output, everything about them on standard error.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::error::CliError;

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Prints one line of a result.
pub(crate) fn line(text: impl Display) {
    print(&format!("{text}\n"));
}

/// Prints a result as it is.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away (`adit status | head -1`) is not an error worth a message.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Says that something was accepted, or is not as it may seem.
pub(crate) fn note(text: impl Display) {
    say(&format!("note: {text}"));
}

/// Says that something works but should be changed.
pub(crate) fn warning(text: impl Display) {
    say(&format!("warning: {text}"));
}

/// Says why the command failed.
pub(crate) fn error(error: &CliError) {
    say(&error.to_string());
}

fn say(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints help, a version or a usage error where each belongs, and gives the exit code that goes with it.
pub(crate) fn usage(message: &clap::Error) -> ExitCode {
    drop(message.print());
    u8::try_from(message.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Lays out a table: each column as wide as its widest cell, the last one unpadded.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let lay_out = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = lay_out(&mut head.iter().copied());
    for row in rows {
        text.push_str(&lay_out(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["long cell".to_owned(), "x".to_owned()], vec!["b".to_owned(), "yy".to_owned()]];
        assert_eq!(table(&["A", "B"], &rows), "A          B\nlong cell  x\nb          yy\n");
        assert_eq!(table(&["A", "B"], &[]), "A  B\n");
    }
}
