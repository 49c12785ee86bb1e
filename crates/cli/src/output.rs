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

/// How an answer of the interface is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For people and programs.
    Yaml,
}

/// Flags of commands whose `-o` is the form.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct FormArgs {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    #[arg(short = 'j', long, hide = true, conflicts_with = "output")]
    output_json: bool,
    /// Print only what was asked for; nothing at all where that is a change.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Flags of commands whose `-o` is the file of a secret.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct LongFormArgs {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    #[arg(short = 'j', long, hide = true, conflicts_with = "output")]
    output_json: bool,
    /// Print only what was asked for; nothing at all where that is a change.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl FormArgs {
    /// The form.
    pub(crate) const fn form(self) -> Form {
        if self.output_json { Form::Json } else { self.output }
    }
}

impl LongFormArgs {
    /// The form.
    pub(crate) const fn form(self) -> Form {
        if self.output_json { Form::Json } else { self.output }
    }
}

/// Prints a value for programs, or what `text` makes of it for people.
pub(crate) fn value(form: Form, value: &serde_json::Value, text: impl FnOnce() -> String) {
    match form {
        Form::Text => print(&text()),
        Form::Json => print(&format!("{value:#}\n")),
        Form::Yaml => print(&crate::yaml::document(value)),
    }
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

/// Text that others chose, for a terminal that must not obey it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
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

/// The width of the terminal on standard output; `None` when it is none.
pub(crate) fn terminal_width() -> Option<usize> {
    #[cfg(unix)]
    {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|width| *width > 0)
    }
    #[cfg(not(unix))]
    None
}

/// A table for people: nothing is `-`, and on a terminal no line is longer than it is wide, if cutting cells can do it.
pub(crate) fn fitted_table(head: &[&str], rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    /// Cut no cell to less than this.
    const LEAST: usize = 12;
    let mut rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| {
            let filled = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell) };
            row.into_iter().map(filled).collect()
        })
        .collect();
    let Some(width) = width else { return table(head, &rows) };
    let mut widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
        })
        .collect();
    let gaps = 2 * head.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > LEAST) else { break };
        *widest -= 1;
    }
    for row in &mut rows {
        for (cell, &width) in row.iter_mut().zip(&widths) {
            if cell.chars().count() > width {
                *cell = cell.chars().take(width.saturating_sub(1)).chain(['…']).collect();
            }
        }
    }
    table(head, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_a_terminal_and_is_whole_elsewhere() {
        let rows = || vec![vec!["a".repeat(30), "b".repeat(20), String::new()]];
        let cut = fitted_table(&["A", "B", "C"], rows(), Some(40));
        assert!(cut.lines().all(|line| line.chars().count() <= 40), "{cut}");
        assert!(cut.contains("a…") && cut.contains("  -\n"), "{cut}");
        assert!(fitted_table(&["A", "B", "C"], rows(), None).contains(&"a".repeat(30)));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["long cell".to_owned(), "x".to_owned()], vec!["b".to_owned(), "yy".to_owned()]];
        assert_eq!(table(&["A", "B"], &rows), "A          B\nlong cell  x\nb          yy\n");
        assert_eq!(table(&["A", "B"], &[]), "A  B\n");
    }
}
