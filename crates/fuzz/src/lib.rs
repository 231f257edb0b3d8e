//! What must hold of any input.
//!
//! Each function takes bytes and panics where something does not hold. The fuzz targets in `fuzz/`
//! make up the bytes, with a nightly compiler; a test here takes the inputs that they have kept
//! (`fuzz/corpus`) on any.

// A check that fails panics: this is for tests only.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod commands;
mod cursors;
mod forwarded;
mod headers;
mod paths;
mod records;
mod rules;

pub use commands::commands;
pub use cursors::cursors;
pub use forwarded::forwarded;
pub use headers::headers;
pub use paths::paths;
pub use records::records;
pub use rules::rules;

/// A check.
pub type Check = fn(&[u8]);

/// Every check, by the name of its fuzz target and of its corpus.
pub const CHECKS: [(&str, Check); 7] = [
    ("paths", paths),
    ("headers", headers),
    ("records", records),
    ("cursors", cursors),
    ("commands", commands),
    ("rules", rules),
    ("forwarded", forwarded),
];
