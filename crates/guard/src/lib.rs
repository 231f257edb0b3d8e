//! The one path for every write: targets, tokens, admission, the permit, the record.

pub mod body;
pub mod rules;
pub mod upstream;
