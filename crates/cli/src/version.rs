//! Which build this is.

/// The version, as in `adit version`.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or `unknown`.
pub(crate) const SHA: &str = env!("ADIT_SHA");

/// Version and commit in one line, for `--version`.
pub(crate) const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " - ", env!("ADIT_SHA"));
