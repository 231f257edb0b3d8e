//! The two clocks, as values: the lease clock that decides, and the wall clock that is shown.
//!
//! Deliberately absent: any way to read a clock. Readings arrive as arguments.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of the lease clock, in whole milliseconds since the data folder was made.
///
/// The lease clock advances with monotonic time only while this engine leads and its journal
/// works; it never goes back.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct LeaseTime(pub u64);

/// A reading of the wall clock, in milliseconds since 1970-01-01T00:00:00Z. For people; never for
/// decisions about leases. Serialised as RFC 3339 in UTC with three decimals.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WallTime(pub i64);

/// One reading of both clocks, taken together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// What deadlines are judged by.
    pub lease: LeaseTime,
    /// What people are shown.
    pub wall: WallTime,
}

/// A span in whole milliseconds, at most `u64::MAX`.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl LeaseTime {
    /// Milliseconds from `earlier` to this reading; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for LeaseTime {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Add<u64> for LeaseTime {
    type Output = Self;
    fn add(self, span_ms: u64) -> Self {
        Self(self.0.saturating_add(span_ms))
    }
}

impl Add<u64> for WallTime {
    type Output = Self;
    fn add(self, span_ms: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(span_ms).unwrap_or(i64::MAX)))
    }
}

impl Sub<u64> for WallTime {
    type Output = Self;
    fn sub(self, span_ms: u64) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span_ms).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            // Only a wall clock beyond the year 9999 comes here.
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl std::str::FromStr for WallTime {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What has no date was written as a number.
        if let Some(Ok(number)) = text.strip_suffix("ms").map(str::parse) {
            return Ok(Self(number));
        }
        text.parse::<jiff::Timestamp>().map(|timestamp| Self(timestamp.as_millisecond()))
    }
}

impl Serialize for WallTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_shown_as_rfc_3339_with_three_decimals() {
        assert_eq!(WallTime(1_795_176_000_000).to_string(), "2026-11-20T12:00:00.000Z");
        assert_eq!("2026-11-20T12:00:00.250Z".parse::<WallTime>().unwrap().0, 1_795_176_000_250);
        assert_eq!(WallTime(i64::MAX).to_string().parse::<WallTime>().unwrap().0, i64::MAX);
        assert_eq!("2026-11-20T13:00:00+01:00".parse::<WallTime>().unwrap().0, 1_795_176_000_000);
    }
}
