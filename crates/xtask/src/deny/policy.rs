//! The part of deny.toml that is checked without cargo-deny.

use anyhow::{Result, bail};

/// What deny.toml allows and refuses.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) licenses: Vec<String>,
    pub(super) banned: Vec<String>,
    pub(super) registries: Vec<String>,
    /// A crate and the version, or the front of it, that may stand beside another.
    skipped: Vec<(String, String)>,
}

impl Policy {
    /// Reads the arrays it needs. Not a TOML parser: it knows sections, comments, and arrays of strings or
    /// of one-line tables, which is how the file is written.
    ///
    /// # Errors
    /// When it finds nothing in one of them: a policy that cannot be read must not allow everything.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let crates =
            |key| array(text, "bans", key).iter().filter_map(|item| crate_of(item)).collect::<Vec<String>>();
        let skipped = crates("skip");
        let skipped = skipped.iter().filter_map(|item| item.split_once('@')).map(|(name, version)| {
            (name.to_owned(), version.trim_start_matches(['=', '^', '~', ' ']).to_owned())
        });
        let policy = Self {
            licenses: strings(text, "licenses", "allow"),
            banned: crates("deny"),
            registries: strings(text, "sources", "allow-registry"),
            skipped: skipped.collect(),
        };
        if policy.licenses.is_empty() || policy.banned.is_empty() || policy.registries.is_empty() {
            bail!("deny.toml has no licenses.allow, bans.deny or sources.allow-registry that xtask can read");
        }
        Ok(policy)
    }

    /// Whether this version may stand beside another one.
    pub(super) fn skips(&self, name: &str, version: &str) -> bool {
        self.skipped.iter().any(|(skipped, front)| {
            let rest = version.strip_prefix(front.as_str());
            skipped == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

fn crate_of(item: &str) -> Option<String> {
    let (_, rest) = item.split_once("crate")?;
    rest.split('"').nth(1).map(str::to_owned)
}

fn strings(text: &str, section: &str, key: &str) -> Vec<String> {
    let items = array(text, section, key);
    items.iter().flat_map(|item| item.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The text of each line of an array, or of each table in it, comments removed.
fn array(text: &str, section: &str, key: &str) -> Vec<String> {
    let header = format!("[{section}]");
    let mut lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .skip_while(|line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let is_start = |line: &str| {
        line.split_once('=').filter(|(name, _)| name.trim() == key).map(|(_, rest)| rest.to_owned())
    };
    let Some(first) = lines.find_map(is_start) else { return Vec::new() };
    let mut body = first;
    while !body.trim_end().ends_with(']') {
        let Some(line) = lines.next() else { break };
        body.push('\n');
        body += line;
    }
    body.split(['\n', '}']).map(str::to_owned).filter(|item| item.contains('"')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[licenses]\nallow = [\n  \"MIT\", # \"GPL\"\n  \"ISC\",\n]\n\n[bans]\nmultiple-versions = \"deny\"\n\
        deny = [\n  { crate = \"ring\", reason = \"one provider\" },\n  { crate = \"openssl\" },\n]\n\
        skip = [{ crate = \"syn@2\" }, { crate = \"bitflags@=1.3.2\" }]\n[sources]\nallow-registry = [\"https://x\"]\n";

    #[test]
    fn the_arrays_are_read() {
        let policy = Policy::parse(TEXT).unwrap();
        assert_eq!(policy.licenses, ["MIT", "ISC"]);
        assert_eq!(policy.banned, ["ring", "openssl"]);
        assert_eq!(policy.registries, ["https://x"]);
    }

    #[test]
    fn a_skip_covers_versions_that_start_with_it() {
        let policy = Policy::parse(TEXT).unwrap();
        assert!(policy.skips("syn", "2.0.1") && policy.skips("bitflags", "1.3.2"));
        assert!(
            !policy.skips("syn", "20.0.1")
                && !policy.skips("syn", "1.2.0")
                && !policy.skips("quote", "2.0.1")
        );
    }
}
