//! The limit on open files: raised at start, so that a small soft limit does not become a small gateway.

/// Raises the soft limit to the hard one. Failure is harmless: the old limit stays.
#[cfg(unix)]
pub(crate) fn raise() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, wanted).is_err() {
        tracing::debug!("the limit on open files stays as it is");
    }
}

/// Nothing to raise here.
#[cfg(not(unix))]
pub(crate) const fn raise() {}
