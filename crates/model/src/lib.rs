//! The lock table beside a naive one: the same commands, step by step.
//!
//! What may happen ([`steps`]), the naive table, both of them side by side ([`mod@bench`]), and every way
//! to fold what happened ([`fold`]). The random histories of `core/tests/model` are taken by it, and
//! those of the fuzz target `commands`.

// A check that fails panics: this is for tests only.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

pub mod bench;
pub mod fold;
mod naive;
pub mod steps;
