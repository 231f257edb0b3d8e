//! The lock table as a pure state machine: commands in, outcomes and events out.
//!
//! Modules in reading order: what is locked ([`resource`]), when ([`time`]), by whom and under
//! which numbers ([`ids`]), what a lock is ([`lock`]), what can happen ([`event`]), and the fold
//! as rows ([`rows`]).
//!
//! Deliberately absent: I/O, clocks, threads, async, randomness, HTTP. Times, ids and limits are
//! arguments, so that folding the same events rebuilds the same table.

pub mod caller;
pub mod event;
pub mod ids;
pub mod lock;
pub mod pattern;
pub mod resource;
pub mod rows;
pub mod target;
pub mod time;
