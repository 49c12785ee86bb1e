//! The answer as plain text, for a terminal of 100 columns.

use std::fmt::{self, Write as _};

use super::{EndpointView, Explanation, PolicyView};
use crate::model::{Role, Semantic, rfc3339};

const WIDTH: usize = 100;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.allowed, self.works) {
            (true, true) => "ALLOWED",
            (true, false) => "ALLOWED, NOT ONLINE",
            (false, _) => "DENIED",
        };
        wrapped(f, "", &format!("{word}: {}.", self.verdict))?;
        if let (Some(to), Some(via)) = (&self.to, &self.via) {
            wrapped(f, "  ", &via.sentence(to, self.service.as_ref()))?;
        }
        for note in &self.notes {
            wrapped(f, "  ", note)?;
        }
        section(f, "Policies that allow it", &self.matched, |f, policy| wrapped(f, "  ", &line(policy)))?;
        section(f, "Policies that nearly do", &self.nearly, |f, near| {
            wrapped(f, "  ", &line(&near.policy))?;
            wrapped(f, "      ", &near.missing)
        })?;
        if self.nearly_more > 0 {
            writeln!(f, "  and {} more", self.nearly_more)?;
        }
        section(f, "Endpoints", &self.endpoints, |f, endpoint| wrapped(f, "  ", &offered(endpoint)))?;
        section(f, "To change it", &self.fixes, |f, fix| {
            wrapped(f, "  ", &fix.what)?;
            // Never broken, so that it can be copied.
            writeln!(f, "      {}", fix.command)
        })
    }
}

/// A heading with what belongs to it; nothing when nothing does.
fn section<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: &[T],
    show: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}:")?;
    items.iter().try_for_each(|item| show(f, item))
}

fn line(policy: &PolicyView) -> String {
    let roles = |roles: &[Role]| roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let PolicyView { name, semantic, service_roles, identity_roles } = policy;
    let attributes = |roles: &[Role]| roles.iter().filter(|it| matches!(it, Role::Attribute(_))).count();
    let combined =
        if attributes(service_roles).max(attributes(identity_roles)) > 1 || *semantic == Semantic::AllOf {
            format!(", {semantic}")
        } else {
            String::new()
        };
    format!("{name} (services {}; identities {}{combined})", roles(service_roles), roles(identity_roles))
}

fn offered(endpoint: &EndpointView) -> String {
    let EndpointView { agent, identity, upstream, since, last_probe, .. } = endpoint;
    let probe = match last_probe {
        None => "not probed yet".to_owned(),
        Some(probe) => {
            format!("last probe {}, {} s ago", if probe.ok { "ok" } else { "failed" }, probe.age_seconds)
        }
    };
    format!("{identity} to {upstream} (agent {agent}, since {}; {probe})", rfc3339(*since))
}

/// Lines of words, each begun with the indent, the later ones with two blanks more.
fn wrapped(f: &mut fmt::Formatter<'_>, indent: &str, text: &str) -> fmt::Result {
    let mut line = indent.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            line = format!("{indent}  {word}");
        } else {
            write!(line, "{}{word}", if is_empty { "" } else { " " })?;
        }
        is_empty = false;
    }
    writeln!(f, "{line}")
}
