//! The lock table as a pure state machine: commands in, outcomes and events out.
//!
//! Modules in reading order: what is locked ([`resource`], [`pattern`], [`target`]), when
//! ([`time`]), by whom and under which numbers ([`caller`], [`ids`]), what a lock is ([`lock`]),
//! what can happen ([`event`]), the fold of what happened ([`state`], and as rows: [`rows`]), what
//! can be asked ([`command`]) and refused ([`refusal`]), and the table that decides ([`table`],
//! with [`acquire`], [`holder`], [`writes`], [`inspect`]). [`json`] writes what is most written.
//!
//! Deliberately absent: I/O, clocks, threads, async, randomness, HTTP. Times, ids and limits are
//! arguments, so that folding the same events rebuilds the same table.

pub mod acquire;
mod arena;
pub mod caller;
mod circle;
pub mod command;
mod drain;
pub mod event;
pub mod holder;
pub mod ids;
pub mod inspect;
pub mod json;
pub mod lock;
mod obstacles;
pub mod pattern;
pub mod queue;
pub mod refusal;
pub mod resource;
pub mod rows;
pub mod sabotage;
mod slot;
pub mod state;
pub mod table;
pub mod target;
pub mod time;
mod tree;
mod unknown;
pub mod writes;
