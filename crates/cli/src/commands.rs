//! One verb per file.

pub(crate) mod agent;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod client_args;
pub(crate) mod completion;
pub(crate) mod edge;
pub(crate) mod enroll;
pub(crate) mod fileserver;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod http_client;
pub(crate) mod http_server;
pub(crate) mod login;
pub(crate) mod policy;
pub(crate) mod quickstart;
pub(crate) mod reference;
pub(crate) mod resources;
pub(crate) mod server_args;
pub(crate) mod status;
pub(crate) mod tcp;
pub(crate) mod tcp_client;
pub(crate) mod tcp_server;
pub(crate) mod version;
