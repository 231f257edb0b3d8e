//! Leasehold's guard as a [`tower`](https://docs.rs/tower) layer: locks that outlive a request, for
//! the resources of an axum or any other tower service.
//!
//! While somebody holds the lock of a resource, everybody else's writes to it are refused with `423
//! Locked`, before the service sees them. Reads always pass. What the service itself has to know of
//! locks is nothing.
//!
//! ```no_run
//! use axum::Router;
//! use axum::routing::get;
//! use leasehold_tower::Leasehold;
//! # async fn show() {}
//! # async fn change() {}
//! # async fn stop() {}
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // The lock table is in this process, and its log in this folder.
//! let locks = Leasehold::builder("./locks").anonymous().open().await?;
//!
//! let app = Router::new().route("/flags/{id}", get(show).put(change)).layer(locks.layer());
//!
//! let stopping = locks.stopping();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app)
//!     .with_graceful_shutdown(async move {
//!         stop().await;
//!         // Whoever waits for a lock is told, so that its connection can end.
//!         stopping.begin();
//!     })
//!     .await?;
//! locks.close(std::time::Duration::from_secs(10)).await?;
//! # Ok(()) }
//! ```
//!
//! `POST /flags/7/lock` now acquires the lock of `/flags/7`, and answers with a token; a `PUT` of
//! `/flags/7` with that token in `X-Lock-Token` passes, and one without it does not.
//!
//! # Two ways to have it
//!
//! | | [`Leasehold`]: the lock table is inside | `Remote`: a Leasehold server is asked |
//! |---|---|---|
//! | the service is | one process | any number of them |
//! | lock endpoints | served by the layer | at the Leasehold server |
//! | a write | is admitted and pinned | is checked before it is passed on |
//! | a lock changes hands | when the writes before it have ended | while such a write may still be on its way |
//! | without the table, or the server | `503` for writes; reads pass | `503` for writes; reads pass |
//!
//! # What the service is told
//!
//! Two extensions of the request: the [`Caller`], and, of a write that was let through under a lock,
//! the [`MatchedLock`] with its fence.
//!
//! ```
//! use axum::Extension;
//! use leasehold_tower::MatchedLock;
//!
//! async fn change(lock: Option<Extension<MatchedLock>>) -> String {
//!     match lock {
//!         Some(Extension(lock)) => format!("under fence {} of {}", lock.fence, lock.holder),
//!         None => "without a lock".to_owned(),
//!     }
//! }
//! ```
//!
//! Tokens stay in the layer, and so does whatever a client says under `X-Lock-…`.
//!
//! # Where to put it
//!
//! The layer goes by the path of the request as it finds it. So it belongs outside of whatever
//! rewrites paths ([`nest`](https://docs.rs/axum/0.8/axum/struct.Router.html#method.nest) does) or
//! methods, inside of what authenticates, and around everything that can write to a resource. A
//! handler that is reached in another way is not guarded.
//!
//! A write goes on to its end when its client has gone, and is pinned until its answer has ended. Put limits of time inside of the layer; outside, they would only stop waiting.

mod answer;
mod builder;
mod carried;
mod embedded;
mod gate;
mod layer;
mod matched;
#[cfg(feature = "remote")]
mod remote;
mod rules;
mod unread;

pub use leasehold_core::caller::{Caller, Permission, Permissions, Role};
pub use leasehold_core::ids::{LockId, Principal};
pub use leasehold_core::pattern::{Pattern, PatternError};
pub use leasehold_core::table::TableLimits;
pub use leasehold_engine::Stats;
pub use leasehold_guard::body::{Body, BoxError};
pub use leasehold_guard::rules::spelling::Fold;
pub use leasehold_guard::rules::{Read, Rule};
pub use leasehold_problems::{Name, Problem};

pub use builder::{Builder, OpenError};
pub use embedded::{Leasehold, Stopping, Unfinished};
pub use layer::{LeaseholdLayer, LeaseholdService};
pub use matched::MatchedLock;
#[cfg(feature = "remote")]
pub use remote::Remote;
pub use rules::BadRule;
