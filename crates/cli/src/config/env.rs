//! The environment: read here and nowhere else.

use std::path::PathBuf;
use std::time::Duration;

use adit_telemetry::secret::Secret;

/// An environment variable's value; `None` when it is not set or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn directory(name: &str) -> Option<PathBuf> {
    var(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where state is kept unless a flag or a file says otherwise: what systemd provides, else a place that belongs
/// to the user alone. `None` when there is no such place, for example for a user without a home.
pub(crate) fn state_directory() -> Option<PathBuf> {
    // systemd lists several directories with colons between them; the first is the unit's main one.
    let provided = var("STATE_DIRECTORY").and_then(|list| list.split(':').next().map(PathBuf::from));
    provided
        .filter(|path| path.is_absolute())
        .or_else(|| is_root().then(|| PathBuf::from("/var/lib/adit")))
        .or_else(|| directory("XDG_STATE_HOME").map(|home| home.join("adit")))
        .or_else(|| directory("HOME").map(|home| home.join(".local/state/adit")))
}

/// Where a user's own settings are kept. `None` when there is no such place.
pub(crate) fn config_directory() -> Option<PathBuf> {
    var("ADIT_CONFIG_DIR")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| directory("XDG_CONFIG_HOME").map(|home| home.join("adit")))
        .or_else(|| directory("HOME").map(|home| home.join(".config/adit")))
}

/// An environment variable that is set to something.
pub(crate) fn set(name: &str) -> Option<String> {
    var(name).filter(|value| !value.is_empty())
}

/// How long a token to enroll with is good, if the environment says so: in minutes, under our name or `ziti`'s.
///
/// # Errors
/// It is no number of minutes.
pub(crate) fn enrollment_duration() -> Result<Option<Duration>, String> {
    let names = ["ADIT_IDENTITY_ENROLLMENT_DURATION", "ZITI_EDGE_IDENTITY_ENROLLMENT_DURATION"];
    let Some((name, text)) = names.into_iter().find_map(|name| Some((name, var(name)?))) else {
        return Ok(None);
    };
    minutes(&text).map(Some).ok_or_else(|| format!("{name} is `{text}`, which is no number of minutes"))
}

fn minutes(text: &str) -> Option<Duration> {
    let minutes: u32 = text.trim().parse().ok().filter(|minutes| *minutes > 0)?;
    Some(Duration::from_secs(u64::from(minutes) * 60))
}

/// The proxy for encrypted connections, with the name of the variable. `HTTPS_PROXY` before `ALL_PROXY`, either case;
/// an empty variable is one that is not set.
pub(crate) fn proxy() -> Option<(&'static str, Secret)> {
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .find_map(|name| Some((name, Secret::new(var(name)?).ok()?)))
}

/// Where no proxy is used; empty when nothing is said.
pub(crate) fn no_proxy() -> String {
    ["NO_PROXY", "no_proxy"].into_iter().find_map(var).unwrap_or_default()
}

/// The listening sockets that whoever started this process has bound and handed over (`LISTEN_FDS`, as systemd does).
///
/// # Errors
/// One of them is not a TCP socket.
pub(crate) fn listeners() -> std::io::Result<Vec<std::net::TcpListener>> {
    let mut handed = listenfd::ListenFd::from_env();
    (0..handed.len()).filter_map(|at| handed.take_tcp_listener(at).transpose()).collect()
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
const fn is_root() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrollment_takes_a_number_of_minutes() {
        assert_eq!(minutes("180"), Some(Duration::from_hours(3)));
        for text in ["", "0", "-1", "3h", "1.5", "99999999999"] {
            assert_eq!(minutes(text), None, "{text}");
        }
    }
}
