//! Commands in the README, the guides and the examples of help texts are commands that this binary takes.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _, Parser as _};

use crate::cli::Cli;

/// What ends a command in a shell.
const ENDS: [&str; 8] = ["|", "||", "&&", "&", ";", ">", ">>", "<"];

/// The words of a line as a shell takes them, to the end of its first command; a comment ends it as well.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut depth = 0_usize;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let text = &mut word;
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                text.get_or_insert_default();
            }
            (None | Some('"'), '\\') => text.get_or_insert_default().extend(chars.next()),
            // A comment of a shell, or of a help text.
            (None, '#' | '(') if text.is_none() => break,
            (None, '(') => {
                depth += 1;
                text.get_or_insert_default().push(c);
            }
            (None, ')') if depth > 0 => {
                depth -= 1;
                text.get_or_insert_default().push(c);
            }
            (None, ')') => break,
            (None, c) if c.is_whitespace() && depth == 0 => words.extend(text.take()),
            (_, c) => text.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let end = words.iter().position(|word| ENDS.contains(&word.as_str())).unwrap_or(words.len());
    words.truncate(end);
    words
}

/// The `adit` commands of a line; there may be several.
fn commands(line: &str) -> Vec<Vec<String>> {
    let starts = line.match_indices("adit ").filter(|(at, _)| {
        let before = line[..*at].trim_end();
        let is_word = !line[..*at].ends_with(|c: char| !c.is_whitespace() && c != '(');
        // What it stands behind: nothing, another command, or what a variable is set to for it.
        let last = before.rsplit(' ').next().unwrap_or_default();
        let is_begin = before.is_empty()
            || ["$", "&&", "||", "|", ";", "exec", "sudo", "<("].contains(&last)
            || last.ends_with('(')
            || last.ends_with(')')
            || last
                .split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
        is_word && is_begin
    });
    starts.map(|(at, _)| words(&line[at..])).collect()
}

/// Lines of a page's blocks of commands, with their numbers; what is continued is one line.
fn lines(page: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let (mut is_block, mut is_continued) = (false, false);
    for (number, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
            is_continued = false;
            continue;
        }
        if !is_block {
            continue;
        }
        let (text, goes_on) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        match found.last_mut() {
            Some((_, last)) if is_continued => last.push_str(text.strip_prefix("> ").unwrap_or(text)),
            _ => found.push((number + 1, text.to_owned())),
        }
        is_continued = goes_on;
    }
    found
}

fn check(place: &str, line: &str, wrong: &mut Vec<String>) -> usize {
    let found = commands(line);
    for command in &found {
        if let Err(error) = Cli::try_parse_from(command)
            && error.exit_code() != 0
        {
            wrong.push(format!("{place}: {}\n{error}", command.join(" ")));
        }
    }
    found.len()
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "docs/guide"] {
        let files = std::fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|it| it == "md")));
    }
    pages
}

#[test]
fn every_command_in_the_guides_is_one() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages() {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        for (number, line) in lines(&std::fs::read_to_string(&page).unwrap()) {
            count += check(&format!("{name}:{number}"), &line, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} commands were found");
}

#[test]
fn every_example_of_a_help_text_is_a_command() {
    fn walk(command: &Command, path: &str, wrong: &mut Vec<String>) -> usize {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let help = help.replace("\\\n    ", "");
        let mut count = 0;
        // Words behind a few blanks say what an example is for.
        for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
            count += check(path, line.split("   ").next().unwrap_or(line), wrong);
        }
        command
            .get_subcommands()
            .fold(count, |count, below| count + walk(below, &format!("{path} {}", below.get_name()), wrong))
    }
    let mut command = Cli::command();
    command.build();
    let mut wrong = Vec::new();
    let count = walk(&command, "adit", &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 60, "only {count} examples were found");
}

#[test]
fn words_are_those_of_a_shell() {
    assert_eq!(words(r#"adit a 'b c' "d e" f\ g # h"#), ["adit", "a", "b c", "d e", "f g"]);
    assert_eq!(words("adit a > b | c"), ["adit", "a"]);
    assert_eq!(
        commands("$ A=b adit c && adit d; echo adit e"),
        [vec!["adit", "c"], vec!["adit", "d;", "echo", "adit", "e"]]
    );
    assert_eq!(commands("about adit and others"), Vec::<Vec<String>>::new());
}
