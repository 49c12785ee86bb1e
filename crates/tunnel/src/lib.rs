//! Sessions over transports, the stream multiplexer, the byte pump and the task owner.

pub mod proof;
