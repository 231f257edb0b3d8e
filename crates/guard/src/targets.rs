//! What a write changes, as far as its head tells: for what stands behind a proxy.

use http::header::IF_MATCH;
use http::{HeaderMap, Method, Uri};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_problems::Problem;

use crate::rules::{Located, Rules};
use crate::tokens::malformed;

/// An extension of the head of a write: everything that it changes, as [`by_rules`] has found.
#[derive(Clone, Debug)]
pub struct ByRules(pub Vec<Target>);

/// Everything that a write changes as any of `methods`, by the names that the rules know it under.
/// `query` is that of its URL.
///
/// # Errors
/// `400` for a destination that is missing, or where something else that it acts on names no
/// resource.
pub fn by_rules(
    rules: &Rules,
    located: &Located,
    methods: &[Method],
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Vec<Target>, Box<Problem>> {
    let mut targets = Vec::with_capacity(2);
    let has_if_match = headers.contains_key(IF_MATCH);
    for method in methods {
        for target in by_head(method, &located.resource, has_if_match) {
            named(rules, located, target, &mut targets);
        }
        // The list that something appears in or goes from may have a name of its own.
        if changes_list(method, has_if_match)
            && !located.resource.has_parameters()
            && let Some(above) = located.asked.path().parent()
            && let Ok(above) = rules.locate(&above, None)
        {
            add(&mut targets, Target::Members(above.resource));
        }
        if method == Method::POST
            && let Some(path) = acted_on(located.asked.path())
        {
            let located = rules
                .locate(&path, query)
                .map_err(|error| malformed("path", format!("{path} is no resource: {error}.")))?;
            let content = Target::Content(located.resource.clone());
            named(rules, &located, content, &mut targets);
        }
        if matches!(method.as_str(), "COPY" | "MOVE") {
            let destination = destination(rules, headers)?;
            let name = destination.resource.clone();
            if let Some(above) = name.parent() {
                add(&mut targets, Target::Members(above));
            }
            named(rules, &destination, Target::Subtree(name), &mut targets);
        }
    }
    Ok(targets)
}

/// Adds `target` of a request to `located`; where it is about everything below, with every name
/// that the URLs below have.
fn named(rules: &Rules, located: &Located, target: Target, targets: &mut Vec<Target>) {
    let below = match &target {
        Target::Subtree(_) => true,
        Target::Content(_) => located.is_partial || rules.find(located.asked.path()).1.covers_below,
        Target::Members(_) => false,
    };
    if !below || located.resource.has_parameters() {
        return add(targets, target);
    }
    let path = located.asked.path();
    for name in rules.names_elsewhere(path) {
        add(targets, Target::Subtree(name));
    }
    add(targets, Target::Subtree(path.clone()));
    add(targets, Target::Subtree(located.resource.clone()));
}

fn add(targets: &mut Vec<Target>, target: Target) {
    if !targets.contains(&target) {
        targets.push(target);
    }
}

/// Whether the resource of a write may appear in the list that it stands in, or go from it.
fn changes_list(method: &Method, has_if_match: bool) -> bool {
    match method.as_str() {
        "DELETE" | "MOVE" | "MKCOL" => true,
        "PUT" => !has_if_match,
        _ => false,
    }
}

/// What a custom action is about: `/flags/7` for `/flags/7:archive`. A name with a colon in it looks
/// the same, and then this asks for one lock too many.
fn acted_on(path: &Resource) -> Option<Resource> {
    let (before, action) = path.as_str().rsplit_once(':')?;
    if action.contains('/') {
        return None;
    }
    // There is nothing before a colon that begins its segment.
    Resource::parse(before).ok().filter(|_| !before.ends_with('/'))
}

/// Where a `COPY` or `MOVE` goes. The host is not looked at: a proxy may have changed it.
fn destination(rules: &Rules, headers: &HeaderMap) -> Result<Located, Box<Problem>> {
    let broken = |why: &str| malformed("Destination", format!("The Destination {why}."));
    let mut all = headers.get_all("destination").iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return Err(broken("has to be there, once"));
    };
    let uri: Uri = value
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| broken("is no URL"))?;
    let path = Resource::parse(uri.path()).map_err(|error| broken(&error.to_string()))?;
    rules.locate(&path, uri.query()).map_err(|error| broken(&format!("names no resource: {error}")))
}

