//! Rules that contradict each other, told with the places of both.

use leasehold_guard::rules::Rule;
use leasehold_guard::rules::conflicts::{Conflict, conflicts};
use toml::de::DeValue;

use super::errors::{Mistakes, Place};
use super::section::Section;

/// Names every contradiction among `rules`, which were read from `sections`.
pub(super) fn check(rules: &[Rule], sections: &[(Place, Section<'_>)], mistakes: &mut Mistakes) {
    for conflict in conflicts(rules) {
        let (place, message) = match conflict {
            Conflict::Duplicate { rule, pattern } => (
                place_of_pattern(&sections[rule], pattern),
                format!("`rule.match`: `{}` is there twice", rules[rule].patterns[pattern]),
            ),
            Conflict::Unreachable { rule, pattern, by } => {
                let text = &rules[rule].patterns[pattern];
                let why = if by == rule {
                    "all it matches are names that `rule.resource` makes, and a name stands for \
                     itself"
                        .to_owned()
                } else {
                    format!("{} takes all of it; put this rule before that", named(sections, by))
                };
                let place = place_of_pattern(&sections[rule], pattern);
                (place, format!("`rule.match`: `{text}` can never match: {why}"))
            }
            Conflict::FoldedAway { rule, pattern, by } => {
                let (place, key, text) = match (pattern, &rules[rule].resource) {
                    (Some(pattern), _) => (
                        place_of_pattern(&sections[rule], pattern),
                        "match",
                        rules[rule].patterns[pattern].to_string(),
                    ),
                    (None, name) => (
                        place_of("resource", &sections[rule]),
                        "resource",
                        name.as_ref().map(ToString::to_string).unwrap_or_default(),
                    ),
                };
                let message = format!(
                    "`rule.{key}`: `{text}` has a segment that is none once {} has folded it, and \
                     a path with such a segment is refused",
                    named(sections, by)
                );
                (place, message)
            }
            Conflict::MappedElsewhere { rule, by } => (
                place_of(maker(&rules[rule]), &sections[rule]),
                format!(
                    "`rule.{}`: what it names is a URL of {}, which names it otherwise; let \
                     both give the same name, or name it so that the other does not match",
                    maker(&rules[rule]),
                    named(sections, by)
                ),
            ),
            Conflict::Disagree { rule, with, key } => (
                place_of(key, &sections[rule]),
                format!(
                    "`rule.{key}`: {} names the same resources and has another; a resource has \
                     one",
                    named(sections, with)
                ),
            ),
        };
        mistakes.add(&place, message);
    }
}

/// The setting that gives the resources of a rule their names.
fn maker(rule: &Rule) -> &'static str {
    if rule.resource.is_some() { "resource" } else { "fold" }
}

/// A rule, as the others speak of it.
fn named(sections: &[(Place, Section<'_>)], rule: usize) -> String {
    match &sections[rule].0 {
        Place::File { line, .. } => format!("the rule at line {line}"),
        Place::WholeFile(_) | Place::Flag { .. } | Place::Settings => format!("rule {}", rule + 1),
    }
}

fn place_of(key: &str, (place, section): &(Place, Section<'_>)) -> Place {
    section.in_file(key).map_or_else(|| place.clone(), |(place, _)| place)
}

fn place_of_pattern(rule: &(Place, Section<'_>), pattern: usize) -> Place {
    let item = rule.1.in_file("match").and_then(|(_, value)| match value.get_ref() {
        DeValue::Array(items) => items.get(pattern),
        _ => None,
    });
    match (item, rule.1.source) {
        (Some(item), Some(source)) => source.place(&item.span()),
        _ => rule.0.clone(),
    }
}
