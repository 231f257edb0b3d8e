//! The one path for every write: targets, tokens, admission, the permit, the record.
//!
//! Modules in reading order: bodies ([`body`]) and what they take of memory ([`memory`], [`kept`]),
//! what becomes of the rest of them ([`discard`]), who asks ([`call`]), what holds where
//! ([`rules`]), which requests are writes ([`method`]) and to what ([`targets`]), what stands behind
//! ([`upstream`]), what a request says of locks ([`tokens`], [`if_header`], [`claims`]), the guard
//! ([`guard`]), what its header fields are ([`fields`]), how a lock is shown ([`shown`]), and how a
//! refusal is told ([`telling`]).

pub mod body;
pub mod call;
pub mod claims;
pub mod discard;
pub mod fields;
pub mod guard;
pub mod if_header;
pub mod kept;
mod lasting;
pub mod memory;
pub mod method;
pub mod rules;
pub mod shown;
pub mod targets;
pub mod telling;
pub mod tokens;
pub mod upstream;
