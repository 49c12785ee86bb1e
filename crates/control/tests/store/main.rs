//! What the stores promise, shown from outside: one suite for all, and what the one on disk survives.

mod conformance;
