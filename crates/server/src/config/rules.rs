//! The `[[rule]]` tables, read into the rules that the guard and the faces follow.

use std::time::Duration;

use leasehold_core::pattern::Pattern;
use leasehold_guard::rules::{Rule, Rules};
use toml::de::DeValue;

use super::errors::{Mistakes, Place};
use super::section::{Found, Section};
use super::units::show;
use super::values::Value;

const KEYS: [&str; 12] = [
    "match",
    "lockable",
    "default_ttl",
    "max_ttl",
    "max_hold",
    "max_wait",
    "max_queue",
    "max_locks_per_holder",
    "require_precondition",
    "disclose_holder",
    "locked_status",
    "covers_below",
];

/// No lock lasts less than this.
const MIN_TTL: Duration = Duration::from_secs(1);

/// Reads every rule, in order.
pub(super) fn read(root: &Section<'_>, mistakes: &mut Mistakes) -> Rules {
    let sections = root.tables("rule", "rule.", mistakes);
    Rules::new(sections.iter().map(|(place, section)| rule(place, section, mistakes)).collect())
}

fn rule(place: &Place, section: &Section<'_>, mistakes: &mut Mistakes) -> Rule {
    section.check_keys(&KEYS, mistakes);
    let default = Rule::default();
    let patterns = patterns(place, section, mistakes);
    let (default_ttl, max_ttl, max_hold) = spans(section, mistakes);
    let mut boolean = |key, default| section.read_or(key, default, mistakes, Value::boolean).value;
    Rule {
        patterns,
        lockable: boolean("lockable", default.lockable),
        require_precondition: boolean("require_precondition", default.require_precondition),
        disclose_holder: boolean("disclose_holder", default.disclose_holder),
        covers_below: boolean("covers_below", default.covers_below),
        default_ttl,
        max_ttl,
        max_hold,
        max_wait: section.read_or("max_wait", default.max_wait, mistakes, Value::duration).value,
        max_queue: section
            .read_or("max_queue", default.max_queue, mistakes, |value| {
                value.whole(0..=1_000_000).map(|number| number as usize)
            })
            .value,
        max_locks_per_holder: section
            .read("max_locks_per_holder", mistakes, |value| value.whole(1..=1_000_000_000))
            .map(|found| found.value),
        locked_status: section
            .read_or("locked_status", default.locked_status, mistakes, locked_status)
            .value,
    }
}

/// What the rule is about. A rule without a pattern would be about nothing.
fn patterns(place: &Place, section: &Section<'_>, mistakes: &mut Mistakes) -> Vec<Pattern> {
    const EXPECTED: &str = "a list of patterns such as [\"/flags/{id}/**\"]";
    let Some((value_place, value)) = section.in_file("match") else {
        mistakes.add(place, format!("the rule has no `match`; expected {EXPECTED}"));
        return Vec::new();
    };
    let items = match value.get_ref() {
        DeValue::Array(items) if !items.is_empty() => items,
        _ => {
            mistakes.add(&value_place, format!("`rule.match`: expected {EXPECTED}"));
            return Vec::new();
        }
    };
    let mut patterns = Vec::new();
    for item in items {
        match (Value::Toml(item.get_ref()).pattern(), section.source) {
            (Ok(pattern), _) => patterns.push(pattern),
            (Err(message), source) => {
                let place = source.map_or(value_place.clone(), |source| source.place(&item.span()));
                mistakes.add(&place, format!("`rule.match`: {message}"));
            }
        }
    }
    patterns
}

/// `default_ttl`, `max_ttl` and `max_hold`: each at most the next. One that is not set follows a
/// smaller next one, so that a rule needs to say no more than what it limits.
fn spans(section: &Section<'_>, mistakes: &mut Mistakes) -> (Duration, Duration, Duration) {
    let default = Rule::default();
    let mut ttl = |key| {
        section.read(key, mistakes, |value| {
            let ttl = value.duration()?;
            if ttl < MIN_TTL {
                return Err(format!("`{}` is shorter than 1s, the shortest lock", show(ttl)));
            }
            Ok(ttl)
        })
    };
    let (default_ttl, max_ttl, max_hold) = (ttl("default_ttl"), ttl("max_ttl"), ttl("max_hold"));
    let hold = max_hold.as_ref().map_or(default.max_hold, |found| found.value);
    let max = max_ttl.as_ref().map_or(default.max_ttl.min(hold), |found| found.value);
    let first = default_ttl.as_ref().map_or(default.default_ttl.min(max), |found| found.value);
    at_most(("default_ttl", &default_ttl, first), ("max_ttl", &max_ttl, max), mistakes);
    at_most(("max_ttl", &max_ttl, max), ("max_hold", &max_hold, hold), mistakes);
    (first, max, hold)
}

type Span<'a> = (&'a str, &'a Option<Found<Duration>>, Duration);

fn at_most(small: Span<'_>, large: Span<'_>, mistakes: &mut Mistakes) {
    let ((small_key, small_found, small), (large_key, large_found, large)) = (small, large);
    if small <= large {
        return;
    }
    let by_default = if large_found.is_some() { "" } else { ", its default" };
    let message = format!(
        "`rule.{small_key}` is {}, longer than `rule.{large_key}`, which is {}{by_default}; \
         make the one shorter or the other longer",
        show(small),
        show(large),
    );
    // One of them was set, else they would be in order.
    let place = small_found.as_ref().or(large_found.as_ref()).map(|found| &found.place);
    mistakes.add(place.unwrap_or(&Place::Settings), message);
}

fn locked_status(value: Value<'_>) -> Result<u16, String> {
    match value.whole(0..=u64::from(u16::MAX)) {
        Ok(423) => Ok(423),
        Ok(409) => Ok(409),
        Ok(other) => Err(format!("{other} is neither 423 nor 409")),
        Err(_) => Err("expected 423 or 409".to_owned()),
    }
}
