//! Configuration, identity, routes, listener, shutdown, metrics.
//!
//! Modules in reading order: what the operator said ([`config`]), how connections are taken
//! ([`listener`], [`tls`]), how a request's body is read ([`request_body`]), who sends it
//! ([`identity`], [`browser`]) and how often ([`rate`]), and what is told of it ([`log`],
//! [`metrics`]). [`app`] answers a request: the server's own space ([`own_space`], with [`check`],
//! [`batch`], [`audit_api`] and [`openapi`]), the lock endpoints, and everything else through the
//! guard. [`serve()`] puts them together.

mod app;
mod audit_api;
mod batch;
mod behind;
pub mod browser;
mod check;
pub mod config;
mod handles;
pub mod identity;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod openapi;
mod own_space;
pub mod rate;
pub mod request_body;
pub mod rules_check;
mod serve;
pub mod tls;
pub mod token_key;
mod watch;

pub use config::{Config, ConfigErrors, ServeArgs};
pub use serve::serve;
