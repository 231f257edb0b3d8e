//! The guard before an upstream that does what the test says, over the real engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panics")]

#[path = "../../../engine/tests/common/mod.rs"]
mod common;

mod bench;
mod judging;
mod permits;
