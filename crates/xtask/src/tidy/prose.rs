//! Rules for Markdown: links to files of the repository lead somewhere, decisions have a status, the
//! architecture stays short enough to be read.

use super::Finding;

const MAX_ARCHITECTURE_LINES: usize = 250;

/// Everything wrong with a page; `exists` is asked for paths from the workspace's folder.
pub(super) fn check(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, target) in links(text) {
        let is_dead = local_path(path, target).is_some_and(|file| file.is_none_or(|file| !exists(&file)));
        if is_dead {
            findings.push(Finding::new(
                path,
                line + 1,
                format!("the link to `{target}` leads nowhere"),
                "a dead link tells a reader that the page is out of date",
                "correct the path, which is relative to the page",
            ));
        }
    }
    if path == "ARCHITECTURE.md" && text.lines().count() > MAX_ARCHITECTURE_LINES {
        findings.push(Finding::new(
            path,
            MAX_ARCHITECTURE_LINES + 1,
            format!("more than {MAX_ARCHITECTURE_LINES} lines"),
            "it is the page that everybody reads first",
            "move detail into the module that it is about, or to docs/adr",
        ));
    }
    if path.starts_with("docs/adr/") && !text.lines().any(|line| line.starts_with("Status:")) {
        findings.push(Finding::new(
            path,
            1,
            "no line `Status:`",
            "a reader must know whether the decision still holds",
            "write `Status: accepted`, or `Status: superseded by ...`",
        ));
    }
    findings
}

/// The targets of `[text](target)` outside of code, with the line of each.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (line, content) in text.lines().enumerate() {
        if content.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        for (at, _) in content.match_indices("](") {
            let is_in_code = content[..at].matches('`').count() % 2 == 1;
            let rest = &content[at + 2..];
            if let Some(end) = rest.find(')').filter(|_| !is_in_code) {
                // A title may follow the target: [text](target "title").
                let target = rest[..end].split_whitespace().next().unwrap_or_default();
                found.push((line, target.trim_matches(['<', '>'])));
            }
        }
    }
    found
}

/// The file a link means, from the workspace's folder: none if it is not to a file of the repository,
/// and none inside if it leads out of it.
fn local_path(page: &str, target: &str) -> Option<Option<String>> {
    let file = target.split(['#', '?']).next().unwrap_or_default();
    if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    if file.starts_with('/') {
        parts.clear();
    }
    for part in file.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Some(None);
        }
    }
    Some(Some(parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        let exists = |file: &str| matches!(file, "docs/guide/a.md" | "README.md" | "docs");
        check(path, text, exists)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.what))
            .collect()
    }

    #[test]
    fn links_to_files_resolve_from_the_page() {
        let text = "[a](a.md#part) [b](../../README.md \"title\") [c](/docs) [d](https://x.example/y) [e](#here)\n\
                    `[f](none.md)`\n```\n[g](none.md)\n```\n";
        assert_eq!(whats("docs/guide/b.md", text), Vec::<String>::new());
    }

    #[test]
    fn links_that_lead_nowhere_or_out_of_the_repository_are_found() {
        assert_eq!(
            whats("docs/guide/b.md", "x\n[a](b.md) and ![i](../../../etc)\n"),
            ["2: the link to `b.md` leads nowhere", "2: the link to `../../../etc` leads nowhere"]
        );
    }

    #[test]
    fn the_architecture_is_short_and_decisions_have_a_status() {
        assert_eq!(whats("ARCHITECTURE.md", &"x\n".repeat(251)), ["251: more than 250 lines"]);
        assert!(whats("ARCHITECTURE.md", &"x\n".repeat(250)).is_empty());
        assert_eq!(whats("docs/adr/0001-x.md", "# X\n"), ["1: no line `Status:`"]);
        assert!(whats("docs/adr/0001-x.md", "# X\n\nStatus: accepted\n").is_empty());
    }
}
