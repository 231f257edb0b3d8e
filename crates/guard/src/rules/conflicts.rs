//! Rules that contradict each other: a pattern that nothing reaches, a name that no URL may have,
//! and a resource that two rules know in two ways.

use leasehold_core::pattern::Pattern;

use super::Rule;

/// A contradiction. Rules and patterns are counted from 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Conflict {
    /// A pattern is there twice.
    Duplicate {
        /// The rule.
        rule: usize,
        /// Which of its patterns.
        pattern: usize,
    },
    /// What a pattern matches is taken before it, by another rule or as a name of its own.
    Unreachable {
        /// The rule.
        rule: usize,
        /// Which of its patterns.
        pattern: usize,
        /// The rule that takes it.
        by: usize,
    },
    /// A literal segment is one of which folding leaves nothing, or no segment: a path with it is
    /// refused, whichever rule it would be about.
    FoldedAway {
        /// The rule.
        rule: usize,
        /// Which of its patterns; `None` for the name that it gives.
        pattern: Option<usize>,
        /// The rule that folds.
        by: usize,
    },
    /// The name that a rule gives its resources is a URL that an earlier rule maps elsewhere.
    MappedElsewhere {
        /// The rule.
        rule: usize,
        /// The earlier rule.
        by: usize,
    },
    /// Two rules name the same resources and set something else for them.
    Disagree {
        /// The later rule.
        rule: usize,
        /// The earlier rule.
        with: usize,
        /// The setting.
        key: &'static str,
    },
}

/// Every contradiction among `rules`.
#[must_use]
pub fn conflicts(rules: &[Rule]) -> Vec<Conflict> {
    let mut found = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        found.extend(folded_away(rules, at));
        for (pattern, text) in rule.patterns.iter().enumerate() {
            if rule.patterns[..pattern].iter().any(|before| text.is_like(before)) {
                found.push(Conflict::Duplicate { rule: at, pattern });
                continue;
            }
            let by = rules[..at].iter().position(|before| takes(before, rule, text));
            if let Some(by) = by.or_else(|| is_taken_as_name(rule, text).then_some(at)) {
                found.push(Conflict::Unreachable { rule: at, pattern, by });
            }
        }
        for (with, before) in rules[..at].iter().enumerate() {
            found.extend(about_names(rule, before, at, with));
        }
    }
    found
}

/// What of a rule has a segment that folding takes away.
fn folded_away(rules: &[Rule], rule: usize) -> impl Iterator<Item = Conflict> + '_ {
    let patterns = rules[rule].patterns.iter().enumerate().map(|(at, text)| (Some(at), text));
    let name = rules[rule].resource.iter().map(|text| (None, text));
    patterns.chain(name).filter_map(move |(pattern, text)| {
        let by = rules.iter().position(|each| each.fold.pattern(text).is_err())?;
        Some(Conflict::FoldedAway { rule, pattern, by })
    })
}

/// Whether all that `pattern` of `rule` matches is taken by `before`.
fn takes(before: &Rule, rule: &Rule, pattern: &Pattern) -> bool {
    if !before.fold.takes_all_of(rule.fold) {
        return false;
    }
    let folded = |pattern: &Pattern| before.fold.pattern(pattern).ok();
    let Some(pattern) = folded(pattern) else { return false };
    let mut taken = before.patterns.iter().chain(&before.resource).filter_map(folded);
    taken.any(|before| before.takes_all_of(&pattern))
}

/// A URL that is the name of a resource is that, whatever its rule makes of its shape.
fn is_taken_as_name(rule: &Rule, pattern: &Pattern) -> bool {
    rule.resource.as_ref().is_some_and(|name| name.takes_all_of(pattern) && !name.is_like(pattern))
}

/// What is wrong with the names that `rule` gives, beside the earlier rule `before`.
fn about_names(rule: &Rule, before: &Rule, at: usize, with: usize) -> Option<Conflict> {
    let fold = rule.fold.and(before.fold);
    let folded = |pattern: &Pattern| fold.pattern(pattern).ok();
    // A rule that folds gives names as well: the one spelling of each path.
    let names: Vec<Pattern> = match &rule.resource {
        Some(name) => folded(name).into_iter().collect(),
        None if rule.fold.is_none() => Vec::new(),
        None => rule.patterns.iter().filter_map(folded).collect(),
    };
    let theirs = before.resource.as_ref().and_then(folded);
    let urls: Vec<Pattern> = before.patterns.iter().filter_map(folded).collect();
    let met = |name: &&Pattern| theirs.iter().chain(&urls).any(|pattern| name.meets(pattern));
    let met: Vec<&Pattern> = names.iter().filter(met).collect();
    if met.is_empty() {
        return None;
    }
    // Names come before URLs.
    let is_left_alone =
        theirs.as_ref().is_none_or(|theirs| met.iter().all(|name| theirs.takes_all_of(name)));
    if !is_left_alone {
        return Some(Conflict::MappedElsewhere { rule: at, by: with });
    }
    differing(rule, before).map(|key| Conflict::Disagree { rule: at, with, key })
}

/// The first setting about resources, and not about URLs, that the two do not share.
fn differing(one: &Rule, other: &Rule) -> Option<&'static str> {
    [
        ("query", one.query == other.query),
        ("fold", one.fold == other.fold),
        ("lockable", one.lockable == other.lockable),
        ("default_ttl", one.default_ttl == other.default_ttl),
        ("max_ttl", one.max_ttl == other.max_ttl),
        ("max_hold", one.max_hold == other.max_hold),
        ("max_wait", one.max_wait == other.max_wait),
        ("max_queue", one.max_queue == other.max_queue),
        ("max_locks_per_holder", one.max_locks_per_holder == other.max_locks_per_holder),
        ("require_precondition", one.require_precondition == other.require_precondition),
        ("disclose_holder", one.disclose_holder == other.disclose_holder),
        ("locked_status", one.locked_status == other.locked_status),
        ("covers_below", one.covers_below == other.covers_below),
    ]
    .into_iter()
    .find(|(_, same)| !same)
    .map(|(key, _)| key)
}
