//! Scenarios, contracts and process tests; see the modules under `tests/`.
