//! `state` of `gateway.yaml`: what is kept between runs, and how identities come to certificates.

use std::path::PathBuf;
use std::time::Duration;

use adit_gateway::config::{State, Tls};

use super::env;
use super::reader::{Fields, Key, Presence, Reader, Row, Section};
use super::values::{CONTROL_URL, DIRECTORY, DURATION, TRUST_DOMAIN};

/// `state`.
pub(crate) const STATE: Row = Row::map(
    "state",
    Presence::Optional("the defaults of its keys"),
    "What is kept between runs, and how identities come to certificates.",
);

const STATE_DIRECTORY: Key<PathBuf> = Key {
    name: "directory",
    kind: &DIRECTORY,
    presence: Presence::Optional(
        "control.tls.auto.directory, else $STATE_DIRECTORY, /var/lib/adit as root, or ~/.local/state/adit",
    ),
    doc: "Where identities, services and policies are kept, and the authority of identities.",
};
const TRUST: Key<String> = Key {
    name: "trust_domain",
    kind: &TRUST_DOMAIN,
    presence: Presence::Optional("one made from the root"),
    doc: "The trust domain in certificates of identities. Another one later shuts out those that are enrolled.",
};
const ADVERTISE: Row = Row::list(
    "advertise",
    Presence::Optional("the names of control.tls.auto with the control port"),
    "The control port as those who enroll reach it, `https://host:port`; the first is the one they keep.",
);
const IDENTITY_LIFE: Key<Duration> = Key {
    name: "identity_life",
    kind: &DURATION,
    presence: Presence::Default("24h"),
    doc: "How long certificates of identities live; they renew themselves at two thirds of it.",
};
const ENROLLMENT_DURATION: Key<Duration> = Key {
    name: "enrollment_duration",
    kind: &DURATION,
    presence: Presence::Optional("ADIT_IDENTITY_ENROLLMENT_DURATION in minutes, else 3h"),
    doc: "How long a token to enroll with is good unless its request says otherwise.",
};

/// The keys of `state`.
pub(crate) const STATE_SECTION: Section = Section {
    title: "state",
    doc: "What is kept between runs, and how identities come to certificates.",
    rows: &[STATE_DIRECTORY.row(), TRUST.row(), ADVERTISE, IDENTITY_LIFE.row(), ENROLLMENT_DURATION.row()],
};

/// Reads `state`. `control` is the control port's certificate, which may be kept somewhere already.
pub(crate) fn state(reader: &mut Reader<'_>, root: &Fields<'_>, control: Option<&Tls>) -> Option<State> {
    let fields = reader.map(root, STATE, &STATE_SECTION)?;
    let directory = if fields.has(STATE_DIRECTORY.name) {
        Some(reader.value(&fields, &STATE_DIRECTORY)?)
    } else {
        let beside = match control {
            Some(Tls::Auto { directory, .. }) => directory.clone(),
            Some(Tls::Files { .. }) | None => None,
        };
        let directory = beside.or_else(env::state_directory);
        let shown =
            directory.as_ref().map_or_else(|| "<in memory>".to_owned(), |path| path.display().to_string());
        reader.setting(fields.path(STATE_DIRECTORY.name), shown, true);
        directory
    };
    let trust_domain = reader.optional(&fields, &TRUST);
    let advertise = reader.list(&fields, ADVERTISE, &CONTROL_URL);
    let identity_life = reader.value(&fields, &IDENTITY_LIFE);
    let enrollment_life = if fields.has(ENROLLMENT_DURATION.name) {
        reader.value(&fields, &ENROLLMENT_DURATION)?
    } else {
        match env::enrollment_duration() {
            Ok(given) => given.unwrap_or_else(|| State::default().enrollment_life),
            Err(what) => {
                reader.problem(root.value_at(STATE.name), what, "give a whole number of minutes, from 1 on");
                return None;
            }
        }
    };
    Some(State { directory, trust_domain, advertise, identity_life: identity_life?, enrollment_life })
}
