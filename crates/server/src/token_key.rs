//! The secret that lock tokens are made with, rotated.

use std::path::Path;
use std::time::Duration;

use leasehold_core::time::millis;
use leasehold_engine::token::{TokenKeyError, TokenKeys};
use leasehold_engine::{Clock as _, SystemClock};

/// The name of the file in the data folder.
pub const FILE: &str = "token.key";

/// Puts a new secret in front of those of a data folder; tokens made with the ones before it
/// verify for `keep` longer. Its number. A running server takes it on SIGHUP.
///
/// # Errors
/// When the file cannot be read, written or understood.
pub fn rotate(data: &Path, keep: Duration) -> Result<u16, TokenKeyError> {
    TokenKeys::rotate(&data.join(FILE), SystemClock::new().wall(), millis(keep))
}
