//! Metrics, logs, process figures and secrets that cannot print.

pub mod logs;
