//! The dialects: wire in, commands out, outcomes back to wire.
//!
//! One module a dialect. Deliberately absent: deciding anything about locks.

pub mod json_api;
