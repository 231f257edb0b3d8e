//! The one writer: runs commands through the core, groups commits, answers when durable.
//!
//! The engine is a value behind one lock, called inline by the tasks that serve requests: a
//! decision takes microseconds. Its one hand-off is to the journal's thread, once a group: it
//! commits what has gathered while the commit before it was under way, and one wake settles the
//! answers of that group. For a lone client, while commits are fast, there is none: the task that
//! settles its answer commits, too.
//!
//! What always holds:
//! - an answer leaves only when every event it rests on is durable;
//! - the lease clock stands still while the journal does not work, and never goes back;
//! - after a failed commit nothing is answered from the table before the log has been read again.
//!
//! Modules in reading order: the lease clock ([`clock`]), the seal of tokens ([`token`]), the
//! engine ([`engine`]) with what is behind its lock (`shared`), its commands ([`commands`]) and the
//! permit of a write ([`permit`]), the task that settles answers (`settler`), the journal's thread
//! (`committer`), and the counting of refusals ([`refusals`]).
//!
//! Deliberately absent: HTTP, and any rule about locks.

pub mod clock;
pub mod commands;
mod committer;
pub mod engine;
pub mod permit;
pub mod refusals;
mod settler;
mod shared;
pub mod start;
pub mod token;

pub use clock::{Clock, SystemClock};
pub use commands::{Delivery, Grant, Refused};
pub use engine::{Engine, EngineError, Stats};
pub use permit::Permit;
pub use start::{Draws, EngineOptions, Observer, StartError};
