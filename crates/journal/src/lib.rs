//! The journal: the durable log of events, and what is derived from it.
//!
//! Modules in reading order: the data folder and its lock ([`folder`]), the log ([`log`]), what a
//! start finds and does ([`recovery`]), the rebuildable index beside the log ([`follower`]),
//! questions to the trail ([`query`]), judging it ([`verify`]), and copies of it ([`backup`]).
//! Files of a data folder, whoever keeps them, are made as [`files`] does; a writer whose answers
//! are not to wait for a checkpoint knows by [`gathered`] when one is due.
//!
//! What always holds:
//! - `log.db` alone is the truth. `index.db` can be deleted at any time, also under a running
//!   server, and costs nothing but the time to build it again.
//! - A group that [`log::Log::append`] has answered for is on stable storage, all of it.
//! - Only the log's one writer ever writes, checkpoints or truncates `log.db`.
//!
//! Deliberately absent: the rules of locks (they are in `leasehold-core`; this crate only folds
//! events with [`leasehold_core::rows`]), clocks, HTTP, async.

pub mod backup;
mod connect;
pub mod files;
pub mod folder;
pub mod follower;
pub mod gathered;
mod index;
pub mod log;
pub mod query;
pub mod recovery;
pub mod verify;

#[cfg(test)]
mod testing;

pub use connect::StoreError;
