//! The engine over a log that the test holds up and lets fail, with a clock that the test moves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panics")]

#[path = "../common/mod.rs"]
mod common;

mod deadlines;
mod disconnects;
mod durable;
mod failed_commits;
mod lone;
mod shutdown;
mod storm;
