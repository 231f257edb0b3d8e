//! A client of Leasehold, the lock server for HTTP resources.

mod acquire;
mod client;
mod clock;
mod error;
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

pub use leasehold_problems::{Name, Retryable};

pub use acquire::LockRequest;
pub use client::{Client, ClientBuilder};
pub use error::Error;
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
