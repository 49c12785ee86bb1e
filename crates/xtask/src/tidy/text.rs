//! Rules for every text file: no trailing blanks, no path of somebody's own machine, no unfinished-work markers.

use super::Finding;
use super::source::allowed_rule;

/// Files that people write. Golden files and corpora keep their blanks.
const WRITTEN: &[&str] = &[
    "rs", "toml", "md", "sh", "yml", "yaml", "js", "mjs", "ts", "py", "css", "html", "svelte", "service",
    "conf", "run",
];

/// Written in two halves so that this file does not contain them.
const HOMES: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
const MARKERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// Everything wrong with a text file, whatever its language.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit('.').next().unwrap_or_default();
    let mut findings = Vec::new();
    if !WRITTEN.contains(&extension) {
        return findings;
    }
    let mut above = "";
    for (line, content) in text.lines().enumerate() {
        let allows = |rule: &str| {
            [content, above]
                .iter()
                .any(|line| allowed_rule(line).is_some_and(|(name, why)| name == rule && !why.is_empty()))
        };
        let mut refuse = |what: String, why, fix| findings.push(Finding::new(path, line + 1, what, why, fix));
        if content.ends_with([' ', '\t']) {
            refuse("blanks at the end of the line".into(), "they make noise in every diff", "remove them");
        }
        if let Some(home) = home_in(content).filter(|_| !allows("path")) {
            refuse(
                format!("`{home}` is a folder of one machine"),
                "it does not exist on anybody else's, and says whose it was",
                "use a path relative to the repository or a placeholder, or `tidy: allow(path): reason`",
            );
        }
        // In prose the words may be talked about.
        let marker = MARKERS.iter().find(|marker| has_word(content, marker));
        if let Some(marker) = marker.filter(|_| extension != "md" && !allows("marker")) {
            refuse(
                format!("`{marker}` is left in the file"),
                "nobody comes back for it",
                "do it now, or open an issue and say in the code what holds today",
            );
        }
        above = content;
    }
    findings
}

fn home_in(line: &str) -> Option<String> {
    for home in HOMES {
        for (at, _) in line.match_indices(home) {
            let starts_a_path =
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}'));
            let user: String =
                line[at + home.len()..].chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            if starts_a_path && !user.is_empty() {
                return Some(format!("{home}{user}"));
            }
        }
    }
    None
}

fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(path, text).into_iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn blanks_markers_and_home_folders_are_found() {
        let text = format!("a \n// {}: later\ncd {}jane/x\nAUTODOC {}S\n", MARKERS[0], HOMES[0], MARKERS[0]);
        assert_eq!(
            whats("a.rs", &text),
            [
                "1: blanks at the end of the line".to_owned(),
                format!("2: `{}` is left in the file", MARKERS[0]),
                format!("3: `{}jane` is a folder of one machine", HOMES[0]),
            ]
        );
        assert!(whats("golden.txt", &text).is_empty());
    }

    #[test]
    fn a_path_below_something_else_is_nobodys_home() {
        let text = format!(
            "src{}page.html\n$DIR}}{}x/\n# tidy: allow(path): an example\n{}jane\n",
            HOMES[0], HOMES[1], HOMES[0]
        );
        assert_eq!(whats("a.sh", &text), Vec::<String>::new());
    }
}
