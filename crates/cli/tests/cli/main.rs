//! The program as its users meet it: the command line, the HTTP API, the gateway, and the client
//! and the tower layer against it.
//!
//! One program of tests, because each would be linked with all that the others are.

#[path = "../../../client/tests/common/tls.rs"]
mod certificates;
mod common;

mod client_documents;
mod client_locks;
mod client_pauses;
mod commands;
mod gateway_http2;
mod gateway_identity;
mod gateway_pins;
mod gateway_rules;
mod gateway_smuggling;
mod gateway_transport;
mod gateway_upstreams;
mod http_access;
mod http_check;
mod http_documents;
mod http_identity;
mod http_limits;
mod http_locks;
mod http_own_space;
mod http_paths;
mod http_process;
mod http_rules;
mod http_tls;
mod http_waiting;
mod http_writes;
mod program;
mod run;
mod tls;
mod tower_remote;
