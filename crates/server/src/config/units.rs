//! Durations and sizes, as people write them: `1h30m`, `250ms`, `16MiB`.

use std::time::Duration;

/// What a duration may look like, for the messages.
pub(super) const DURATIONS: &str = "a duration such as \"250ms\", \"30s\", \"1h30m\" or \"400d\"";

/// What a size may look like, for the messages.
pub(super) const SIZES: &str = "a size such as \"512KiB\", \"16MiB\" or \"2GB\"";

/// The longest duration: a hundred years. Sums of two stay far inside every clock's range.
const MAX: Duration = Duration::from_secs(36_500 * 86_400);

/// Reads whole numbers with a unit each (`d`, `h`, `m`, `s`, `ms`), the greater units first.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence that names the setting.
pub fn duration(text: &str) -> Result<Duration, String> {
    // In the order in which they may follow each other.
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let no_duration = || format!("`{text}` is not {DURATIONS}");
    let too_long = || format!("`{text}` is longer than 36500d");
    let mut rest = text.trim();
    let (mut total_ms, mut next_unit) = (0_u64, 0);
    if rest.is_empty() {
        return Err(no_duration());
    }
    while !rest.is_empty() {
        let (digits, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(no_duration());
        }
        let found = UNITS[next_unit..].iter().position(|(name, _)| *name == unit);
        let at = next_unit + found.ok_or_else(no_duration)?;
        let number: u64 = digits.parse().map_err(|_| too_long())?;
        let part = number.checked_mul(UNITS[at].1).ok_or_else(too_long)?;
        total_ms = total_ms.checked_add(part).ok_or_else(too_long)?;
        next_unit = at + 1;
        rest = after;
    }
    let duration = Duration::from_millis(total_ms);
    if duration > MAX { Err(too_long()) } else { Ok(duration) }
}

/// Reads a whole number of bytes, with a unit (`KiB`, `MiB`, `GiB`, `TiB`, or the decimal `KB`,
/// `MB`, `GB`, `TB`, or `B`) or without one.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence that names the setting.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split_where(text.trim(), |c| !c.is_ascii_digit());
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(format!("`{text}` is not {SIZES}")),
    };
    if digits.is_empty() {
        return Err(format!("`{text}` is not {SIZES}"));
    }
    let number: Option<u64> = digits.parse().ok();
    number.and_then(|number| number.checked_mul(factor)).ok_or(format!("`{text}` is too large"))
}

/// A duration as a person would write it in the file: `1h30m`, `250ms`.
#[must_use]
pub fn show(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
    {
        if rest >= ms {
            text.push_str(&format!("{}{unit}", rest / ms));
            rest %= ms;
        }
    }
    text
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_numbers_with_units_the_greater_first() {
        for (text, ms) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1m250ms", 60_250),
            ("400d", 34_560_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(show(Duration::from_millis(ms)), text);
        }
        for bad in ["", "5", "s", "5 m", "-5s", "1.5h", "30m1h", "5m5m", "5M", "5mins", "40000d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("99999999999999999999d").unwrap_err().contains("longer than 36500d"));
    }

    #[test]
    fn a_size_is_a_number_of_bytes_with_an_optional_unit() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("1B", 1), ("16MiB", 16 << 20), ("2 GB", 2_000_000_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "1.5MiB", "16mib", "16M", "-1", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
