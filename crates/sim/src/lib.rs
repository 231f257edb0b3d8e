//! A deterministic simulation of engine, journal, guard and gateway, over the real SQLite on a
//! disk that fails.
//!
//! What ships is what is tested: the engine's steps are those that its threads take, the log is
//! SQLite's, and the faults come from below it. Modules in reading order: the disk ([`disk`]) and
//! how SQLite gets to it ([`vfs`]), the clocks ([`clock`]), what stands behind the guard
//! ([`upstream`]) or behind the gateway ([`gateway`]), the clients ([`client`]) and their calls
//! ([`call`]), the scheduler ([`world`]) and what it notes ([`history`]), a run of it ([`run`]) and
//! those kept ([`seeds`]); and the judge ([`judge`]) with what it believes ([`trail`], [`fold`],
//! [`geometry`]).
//!
//! Deliberately absent: HTTP between clients and server, configuration and the documents' store;
//! they have their own tests.

pub mod call;
pub mod client;
pub mod clock;
pub mod disk;
pub mod fold;
pub mod gateway;
pub mod geometry;
pub mod history;
pub mod judge;
pub mod run;
pub mod seeds;
pub mod trail;
pub mod upstream;
pub mod vfs;
pub mod world;
