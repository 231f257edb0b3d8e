//! The `[[rule]]` tables, read into the rules that the guard and the faces follow.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use leasehold_core::pattern::Pattern;
use leasehold_faces::json_api::endpoint::is_reserved_name;
use leasehold_guard::method::is_safe;
use leasehold_guard::rules::spelling::Fold;
use leasehold_guard::rules::{Read, Rule, Rules};
use toml::de::DeValue;

use super::conflicts;
use super::errors::{Mistakes, Place};
use super::section::{Found, Section};
use super::units::show;
use super::upstream;
use super::values::{Value, one_of};

const KEYS: [&str; 19] = [
    "match",
    "resource",
    "query",
    "fold",
    "reads",
    "method_parameter",
    "upstream",
    "upstream_timeout",
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
pub(super) fn read(
    root: &Section<'_>,
    prefix: &str,
    suffix: &str,
    mistakes: &mut Mistakes,
) -> Rules {
    let sections = root.tables("rule", "rule.", mistakes);
    let mut rules = Vec::new();
    for (place, section) in &sections {
        let rule = rule(place, section, mistakes);
        check_name(&rule, place, section, (prefix, suffix), mistakes);
        rules.push(rule);
    }
    // What could not be read would contradict the rest for no reason.
    if mistakes.is_empty() {
        conflicts::check(&rules, &sections, mistakes);
    }
    let odd_paths = root.read_or("accept_odd_paths", Vec::new(), mistakes, Value::paths).value;
    Rules::new(rules).accepting_odd_paths(odd_paths)
}

fn rule(place: &Place, section: &Section<'_>, mistakes: &mut Mistakes) -> Rule {
    section.check_keys(&KEYS, mistakes);
    let default = Rule::default();
    let patterns = patterns(place, section, mistakes);
    let (default_ttl, max_ttl, max_hold) = spans(section, mistakes);
    let resource = section.read("resource", mistakes, Value::pattern).map(|found| found.value);
    let query = section.read_or("query", Vec::new(), mistakes, parameters).value;
    let fold = section.read_or("fold", default.fold, mistakes, fold).value;
    let reads = section.read_or("reads", Vec::new(), mistakes, reads).value;
    let method_parameter = section
        .read("method_parameter", mistakes, |value| {
            parameter(value.text("the name of a query parameter such as \"_method\"")?)
        })
        .map(|found| found.value);
    let upstream = section
        .read("upstream", mistakes, upstream::origin)
        .map(|found| Arc::from(found.value.to_string()));
    let upstream_timeout =
        section.read("upstream_timeout", mistakes, upstream::timeout).map(|found| found.value);
    let mut boolean = |key, default| section.read_or(key, default, mistakes, Value::boolean).value;
    Rule {
        patterns,
        resource,
        query,
        fold,
        reads,
        method_parameter,
        upstream,
        upstream_timeout,
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

/// Whether each pattern captures all that the name is made of, and no name is the server's own.
fn check_name(
    rule: &Rule,
    place: &Place,
    section: &Section<'_>,
    (prefix, suffix): (&str, &str),
    mistakes: &mut Mistakes,
) {
    let Some(name) = &rule.resource else { return };
    let place = section.in_file("resource").map_or_else(|| place.clone(), |(place, _)| place);
    for (pattern, missing) in rule.uncaptured() {
        let captured: Vec<String> = pattern.names().map(|name| format!("{{{name}}}")).collect();
        let captures = match captured.is_empty() {
            true => "captures nothing".to_owned(),
            false => format!("captures {}", one_of(&captured).replace(" or ", " and ")),
        };
        let message = format!(
            "`rule.resource`: the pattern `{pattern}` has no `{missing}` to fill `{name}` with; \
             it {captures}"
        );
        mistakes.add(&place, message);
    }
    if is_reserved_name(name, prefix, suffix) {
        let message = format!(
            "`rule.resource`: `{name}` is the server's own: a resource neither begins with \
             `{prefix}` nor ends in `{suffix}`"
        );
        mistakes.add(&place, message);
    }
}

/// The most query parameters of a resource.
const MAX_PARAMETERS: usize = 16;

fn parameters(value: Value<'_>) -> Result<Vec<String>, String> {
    const EXPECTED: &str = "a list of query parameters such as [\"id\"]";
    let names = value.list(EXPECTED, parameter)?;
    if MAX_PARAMETERS < names.len() {
        return Err(format!("{} parameters are more than {MAX_PARAMETERS}", names.len()));
    }
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, twice)) => Err(format!("`{twice}` is there twice; expected {EXPECTED}")),
        None => Ok(names),
    }
}

/// The name of a query parameter, decoded.
fn parameter(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || "&;=[]".contains(c)) {
        return Err(format!(
            "`{text}` is not the name of a query parameter: write it decoded and without `&`, \
             `;`, `=`, `[` or `]`"
        ));
    }
    Ok(text.to_owned())
}

fn fold(value: Value<'_>) -> Result<Fold, String> {
    const EXPECTED: &str = "a list of \"case\" and \"params\"";
    let mut fold = Fold::default();
    for word in value.list(EXPECTED, |text| Ok(text.to_owned()))? {
        match word.as_str() {
            "case" if !fold.case => fold.case = true,
            "params" if !fold.params => fold.params = true,
            "case" | "params" => return Err(format!("`{word}` is there twice")),
            _ => return Err(format!("`{word}` is neither \"case\" nor \"params\"")),
        }
    }
    Ok(fold)
}

fn reads(value: Value<'_>) -> Result<Vec<Read>, String> {
    const EXPECTED: &str =
        "a method, or a method and an action, such as \"POST:search\" for `POST …:search`";
    let reads = value.list("a list such as [\"POST:search\"]", |text| {
        let (method, action) = match text.split_once(':') {
            Some((method, action)) => (method, Some(action)),
            None => (text, None),
        };
        let broken = || format!("`{text}` is not {EXPECTED}");
        let upper = method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|_| upper);
        let method = method.ok_or_else(broken)?;
        if is_safe(&method) {
            return Err(format!("`{text}`: {method} always reads; leave it out"));
        }
        // A colon within it would make two actions of one name.
        let is_action = |action: &str| {
            !action.is_empty()
                && action
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        };
        if action.is_some_and(|action| !is_action(action)) {
            return Err(broken());
        }
        Ok(Read { method, action: action.map(str::to_owned) })
    })?;
    match reads.iter().enumerate().find(|(at, read)| reads[..*at].contains(read)) {
        Some((_, twice)) => Err(format!("`{twice}` is there twice")),
        None => Ok(reads),
    }
}

fn locked_status(value: Value<'_>) -> Result<u16, String> {
    match value.whole(0..=u64::from(u16::MAX)) {
        Ok(423) => Ok(423),
        Ok(409) => Ok(409),
        Ok(other) => Err(format!("{other} is neither 423 nor 409")),
        Err(_) => Err("expected 423 or 409".to_owned()),
    }
}
