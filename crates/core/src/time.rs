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

impl WallTime {
    /// RFC 3339; none outside of the years 0 to 9999. Each event has one and each grant two, and a
    /// general formatter takes ten times as long.
    fn rfc_3339(self) -> Option<[u8; 24]> {
        let timestamp = jiff::Timestamp::from_millisecond(self.0).ok()?;
        let shown = jiff::tz::Offset::UTC.to_datetime(timestamp);
        let (date, time) = (shown.date(), shown.time());
        let year = u16::try_from(date.year()).ok()?;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, digits: usize, mut number: u16| {
            for place in text[at..at + digits].iter_mut().rev() {
                *place = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, year);
        // None of these is ever negative.
        put(5, 2, date.month().unsigned_abs().into());
        put(8, 2, date.day().unsigned_abs().into());
        put(11, 2, time.hour().unsigned_abs().into());
        put(14, 2, time.minute().unsigned_abs().into());
        put(17, 2, time.second().unsigned_abs().into());
        put(20, 3, time.millisecond().unsigned_abs());
        Some(text)
    }

    /// Calls `show` with the text that [`fmt::Display`] writes.
    pub(crate) fn shown<T>(self, show: impl FnOnce(&str) -> T) -> T {
        match self.rfc_3339() {
            Some(text) => show(std::str::from_utf8(&text).unwrap_or_default()),
            None => show(&match jiff::Timestamp::from_millisecond(self.0) {
                Ok(timestamp) => format!("{timestamp:.3}"),
                // Only a wall clock beyond the year 9999 comes here.
                Err(_) => format!("{}ms", self.0),
            }),
        }
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown(|text| f.write_str(text))
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
        self.shown(|text| serializer.serialize_str(text))
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

    #[test]
    fn wall_time_is_shown_as_a_general_formatter_does() {
        let step = 86_399_999 * 31 + 7;
        let year_0 = -62_167_219_200_000;
        let times = (0..100_000).map(|at| year_0 - 10 * step + at * step);
        let mut shown = 0;
        for time in times.chain([0, -1, year_0 - 1, year_0, 253_402_207_200_000]) {
            let Ok(timestamp) = jiff::Timestamp::from_millisecond(time) else { continue };
            assert_eq!(WallTime(time).to_string(), format!("{timestamp:.3}"));
            shown += 1;
        }
        assert!(shown > 90_000, "{shown}");
    }
}
