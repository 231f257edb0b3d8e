//! A client of Leasehold, the lock server for HTTP resources.

mod acquire;
mod audit;
mod batch;
mod client;
mod clock;
mod documents;
mod error;
mod events;
mod held;
mod lock;
mod lost;
mod manage;
mod pages;
mod path;
mod problem;
mod raw;
mod retry;
mod secret;
mod update;

pub use leasehold_problems::{Name, Retryable};

pub use acquire::LockRequest;
pub use audit::{AuditEvent, AuditQuery, EventFilter, Kind};
pub use batch::{Batch, Done};
pub use client::{Client, ClientBuilder};
pub use documents::{Child, Document, Raw, Write, Written};
pub use error::Error;
pub use events::{Event, Events};
pub use held::Held;
pub use lock::{Breaking, Depth, Freeze, Inspection, Lease, LetGo, LockInfo, Mode, Waiter};
pub use lost::{How, Lost};
pub use manage::{BreakRequest, Broken, LockFilter, WouldBreak};
pub use pages::Pages;
pub use path::segment;
pub use problem::{Ended, Invalid, LockInTheWay, Problem, Waits};
pub use raw::{RawReply, RawRequest};
pub use retry::RetryPolicy;
pub use secret::Token;
pub use update::Verdict;
