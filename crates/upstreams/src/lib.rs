//! What stands behind the guard.
//!
//! [`documents`] is the embedded store: without an upstream the server keeps the resources
//! itself; [`proxy`] passes them on to an existing API. A lock is nothing that this package knows of: whether a write may pass was decided
//! before it comes here.

pub mod documents;
pub mod proxy;
