//! Metrics, logs, process figures and secrets that cannot print.
//!
//! Reading order: [`metrics`] (the registry every other part registers with) and [`exposition`] (what a scraper
//! gets from it), [`labels`] (label values that cannot grow without bound), [`process`] and [`runtime`] (figures
//! read at each scrape), [`logs`] (lines that never block whoever writes them), [`request_log`] (one line per
//! request), [`reloads`], [`secret`].
//!
//! Nothing here is global except the log subscriber that [`logs::init`] installs, so that a test or an embedding
//! program can run several gateways and agents side by side.

pub mod metrics;

pub mod exposition;
pub mod families;

pub mod reloads;

pub mod labels;

pub mod process;

pub mod runtime;

pub mod logs;

pub mod request_log;

pub mod secret;

mod escape;
pub mod timestamp;

#[cfg(test)]
mod strict;
