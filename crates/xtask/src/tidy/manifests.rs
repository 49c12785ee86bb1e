//! Rules for the members' Cargo.toml: versions and lints stand once, in the workspace's manifest.

use super::Finding;

/// Everything wrong with a member's manifest.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut inherits_lints = false;
    for (line, content) in text.lines().enumerate() {
        let content = content.trim();
        if content.starts_with('[') {
            section = content.trim_start_matches('[').trim_end_matches(']');
            continue;
        }
        let Some((key, value)) = content.split_once('=').map(|(key, value)| (key.trim(), value.trim()))
        else {
            continue;
        };
        inherits_lints |=
            (section == "lints" && key == "workspace" || key == "lints.workspace") && value == "true";
        if let Some(what) = own_version(section, key, value) {
            findings.push(Finding::new(
                path,
                line + 1,
                what,
                "one table of versions shows what the product is built on",
                "put it into the workspace's Cargo.toml and write `name.workspace = true`",
            ));
        }
    }
    if !inherits_lints {
        findings.push(Finding::new(
            path,
            1,
            "the crate does not inherit the lints",
            "the house rules hold in every crate",
            "add `[lints]` with `workspace = true`",
        ));
    }
    findings
}

/// What a line says for itself that the workspace should say.
fn own_version(section: &str, key: &str, value: &str) -> Option<String> {
    let table = section.rsplit_once("dependencies").map(|(_, table)| table);
    match table {
        None if section == "package" && key == "version" => {
            Some("the package has a version of its own".into())
        }
        None => None,
        // `[dependencies]`: one line for each crate.
        Some("") => {
            let inherits = key.ends_with(".workspace") && value == "true"
                || value.starts_with('{') && value.replace(' ', "").contains("workspace=true");
            let is_other_key = key.contains('.') && !key.ends_with(".version");
            (!inherits && !is_other_key).then(|| format!("`{key}` does not come from the workspace"))
        }
        // `[dependencies.name]`: one section for each crate.
        Some(name) => matches!(key, "version" | "path" | "git")
            .then(|| format!("`{}` does not come from the workspace", name.trim_start_matches('.'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\nversion.workspace = true\n\n[lints]\nworkspace = true\n\n[dependencies]\n\
        bytes.workspace = true\ntokio = { workspace = true, features = [\"fs\"] }\n\n[dependencies.hyper]\nworkspace = true\n\n\
        [target.'cfg(unix)'.dev-dependencies]\ntempfile.workspace = true\n";

    fn whats(text: &str) -> Vec<String> {
        check("crates/a/Cargo.toml", text).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_manifest_that_inherits_everything_has_no_finding() {
        assert_eq!(whats(GOOD), Vec::<String>::new());
    }

    #[test]
    fn own_versions_paths_and_lints_are_found() {
        assert_eq!(
            whats(&GOOD.replace("bytes.workspace = true", "bytes = \"1\"")),
            ["`bytes` does not come from the workspace"]
        );
        assert_eq!(whats(&GOOD.replace("tempfile.workspace = true", "t = { path = \"../t\" }")).len(), 1);
        assert_eq!(
            whats(
                &GOOD.replace(
                    "[dependencies.hyper]\nworkspace = true",
                    "[dependencies.hyper]\nversion = \"1\""
                )
            ),
            ["`hyper` does not come from the workspace"]
        );
        assert_eq!(whats(&GOOD.replace("version.workspace = true", "version = \"1\"")).len(), 1);
        assert_eq!(
            whats(&GOOD.replace("[lints]\nworkspace = true", "[lints]")),
            ["the crate does not inherit the lints"]
        );
    }
}
