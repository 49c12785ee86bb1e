//! An in-process world for tests: gateways, agents, upstreams and clients in one line.
