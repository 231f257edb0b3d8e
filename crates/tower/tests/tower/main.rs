//! The layer before a service that does what the test tells it to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panics")]

mod double;
mod embedded;
mod hand_over;
#[cfg(feature = "remote")]
mod remote;
mod stop;
