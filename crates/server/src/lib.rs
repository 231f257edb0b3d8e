//! Configuration, identity, routes, listener, shutdown, metrics.
//!
//! Modules in reading order: what the operator said ([`config`]), how connections are taken
//! ([`listener`]), what each request is called ([`request_id`]) and how it is read
//! ([`request_body`]), who sends it ([`identity`], [`browser`]), and what is told of it ([`log`],
//! [`metrics`]). [`serve`] puts them together.

pub mod browser;
pub mod config;
pub mod identity;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod request_body;
pub mod request_id;
mod serve;

pub use config::{Config, ConfigErrors, ServeArgs};
pub use serve::serve;
