//! The catalogue of every refusal, and the problem document that tells it (RFC 9457).
//!
//! One catalogue feeds the answers, the `/-/problems/…` pages, the API reference, the OpenAPI
//! document, `leasehold explain` and the client.

mod catalogue;
mod explain;
pub mod page;
mod problem;
pub mod schema;
mod status;
mod wrap;

pub use catalogue::{Confusion, Entry, Field, Member, Name, Retryable, Section, Type};
pub use explain::explain;
pub use problem::{Context, InTheWay, PROBLEM_JSON, Problem};
pub use status::Status;
