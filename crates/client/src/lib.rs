//! A client of Leasehold, the lock server for HTTP resources.
//!
//! A lock makes *read, decide, write* safe over HTTP: while you hold the lock of a resource, nobody
//! else's write to it passes, and reads always do. This client takes locks, keeps them, notices
//! at once when they are lost, and reads and writes what they protect.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use leasehold_client::Client;
//!
//! # async fn example() -> Result<(), leasehold_client::Error> {
//! let client = Client::new("http://127.0.0.1:7423")?;
//!
//! // Waits up to a minute for its turn, and renews the lock from then on.
//! let held = client.lock("/v1/flags/x").wait(Duration::from_secs(60)).hold().await?;
//!
//! let mut flag = client.get::<serde_json::Value>("/v1/flags/x").await?.value;
//! flag["enabled"] = true.into();
//! client.put("/v1/flags/x", &flag).under(&held).await?;
//!
//! held.release().await?;
//! # Ok(()) }
//! ```
//!
//! It runs on tokio, over HTTP/1.1 with connections kept alive. Make one [`Client`] and clone it.
//!
//! # Holding a lock
//!
//! [`Client::lock`] begins an acquire; [`acquire`](LockRequest::acquire) ends it with a [`Lease`],
//! a plain value, and [`hold`](LockRequest::hold) with a [`Held`], which renews itself at a third
//! of its TTL and is released when it is dropped.
//!
//! **A lock can be lost**: somebody breaks it, the network is away for longer than its TTL, the
//! process stands still. So whoever holds one looks before each step:
//!
//! - [`Held::check`] says whether it is held at this moment, without a request;
//! - [`Held::lost`] is a future that resolves when it is not any more, for `select!`;
//! - [`Held::lives_no_longer_than`] resolves some time *before* that, while there is still time
//!   to stop what must not outlive the lock;
//! - a write [`under`](Write::under) a lock carries its token: the server itself refuses it when
//!   the lock has ended;
//! - [`Held::fence`] is a number that only grows, for other systems that can refuse a smaller one
//!   than they have seen.
//!
//! The deadline is counted here from the moment the request was *sent* that gave it, on a clock
//! that goes on while the process or the machine sleeps. So it never ends later here than at the
//! server, and no clocks need to agree. What is lost stays lost, whatever answer arrives later.
//!
//! # Changing a document
//!
//! | | if somebody came between |
//! |---|---|
//! | [`Client::update`] | reads again, and changes again |
//! | [`Client::update_locked`], [`LockRequest::update`] | nobody can: it is done under the lock |
//! | [`Client::put_if_match`] | `precondition-failed`, for you to decide |
//! | [`Client::put`] | it is overwritten |
//!
//! # When something goes wrong
//!
//! [`Error::Refused`] is a normal answer, with a [`Problem`] that has a [`Name`] out of the
//! server's own catalogue. Two questions can be asked of every error:
//! [`is_retryable`](Error::is_retryable), whether the same may work later, and
//! [`has_no_side_effects`](Error::has_no_side_effects), whether it is certain that nothing was
//! done. A lost answer is not: the write may have landed.
//!
//! ```no_run
//! # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
//! use leasehold_client::{Error, Name};
//!
//! match client.lock("/v1/flags/x").hold().await {
//!     Ok(held) => held.release().await?,
//!     Err(Error::Refused(problem)) if problem.is(Name::Locked) => {
//!         println!("{:?} holds it, try again in {:?}", problem.holder(), problem.retry_after());
//!     }
//!     Err(error) => return Err(error),
//! }
//! # Ok(()) }
//! ```
//!
//! What passes and is safe to repeat is repeated by itself, as the [`RetryPolicy`] says: acquires
//! carry an idempotency key, so that however often one has to be sent it makes one lock. What
//! might be done twice is not repeated.
//!
//! # TLS
//!
//! An address that begins with `https://` is spoken to with TLS 1.3 or 1.2. The server's
//! certificate has to be for the host of the address, and signed by an authority that the system
//! trusts, or one of those in [`add_root_certificates`](ClientBuilder::add_root_certificates).
//! [`identity`](ClientBuilder::identity) is for servers that ask the client for a certificate.
//! Nothing turns the verification off.
//!
//! ```no_run
//! # #[cfg(feature = "tls")]
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # use leasehold_client::Client;
//! let client = Client::builder("https://locks.internal")
//!     .add_root_certificates(std::fs::read("/etc/leasehold/ca.pem")?)
//!     .build()?;
//! # Ok(()) }
//! ```
//!
//! What stands in the way is an [`Error::Tls`], which says whether the certificate has expired, is
//! for another host, and so on. Nothing was done then, and it is not tried again: a
//! certificate does not get better in seconds. Only a held lock goes on trying to renew itself for
//! as long as it lives. A handshake that broke off is an [`Error::Transport`] like every
//! connection that did not come about, and is tried again.
//!
//! TLS is the feature `tls` of this crate. It is on unless `default-features = false`.
//!
//! # What is not here
//!
//! - **Redirections** are not followed, and proxies of the environment are not used: a lock is
//!   asked for where you said, or not at all.
//! - **Re-entrance.** A second acquire by the holder is refused like anyone's.

mod acquire;
mod audit;
mod batch;
mod builder;
mod client;
mod clock;
mod connect;
mod documents;
mod error;
mod events;
mod held;
mod lock;
mod lost;
mod manage;
mod outgoing;
mod pages;
mod path;
mod problem;
mod raw;
mod retry;
mod secret;
#[cfg(feature = "tls")]
mod tls;
mod update;

pub use leasehold_problems::{Name, Retryable};

pub use acquire::LockRequest;
pub use audit::{AuditEvent, AuditQuery, EventFilter, Kind};
pub use batch::{Batch, Done};
pub use builder::ClientBuilder;
pub use client::Client;
pub use documents::{Child, Document, Raw, Write, Written};
pub use error::{Error, TlsFailure};
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
