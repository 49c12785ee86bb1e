//! Rules for Rust files: purpose first, house words, no skipped or sleeping tests, bounded size.

use super::Finding;
use super::source::{Source, allowed_rule, identifiers, words};

/// Words for things that have another name in this house (the glossary in ARCHITECTURE.md), or that say nothing.
const REFUSED_WORDS: &[&str] = &[
    "origin",
    "backend",
    "visitor",
    "eyeball",
    "downstream",
    "connector",
    "terminator",
    "ingress",
    "hub",
    "principal",
    "manager",
    "helper",
    "util",
];

/// Identifiers of others that contain such a word.
const FOREIGN_IDENTIFIERS: &[&str] = &[
    // Types of tokio-rustls and tokio-websockets.
    "TlsConnector",
    // Names of header fields, as in the crate `http`.
    "ORIGIN",
    "ACCESS_CONTROL_ALLOW_ORIGIN",
];

const WARN_LINES: usize = 600;
const MAX_LINES: usize = 1000;

/// The crates the workspace depends on, as they are written in code: their names are not ours to choose.
pub(super) fn foreign_crates(root_manifest: &str) -> Vec<String> {
    root_manifest
        .lines()
        .skip_while(|line| line.trim() != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .collect()
}

/// Everything wrong with a Rust file.
pub(super) fn check(source: &Source, foreign: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !source.text.starts_with("//!") {
        findings.push(Finding::new(
            &source.path,
            1,
            "the file does not open with `//!`",
            "its first sentence is how a reader decides whether to read on",
            "say in one sentence what this file is responsible for",
        ));
    }
    size(source, &mut findings);
    house_words(source, foreign, &mut findings);
    for line in 0..source.code.len() {
        test_habits(source, line, &mut findings);
        exceptions(source, line, &mut findings);
    }
    findings
}

fn size(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.code.len();
    let has_reason = source
        .comments
        .iter()
        .filter_map(|line| allowed_rule(line))
        .any(|(rule, reason)| rule == "lines" && !reason.is_empty());
    let finding = |limit| {
        Finding::new(
            &source.path,
            1,
            format!("{lines} lines, over {limit}"),
            "a file is read as a whole",
            "split it by responsibility, or say why not: `// tidy: allow(lines): reason`",
        )
    };
    if lines > MAX_LINES && !has_reason {
        findings.push(finding(MAX_LINES));
    } else if lines > WARN_LINES {
        findings.push(finding(WARN_LINES).warn());
    }
}

fn house_words(source: &Source, foreign: &[String], findings: &mut Vec<Finding>) {
    let mut is_foreign_import = false;
    for (line, code) in source.code.iter().enumerate() {
        let imported = code.trim_start().trim_start_matches("pub ").strip_prefix("use ");
        is_foreign_import |= imported.is_some_and(|path| foreign.iter().any(|name| starts_path(path, name)));
        if !is_foreign_import {
            house_words_in_line(source, line, foreign, findings);
        }
        is_foreign_import &= !code.contains(';');
    }
}

fn starts_path(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"))
}

fn house_words_in_line(source: &Source, line: usize, foreign: &[String], findings: &mut Vec<Finding>) {
    let mut is_foreign_path = false;
    for (gap, identifier) in identifiers(&source.code[line]) {
        let continues = is_foreign_path && gap == "::";
        is_foreign_path = continues || foreign.iter().any(|name| name == identifier);
        if is_foreign_path || FOREIGN_IDENTIFIERS.contains(&identifier) {
            continue;
        }
        let refused = words(identifier).into_iter().find(|word| is_refused(word));
        if let Some(word) = refused.filter(|_| !source.allows("word", line)) {
            findings.push(Finding::new(
                &source.path,
                line + 1,
                format!("`{identifier}` says `{word}`"),
                "the house has one word for each thing",
                "use the glossary's word, or say whose word it is: `// tidy: allow(word): reason`",
            ));
        }
    }
}

fn is_refused(word: &str) -> bool {
    let singular = word.strip_suffix('s').unwrap_or(word);
    REFUSED_WORDS.iter().any(|refused| *refused == word || *refused == singular)
}

fn test_habits(source: &Source, line: usize, findings: &mut Vec<Finding>) {
    let code = &source.code[line];
    let mut refuse =
        |what: &str, why, fix| findings.push(Finding::new(&source.path, line + 1, what, why, fix));
    if code.contains("#[ignore") {
        refuse(
            "a test is ignored",
            "nothing is skipped in silence",
            "assert what happens today, with a note, or delete the test",
        );
    }
    if code.contains("todo!") {
        refuse(
            "`todo!` is left in the code",
            "it ends a flow when somebody reaches it",
            "write it or leave it out",
        );
    }
    // With a paused clock a sleep takes no time and cannot be too short.
    let is_paused = source.code.iter().any(|code| code.contains("start_paused = true"));
    if source.is_test[line] && !is_paused && calls(code, "sleep") && !source.allows("sleep", line) {
        refuse(
            "a test sleeps",
            "it is slow when the machine is fast and flaky when it is slow",
            "wait for a level with a deadline, or say why not: `// tidy: allow(sleep): reason`",
        );
    }
}

/// Whether a function of this name is called, by any path.
fn calls(code: &str, name: &str) -> bool {
    let call = format!("{name}(");
    code.match_indices(&call).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let is_definition = code[..at].trim_end().ends_with("fn");
        !is_definition && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// An exception without a reason, or for a rule that does not exist, is a finding itself.
fn exceptions(source: &Source, line: usize, findings: &mut Vec<Finding>) {
    const RULES: &[&str] = &["lines", "word", "sleep", "path", "marker"];
    // Documentation shows the form of exceptions; only plain comments make them.
    let Some(comment) = source.comments.get(line).map(|comment| comment.trim()) else { return };
    if comment.starts_with("//!") || comment.starts_with("///") {
        return;
    }
    if let Some((rule, reason)) = allowed_rule(comment)
        && (reason.is_empty() || !RULES.contains(&rule))
    {
        findings.push(Finding::new(
            &source.path,
            line + 1,
            format!("`tidy: allow({rule})` has no reason or no such rule exists"),
            "an exception is read by whoever wants to remove it",
            "write `tidy: allow(rule): reason` with one of: lines, word, sleep, path, marker",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        let foreign = foreign_crates(
            "[workspace.dependencies]\nhyper-util = { version = \"0\" }\n# x\n[lints]\na = 1\n",
        );
        assert_eq!(foreign, ["hyper_util"]);
        check(&Source::new(path, text), &foreign)
            .into_iter()
            .map(|f| format!("{}: {}", f.line, f.what))
            .collect()
    }

    #[test]
    fn a_clean_file_has_no_finding() {
        let text =
            "//! Purpose.\nuse hyper_util::rt;\nfn thorough() { sleep(1); } // an origin, a TlsConnector\n";
        assert_eq!(whats("crates/a/src/b.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_file_without_its_purpose_in_front_is_refused() {
        assert_eq!(whats("crates/a/src/b.rs", "use x;\n"), ["1: the file does not open with `//!`"]);
    }

    #[test]
    fn refused_words_are_found_in_every_case_and_number_but_not_in_text() {
        let text = "//! Origin.\nstruct ConnManager;\nlet my_backends = \"backend\";\nconst ORIGINAL: u8 = 0;\n\
                    let util = 1; // tidy: allow(word): theirs\n";
        assert_eq!(
            whats("crates/a/src/b.rs", text),
            ["2: `ConnManager` says `manager`", "3: `my_backends` says `backends`"]
        );
    }

    #[test]
    fn paths_into_foreign_crates_are_not_ours_to_name() {
        let text = "//! X.\nuse hyper_util::{\n    util::A,\n};\nfn f() { hyper_util::util::go(); util::go() }\n\
                    use other::util::B;\n";
        assert_eq!(whats("crates/a/src/b.rs", text), ["5: `util` says `util`", "6: `util` says `util`"]);
    }

    #[test]
    fn tests_neither_sleep_nor_are_skipped() {
        let text = "//! X.\nfn f() { tokio::time::sleep(d); }\n#[cfg(test)]\nmod tests {\n    #[ignore]\n    fn a() { \
                    tokio::time::sleep(d).await }\n    // tidy: allow(sleep): the peer has no signal\n    fn b() { \
                    sleep(d) }\n    fn sleep() { oversleep() }\n}\n";
        assert_eq!(whats("crates/a/src/b.rs", text), ["5: a test is ignored", "6: a test sleeps"]);
        let paused = text.replace("#[ignore]", "#[tokio::test(start_paused = true)]");
        assert_eq!(whats("crates/a/src/b.rs", &paused), [""; 0]);
    }

    #[test]
    fn long_files_warn_and_longer_ones_need_a_reason() {
        let file = |lines: usize, first: &str| format!("//! X.\n{first}\n{}", "\n".repeat(lines - 2));
        let weigh = |text: &str| {
            let found = check(&Source::new("crates/a/src/b.rs", text), &[]);
            found.iter().map(|finding| finding.weight).collect::<Vec<_>>()
        };
        assert!(weigh(&file(600, "")).is_empty());
        assert_eq!(weigh(&file(601, "")), [super::super::Weight::Warn]);
        assert_eq!(weigh(&file(1001, "")), [super::super::Weight::Refuse]);
        assert_eq!(weigh(&file(1001, "// tidy: allow(lines): one table")), [super::super::Weight::Warn]);
    }

    #[test]
    fn an_exception_needs_a_reason_and_a_rule_that_exists() {
        let text =
            "//! X.\n// tidy: allow(word)\n// tidy: allow(slep): typing\n// tidy: allow(path): example\n";
        assert_eq!(whats("crates/a/src/b.rs", text).len(), 2);
    }
}
