//! Which crate may know which: the table of ARCHITECTURE.md as code, compared with what cargo sees and with
//! what the page says.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{cargo, read, root};

/// What a crate may depend on, besides crates that are not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    /// Exactly these.
    Use(&'static [&'static str]),
    /// It is for development only: it may use any shipped crate, and none of those may use it.
    Develop,
}

/// One row for each folder of a member. The reasons stand in ARCHITECTURE.md.
pub(crate) const TABLE: &[(&str, May)] = &[
    ("proto", May::Use(&[])),
    ("tunnel", May::Use(&["proto"])),
    ("control", May::Use(&["proto"])),
    ("telemetry", May::Use(&[])),
    ("gateway", May::Use(&["proto", "tunnel", "control", "telemetry"])),
    ("agent", May::Use(&["proto", "tunnel", "telemetry"])),
    ("cli", May::Use(&["proto", "tunnel", "control", "telemetry", "gateway", "agent"])),
    ("testkit", May::Develop),
    ("xtask", May::Develop),
    ("tests", May::Develop),
];

/// The row, or the crate, that does not agree, and what to do.
pub(crate) type Disagreement = String;

/// One dependency between two of our own crates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Only for the tests of `from`.
    pub(crate) is_dev: bool,
}

/// The workspace as cargo sees it: the folder of each member, and the edges between them.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) members: Vec<String>,
    pub(crate) edges: Vec<Edge>,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn read() -> Result<Self> {
        let text = read(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
        Self::from_metadata(&serde_json::from_str(&text).context("cargo metadata is not JSON")?)
            .context("cargo metadata is not as expected")
    }

    fn from_metadata(metadata: &Value) -> Option<Self> {
        let mut workspace = Self::default();
        for package in metadata.get("packages")?.as_array()? {
            let from = folder(package.get("manifest_path")?)?;
            for dependency in package.get("dependencies")?.as_array()? {
                if let Some(to) = dependency.get("path").and_then(folder) {
                    let is_dev = dependency.get("kind").and_then(Value::as_str) == Some("dev");
                    workspace.edges.push(Edge { from: from.clone(), to, is_dev });
                }
            }
            workspace.members.push(from);
        }
        Some(workspace)
    }
}

/// The name of a folder, given it or its manifest.
fn folder(path: &Value) -> Option<String> {
    let path = Path::new(path.as_str()?);
    let path = if path.ends_with("Cargo.toml") { path.parent()? } else { path };
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Compares the table with cargo, in both directions.
///
/// An edge that is allowed and not used is no mistake: the table says what may be.
pub(crate) fn compare(workspace: &Workspace) -> Vec<Disagreement> {
    let row = |name: &str| TABLE.iter().find(|(row, _)| *row == name).map(|(_, may)| *may);
    let mut found = Vec::new();
    for name in &workspace.members {
        if row(name).is_none() {
            found.push(format!(
                "crate `{name}` is not in the edge table; say in its row what it may depend on"
            ));
        }
    }
    for (name, may) in TABLE {
        let listed = if let May::Use(names) = may { *names } else { &[] };
        for listed in [name].into_iter().chain(listed) {
            if !workspace.members.iter().any(|member| member == listed) {
                found.push(format!(
                    "the row of `{name}` names `{listed}`, which is no crate; correct the edge table"
                ));
            }
        }
    }
    for Edge { from, to, is_dev } in &workspace.edges {
        let is_shipped = matches!(row(to), Some(May::Use(_)));
        let is_allowed = match row(from) {
            Some(May::Use(names)) => names.contains(&to.as_str()) || (*is_dev && to == "testkit"),
            Some(May::Develop) => is_shipped || to == "testkit",
            None => true,
        };
        if !is_allowed {
            let kind = if *is_dev { "its tests depend" } else { "it depends" };
            found.push(format!(
                "crate `{from}` may not know `{to}`, yet {kind} on it; move the code to the crate that may, or change \
                 the table here and in ARCHITECTURE.md with a page in docs/adr"
            ));
        }
    }
    found
}

/// Compares the table with the one in ARCHITECTURE.md, if that page has one.
pub(crate) fn compare_page(page: &str) -> Vec<Disagreement> {
    let Some(rows) = page_rows(page) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, may) in TABLE {
        match rows.get(*name) {
            // The package of tests is no crate that anybody may know, so the page may leave it out.
            None if *may == May::Develop => {}
            None => found.push(format!("crate `{name}` has no row in the table of ARCHITECTURE.md; add it")),
            Some(Cell::Develop) if *may == May::Develop => {}
            Some(Cell::Use(names)) if matches!(may, May::Use(listed) if same(names, listed)) => {}
            Some(cell) => found.push(format!(
                "ARCHITECTURE.md lets `{name}` depend on {cell:?}, the table in crates/xtask says {may:?}; make them agree"
            )),
        }
    }
    for name in rows.keys().filter(|name| TABLE.iter().all(|(row, _)| row != name)) {
        found.push(format!(
            "the table of ARCHITECTURE.md has a row `{name}`, which the table in crates/xtask has not"
        ));
    }
    found
}

