//! Rules: which resource a URL names.

use std::str::Lines;

use http::{HeaderMap, Method, Uri};
use leasehold_core::pattern::Pattern;
use leasehold_core::resource::Resource;
use leasehold_guard::rules::conflicts::conflicts;
use leasehold_guard::rules::spelling::Fold;
use leasehold_guard::rules::{Rule, Rules};
use leasehold_guard::targets::by_rules;

/// Rules and a URL: every resource has one name, which names it, and what takes a URL away asks for
/// all that is known below it. The first line is the URL, and each further one a rule: patterns,
/// `>` and its resource, `?` and a parameter, `c` and `p` for what it folds, separated by blanks.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let url = lines.next().unwrap_or_default();
    let rules = Rules::new(read(lines));
    let Ok(uri) = url.parse::<Uri>() else { return };
    let Ok(path) = Resource::parse(uri.path()) else { return };
    let Ok(located) = rules.locate(&path, uri.query()) else { return };
    assert!(rules.is_name(&located.resource), "{path}: {:?}", located.resource);
    let shown = rules.locate_text(located.resource.as_str());
    assert_eq!(shown.map(|shown| shown.resource), Ok(located.resource.clone()), "{path}");
    let (of_name, of_url) = (rules.find(&located.resource).1, rules.find(&path).1);
    assert_eq!(of_name.lockable, of_url.lockable, "{path}: {:?}", located.resource);

    let methods = [Method::POST, Method::PUT, Method::DELETE];
    let Ok(targets) = by_rules(&rules, &located, &methods, &HeaderMap::new(), uri.query()) else {
        return;
    };
    let covered = |name: &Resource| targets.iter().any(|target| target.resource().covers(name));
    assert!(covered(&located.resource), "{path}: {targets:?}");
    for below in ["a", "b/c", "1/2/3"] {
        let below = format!("{}/{below}", path.as_str().trim_end_matches('/'));
        let Ok(below) = Resource::parse(&below) else { continue };
        let Ok(found) = rules.locate(&below, None) else { continue };
        let is_below = located.resource.has_parameters() || covered(&found.resource);
        assert!(is_below, "{path}: {targets:?} do not cover {:?} of {below}", found.resource);
    }
}

/// The rules of these lines, without those that a configuration refuses.
fn read(lines: Lines<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for line in lines.take(8) {
        let Some(rule) = read_one(line) else { continue };
        rules.push(rule);
        if !conflicts(&rules).is_empty() {
            rules.pop();
        }
    }
    rules
}

fn read_one(line: &str) -> Option<Rule> {
    let mut rule = Rule { fold: Fold::default(), ..Rule::default() };
    for word in line.split(' ') {
        if let Some(name) = word.strip_prefix('>') {
            rule.resource = Some(Pattern::parse(name).ok()?);
        } else if let Some(parameter) = word.strip_prefix('?') {
            let legal = |c: char| !c.is_control() && !"&;=[]".contains(c);
            let is_new = !rule.query.iter().any(|known| known == parameter);
            if parameter.is_empty() || !parameter.chars().all(legal) || !is_new {
                return None;
            }
            rule.query.push(parameter.to_owned());
        } else if word == "c" {
            rule.fold.case = true;
        } else if word == "p" {
            rule.fold.params = true;
        } else {
            rule.patterns.push(Pattern::parse(word).ok()?);
        }
    }
    // A name is made of what each pattern captures.
    let fills = |name: &Pattern, pattern: &Pattern| {
        name.names().all(|it| pattern.names().any(|other| other == it))
            && (!name.has_any() || pattern.has_any())
    };
    let complete =
        rule.resource.as_ref().is_none_or(|name| rule.patterns.iter().all(|p| fills(name, p)));
    (complete && !rule.patterns.is_empty()).then_some(rule)
}
