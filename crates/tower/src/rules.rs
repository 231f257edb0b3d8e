//! Whether rules can hold together, before anything goes by them.

use std::time::Duration;

use leasehold_faces::json_api::endpoint::is_reserved_name;
use leasehold_guard::rules::Rule;
use leasehold_guard::rules::conflicts::{Conflict, conflicts};

/// A rule that says nothing sensible, or contradicts another. Rules are counted from 1.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("rule {rule}: {what}")]
pub struct BadRule {
    /// Which one.
    pub rule: usize,
    /// What is wrong with it.
    pub what: String,
}

/// No lock lasts less than this.
const MIN_TTL: Duration = Duration::from_secs(1);

/// The first thing that is wrong with `rules`.
pub(crate) fn check(rules: &[Rule], prefix: &str, lock_suffix: &str) -> Result<(), BadRule> {
    for (at, rule) in rules.iter().enumerate() {
        let bad = |what: String| Err(BadRule { rule: at + 1, what });
        if rule.patterns.is_empty() {
            return bad("it has no pattern, so it is about nothing".to_owned());
        }
        if let Some((pattern, part)) = rule.uncaptured().next() {
            return bad(format!("the pattern `{pattern}` has no `{part}` to fill `resource` with"));
        }
        if let Some(name) = &rule.resource
            && is_reserved_name(name, prefix, lock_suffix)
        {
            return bad(format!(
                "`{name}` is taken: a resource neither begins with `{prefix}` nor ends in \
                 `{lock_suffix}`"
            ));
        }
        if rule.default_ttl < MIN_TTL
            || rule.max_ttl < rule.default_ttl
            || rule.max_hold < rule.max_ttl
        {
            return bad(format!(
                "`default_ttl` ({:?}) is at least a second, `max_ttl` ({:?}) no less than that, \
                 and `max_hold` ({:?}) no less again",
                rule.default_ttl, rule.max_ttl, rule.max_hold
            ));
        }
        if !matches!(rule.locked_status, 423 | 409) {
            return bad(format!("`locked_status` is 423 or 409, not {}", rule.locked_status));
        }
    }
    conflicts(rules).first().map_or(Ok(()), |conflict| Err(told(rules, *conflict)))
}

fn told(rules: &[Rule], conflict: Conflict) -> BadRule {
    let (rule, what) = match conflict {
        Conflict::Duplicate { rule, pattern } => {
            (rule, format!("the pattern `{}` is there twice", rules[rule].patterns[pattern]))
        }
        Conflict::Unreachable { rule, pattern, by } => {
            let text = &rules[rule].patterns[pattern];
            let why = match by == rule {
                true => "all it matches are names that `resource` makes".to_owned(),
                false => format!("rule {} takes all of it; put this rule before that", by + 1),
            };
            (rule, format!("the pattern `{text}` can never match: {why}"))
        }
        Conflict::FoldedAway { rule, pattern, by } => {
            let text = match pattern {
                Some(pattern) => Some(&rules[rule].patterns[pattern]),
                None => rules[rule].resource.as_ref(),
            };
            let what = format!(
                "`{}` has a segment that is none once rule {} has folded it",
                text.map(ToString::to_string).unwrap_or_default(),
                by + 1
            );
            (rule, what)
        }
        Conflict::MappedElsewhere { rule, by } => {
            let what = format!(
                "what it names is a URL of rule {}, which names it otherwise: let both give the \
                 same name, or one that the other does not match",
                by + 1
            );
            (rule, what)
        }
        Conflict::Disagree { rule, with, key } => {
            let what = format!(
                "rule {} names the same resources and has another `{key}`; a resource has one",
                with + 1
            );
            (rule, what)
        }
    };
    BadRule { rule: rule + 1, what }
}

#[cfg(test)]
mod tests {
    use leasehold_core::pattern::Pattern;
    use leasehold_guard::rules::spelling::Fold;

    use super::*;

    fn rule(patterns: &[&str]) -> Rule {
        let patterns = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Rule { patterns, ..Rule::default() }
    }

    fn wrong(rules: &[Rule]) -> String {
        check(rules, "/-/", "/lock").unwrap_err().to_string()
    }

    #[test]
    fn rules_that_cannot_hold_are_named_with_what_is_wrong() {
        let named = |name: &str, patterns: &[&str]| Rule {
            resource: Some(Pattern::parse(name).unwrap()),
            ..rule(patterns)
        };
        for (rules, says) in [
            (vec![rule(&["/a"]), rule(&[])], "rule 2: it has no pattern"),
            (vec![named("/f/{id}", &["/v1/{x}"])], "rule 1: the pattern `/v1/{x}` has no `{id}`"),
            (vec![named("/-/{id}", &["/v1/{id}"])], "rule 1: `/-/{id}` is taken"),
            (vec![named("/x/{id}/lock", &["/v1/{id}"])], "rule 1: `/x/{id}/lock` is taken"),
            (vec![rule(&["/a", "/a"])], "rule 1: the pattern `/a` is there twice"),
            (vec![rule(&["/**"]), rule(&["/a"])], "rule 2: the pattern `/a` can never match"),
            (
                vec![named("/f/{id}", &["/v1/{id}"]), rule(&["/f/{id}"])],
                "rule 2: the pattern `/f/{id}` can never match: rule 1",
            ),
            (
                vec![Rule { fold: Fold { params: true, case: false }, ..rule(&["/;a"]) }],
                "rule 1: `/;a` has a segment that is none once rule 1 has folded it",
            ),
            (
                vec![Rule { max_ttl: Duration::from_secs(60), ..rule(&["/a"]) }],
                "rule 1: `default_ttl` (300s)",
            ),
            (vec![Rule { locked_status: 418, ..rule(&["/a"]) }], "rule 1: `locked_status`"),
        ] {
            let told = wrong(&rules);
            assert!(told.starts_with(says), "{told}");
        }
        let strict = Rule { require_precondition: true, ..named("/f/{id}", &["/v2/{id}"]) };
        let told = wrong(&[named("/f/{id}", &["/v1/{id}"]), strict]);
        assert!(told.contains("another `require_precondition`"), "{told}");
        check(&[named("/f/{id}", &["/v1/{id}", "/v2/{id}"]), rule(&["/**"])], "/-/", "/lock")
            .unwrap();
    }
}