fn same(names: &[String], listed: &[&str]) -> bool {
    let (mut names, mut listed) = (names.iter().map(String::as_str).collect::<Vec<_>>(), listed.to_vec());
    names.sort_unstable();
    listed.sort_unstable();
    names == listed
}

#[derive(Debug, PartialEq, Eq)]
enum Cell {
    Use(Vec<String>),
    Develop,
}

/// The rows of the table whose header starts with `| crate |`; its last column is what a crate may depend on.
fn page_rows(page: &str) -> Option<BTreeMap<String, Cell>> {
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| crate |"));
    lines.next()?;
    let mut rows = BTreeMap::new();
    let mut above: Vec<String> = Vec::new();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let (first, last) = (cells.first()?, cells.last()?);
        for name in names(first) {
            let cell = if last.contains("development only") {
                Cell::Develop
            } else if last.contains("all of the above") {
                Cell::Use(above.clone())
            } else {
                Cell::Use(names(last))
            };
            rows.insert(name, cell);
        }
        above.extend(names(first));
    }
    Some(rows)
}

fn names(cell: &str) -> Vec<String> {
    cell.split(',')
        .map(|name| name.trim().trim_matches('`').to_owned())
        .filter(|name| !matches!(name.as_str(), "" | "–" | "-"))
        .collect()
}

/// Everything that disagrees in the real workspace: with cargo, and with the page if it exists.
pub(crate) fn check() -> Result<Vec<Disagreement>> {
    let mut found = compare(&Workspace::read()?);
    let page = root().join("ARCHITECTURE.md");
    if page.is_file() {
        found.extend(compare_page(&std::fs::read_to_string(page).context("cannot read ARCHITECTURE.md")?));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_workspace_agrees_with_the_table() {
        assert!(!Workspace::read().unwrap().edges.is_empty());
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }

    fn workspace(edges: &[(&str, &str, bool)]) -> Workspace {
        Workspace {
            members: TABLE.iter().map(|(name, _)| (*name).to_owned()).collect(),
            edges: edges
                .iter()
                .map(|(from, to, is_dev)| Edge { from: (*from).into(), to: (*to).into(), is_dev: *is_dev })
                .collect(),
        }
    }

    #[test]
    fn an_edge_that_is_not_listed_is_named_with_both_ends() {
        let found = compare(&workspace(&[("proto", "tunnel", false), ("gateway", "proto", false)]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("`proto` may not know `tunnel`"));
        assert_eq!(compare(&workspace(&[("gateway", "testkit", false)])).len(), 1);
        assert_eq!(compare(&workspace(&[("tunnel", "agent", true)])).len(), 1);
        assert_eq!(compare(&workspace(&[("testkit", "tests", false)])).len(), 1);
    }

    #[test]
    fn development_crates_may_know_every_shipped_one_and_tests_may_use_the_testkit() {
        let edges = [("testkit", "gateway", false), ("tests", "testkit", true), ("gateway", "testkit", true)];
        assert_eq!(compare(&workspace(&edges)), Vec::<String>::new());
    }

    #[test]
    fn a_row_without_a_crate_and_a_crate_without_a_row_are_named() {
        let mut workspace = workspace(&[]);
        workspace.members.retain(|name| name != "telemetry");
        workspace.members.push("kube".into());
        let found = compare(&workspace);
        assert!(found.iter().any(|text| text.contains("crate `kube` is not in the edge table")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("the row of `cli` names `telemetry`")), "{found:?}");
    }

    const PAGE: &str = "text\n\n| crate | is | may depend on |\n|---|---|---|\n| `proto` | a | – |\n| `tunnel` | b | proto |\n\
        | `control` | c | proto |\n| `telemetry` | d | – |\n| `gateway` | e | proto, tunnel, control, telemetry |\n\
        | `agent` | f | proto, tunnel, telemetry |\n| `cli` | g | all of the above |\n\
        | `testkit`, `xtask` | h | (development only) |\n\nmore\n";

    #[test]
    fn the_page_agrees_as_the_plan_wrote_it() {
        assert_eq!(compare_page(PAGE), Vec::<String>::new());
        assert_eq!(compare_page("no table here"), Vec::<String>::new());
    }

    #[test]
    fn a_page_that_says_otherwise_is_named() {
        let wrong =
            PAGE.replace("| b | proto |", "| b | proto, control |").replace("| `telemetry` | d | – |\n", "");
        let found = compare_page(&wrong);
        assert!(found.iter().any(|text| text.contains("lets `tunnel` depend on")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("`telemetry` has no row")), "{found:?}");
    }

    #[test]
    fn metadata_is_read_by_the_folders_of_the_members() {
        let metadata = serde_json::json!({"packages": [{
            "manifest_path": "/w/crates/gateway/Cargo.toml",
            "dependencies": [
                {"name": "adit-proto", "path": "/w/crates/proto", "kind": null},
                {"name": "bytes", "kind": null},
                {"name": "adit-testkit", "path": "/w/crates/testkit", "kind": "dev"},
            ],
        }]});
        let workspace = Workspace::from_metadata(&metadata).unwrap();
        assert_eq!(workspace.members, ["gateway"]);
        assert_eq!(workspace.edges.len(), 2);
        assert!(workspace.edges[1].is_dev);
    }
}