/// The targets of a write whose body is not looked into.
///
/// A `PUT` without `If-Match` may create; what a `POST` creates is not known, so it counts for the
/// collection alone; what goes away takes everything below along.
#[must_use]
pub fn by_head(method: &Method, resource: &Resource, has_if_match: bool) -> Vec<Target> {
    let mut targets = Vec::with_capacity(2);
    targets.push(match method.as_str() {
        "DELETE" | "MOVE" => Target::Subtree(resource.clone()),
        _ => Target::Content(resource.clone()),
    });
    if method == Method::POST {
        targets.push(Target::Members(resource.clone()));
    }
    if changes_list(method, has_if_match) {
        targets.extend(resource.parent().map(Target::Members));
    }
    targets
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use leasehold_core::pattern::Pattern;

    use super::*;
    use crate::rules::Rule;

    fn targets(methods: &[&str], url: &str, destination: Option<&'static str>) -> Vec<String> {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        let rules = Rules::new(vec![
            Rule {
                patterns: vec![pattern("/v1/flags/{id}/**")],
                resource: Some(pattern("/flags/{id}")),
                ..Rule::default()
            },
            Rule {
                patterns: vec![pattern("/item")],
                query: vec!["a".to_owned(), "b".to_owned()],
                ..Rule::default()
            },
            Rule { patterns: vec![pattern("/bulk")], covers_below: true, ..Rule::default() },
        ]);
        let uri: Uri = url.parse().unwrap();
        let path = Resource::parse(uri.path()).unwrap();
        let located = rules.locate(&path, uri.query()).unwrap();
        let methods: Vec<Method> =
            methods.iter().map(|text| Method::from_bytes(text.as_bytes()).unwrap()).collect();
        let mut headers = HeaderMap::new();
        if let Some(to) = destination {
            headers.insert("destination", HeaderValue::from_static(to));
        }
        match by_rules(&rules, &located, &methods, &headers, uri.query()) {
            Ok(targets) => targets
                .iter()
                .map(|target| match target {
                    Target::Content(resource) => format!("content {resource}"),
                    Target::Members(resource) => format!("members {resource}"),
                    Target::Subtree(resource) => format!("subtree {resource}"),
                })
                .collect(),
            Err(problem) => vec![problem.members["field"].as_str().unwrap().to_owned()],
        }
    }

    #[test]
    fn a_write_is_about_every_name_of_what_it_changes() {
        for (methods, url, to, expected) in [
            (&["PATCH"][..], "/v1/flags/7/on", None, &["content /flags/7"][..]),
            (
                &["PUT"],
                "/v1/flags/7",
                None,
                &["content /flags/7", "members /flags", "members /v1/flags"],
            ),
            (
                &["DELETE"],
                "/v1/flags",
                None,
                &["subtree /flags", "subtree /v1/flags", "members /v1"],
            ),
            (&["DELETE"], "/v1", None, &["subtree /flags", "subtree /v1", "members /"]),
            (
                &["POST", "DELETE"],
                "/x",
                None,
                &["content /x", "members /x", "subtree /x", "members /"],
            ),
            (&["PATCH"], "/item?b=2&a=1", None, &["content /item/?a=1&b=2"]),
            (&["DELETE"], "/item?b=2&a=1", None, &["subtree /item/?a=1&b=2", "members /item"]),
            (
                &["POST"],
                "/v1/flags/7:archive",
                None,
                &["content /flags/7:archive", "members /flags/7:archive", "content /flags/7"],
            ),
            (
                &["POST"],
                "/item:archive?a=1&b=2",
                None,
                &["content /item:archive", "members /item:archive", "content /item/?a=1&b=2"],
            ),
            (&["PATCH"], "/x/a:b", None, &["content /x/a:b"]),
            (&["POST"], "/x:y/z", None, &["content /x:y/z", "members /x:y/z"]),
            (&["POST"], "/x/:z", None, &["content /x/:z", "members /x/:z"]),
            (&["PATCH"], "/item?b=2", None, &["subtree /item"]),
            (&["PATCH"], "/item", None, &["content /item"]),
            (&["PATCH"], "/bulk", None, &["subtree /bulk"]),
            (
                &["COPY"],
                "/x",
                Some("http://h/v1/flags/7"),
                &["content /x", "members /flags", "subtree /v1/flags/7", "subtree /flags/7"],
            ),
            (&["MOVE"], "/x", None, &["Destination"]),
            (&["MOVE"], "/x", Some("/a//b"), &["Destination"]),
        ] {
            assert_eq!(targets(methods, url, to), expected, "{methods:?} {url}");
        }
    }
}
