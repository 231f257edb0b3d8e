//! The catalogue of every refusal, and the problem document that tells it (RFC 9457).
//!
//! One catalogue feeds the answers, the `/-/problems/…` pages, the API reference,
//! `leasehold explain` and the client.

mod catalogue;
mod problem;

pub use catalogue::{Entry, Name, Retryable};
pub use problem::{Context, PROBLEM_JSON, Problem};
