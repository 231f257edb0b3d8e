//! Which lock endpoint a path is.

use leasehold_core::pattern::Pattern;
use leasehold_core::resource::Resource;
use leasehold_guard::rules::{Located, NoResource, Rules};
use leasehold_problems::{Name, Problem};

/// What is done with the lock of a resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// The lock itself.
    Lock,
    /// Hand it over.
    Transfer,
    /// Ask the holder to let go.
    Request,
    /// End it for the holder.
    Break,
    /// Nobody writes.
    Freeze,
}

impl Action {
    fn named(segment: &str) -> Option<Self> {
        match segment {
            "transfer" => Some(Self::Transfer),
            "request" => Some(Self::Request),
            "break" => Some(Self::Break),
            "freeze" => Some(Self::Freeze),
            _ => None,
        }
    }

    /// The methods it takes.
    #[must_use]
    pub fn allowed(self) -> &'static str {
        match self {
            Self::Lock => "GET, HEAD, POST, PATCH, PUT, DELETE, OPTIONS",
            Self::Transfer | Self::Request | Self::Break => "POST, OPTIONS",
            Self::Freeze => "PUT, DELETE, OPTIONS",
        }
    }
}

/// What a path is.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoint {
    /// An ordinary resource.
    Resource(Located),
    /// A lock endpoint of this resource.
    Lock(Located, Action),
}

/// The part of a path that a lock endpoint is about, if it ends like one.
fn split(path: &Resource, suffix: &str) -> Option<(Resource, Action)> {
    let text = path.as_str();
    let (above, action) = match text.strip_suffix(suffix) {
        Some(above) => (above, Action::Lock),
        None => {
            let (lock, last) = text.rsplit_once('/')?;
            let action = Action::named(last)?;
            (lock.strip_suffix(suffix)?, action)
        }
    };
    Some((path.up_to(above.len())?, action))
}

/// Whether a path is no document's, because it is about the lock of another resource.
#[must_use]
pub fn is_reserved(path: &Resource, suffix: &str, rules: &Rules) -> bool {
    split(path, suffix).is_some_and(|(resource, _)| !is_ordinary(&resource, rules))
}

/// Whether what a rule names its resources by would be the server's own: below the prefix, or about
/// a lock.
#[must_use]
pub fn is_reserved_name(name: &Pattern, prefix: &str, suffix: &str) -> bool {
    let own = prefix.trim_matches('/');
    let end = name.literal_end(2);
    let is_suffix = |at: usize| end.len() > at && format!("/{}", end[end.len() - 1 - at]) == suffix;
    let is_action = end.last().is_some_and(|last| Action::named(last).is_some());
    name.literal_start() == Some(own) || is_suffix(0) || (is_action && is_suffix(1))
}

/// Whether a text can be the prefix of the server's own space: one segment between two slashes.
#[must_use]
pub fn is_prefix(text: &str) -> bool {
    text.strip_suffix('/').is_some_and(is_one_segment)
}

/// Whether a text can be the suffix of lock endpoints: a slash and one segment, and none of the
/// names below it; `/x/break/break` would have two readings.
#[must_use]
pub fn is_suffix(text: &str) -> bool {
    is_one_segment(text) && !is_action(text)
}

/// Whether a text is a slash and the name of an action on a lock.
#[must_use]
pub fn is_action(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|name| Action::named(name).is_some())
}

/// Whether a text is a slash and one segment, as it is shown.
fn is_one_segment(text: &str) -> bool {
    Resource::parse(text).is_ok_and(|path| path.as_str() == text && path.segments().count() == 1)
}

/// Under a rule with `lockable = false` a path that ends like a lock endpoint is an ordinary one.
fn is_ordinary(resource: &Resource, rules: &Rules) -> bool {
    let (number, rule) = rules.find(resource);
    number > 0 && !rule.lockable
}

/// Which endpoint a URL is.
///
/// # Errors
/// `400` where it names no resource, or the resource before it is itself the name of a lock
/// endpoint; `404 not-lockable` for `/`, where no rule makes it lockable, and where locks below are
/// known by other names.
pub fn find(
    path: &Resource,
    query: Option<&str>,
    suffix: &str,
    rules: &Rules,
) -> Result<Endpoint, Box<Problem>> {
    let locate = |path| rules.locate(path, query).map_err(|error| no_resource(&error));
    let Some((resource, action)) = split(path, suffix) else {
        return Ok(Endpoint::Resource(locate(path)?));
    };
    if is_ordinary(&resource, rules) {
        return Ok(Endpoint::Resource(locate(path)?));
    }
    if split(&resource, suffix).is_some() {
        return Err(Box::new(
            Problem::new(
                Name::MalformedRequest,
                format!("{resource} is about a lock and cannot be locked itself."),
            )
            .with("field", "path"),
        ));
    }
    let located = locate(&resource)?;
    check_lockable(&located, rules)?;
    Ok(Endpoint::Lock(located, action))
}

/// Whether there can be a lock: a rule allows it, and it would cover all that is below.
///
/// # Errors
/// `404 not-lockable`.
pub fn check_lockable(located: &Located, rules: &Rules) -> Result<(), Box<Problem>> {
    let path = located.asked.path();
    if !rules.find(path).1.lockable {
        return Err(not_lockable(path));
    }
    let elsewhere = match located.resource.has_parameters() {
        true => Vec::new(),
        false => rules.names_elsewhere(path),
    };
    let Some(name) = elsewhere.first() else { return Ok(()) };
    Err(Box::new(Problem::new(
        Name::NotLockable,
        format!(
            "{path} cannot be locked here: what is below it is known as {name} and below, and a \
             lock on {path} would not cover it. Lock {name}, or have a rule name {path} so."
        ),
    )))
}

/// `400` for a URL that names no resource.
#[must_use]
pub fn no_resource(error: &NoResource) -> Box<Problem> {
    let (field, detail) = match error {
        NoResource::Path(error) => ("path", format!("The path is no resource: {error}.")),
        NoResource::Ambiguous(_) | NoResource::Unreadable { .. } => {
            ("query", format!("The URL is no resource: {error}."))
        }
    };
    Box::new(Problem::new(Name::MalformedRequest, detail).with("field", field))
}

/// `404 not-lockable`.
#[must_use]
pub fn not_lockable(resource: &Resource) -> Box<Problem> {
    Box::new(Problem::new(
        Name::NotLockable,
        format!("{resource} cannot be locked here: no rule makes it lockable."),
    ))
}

#[cfg(test)]
mod tests {
    use leasehold_guard::rules::Rule;

    use super::*;

    fn resource(path: &str) -> Resource {
        Resource::parse(path).unwrap()
    }

    #[test]
    fn a_path_is_about_a_lock_by_its_last_segments_only() {
        let rules = Rules::new(vec![Rule {
            patterns: vec![Pattern::parse("/free/**").unwrap()],
            lockable: false,
            ..Rule::default()
        }]);
        let find = |path: &str| find(&resource(path), None, "/lock", &rules).map_err(|p| p.name);
        let locate = |path: &str| rules.locate(&resource(path), None).unwrap();
        let lock = |path: &str, action| Ok(Endpoint::Lock(locate(path), action));
        assert_eq!(find("/a/lock"), lock("/a", Action::Lock));
        assert_eq!(find("/a/%6Cock"), lock("/a", Action::Lock));
        assert_eq!(find("/a/lock/break"), lock("/a", Action::Break));
        assert_eq!(find("/a/lock/freeze"), lock("/a", Action::Freeze));
        let ordinary = |path: &str| Ok(Endpoint::Resource(locate(path)));
        assert_eq!(find("/a/lock/other"), ordinary("/a/lock/other"));
        assert_eq!(find("/a/unlock"), ordinary("/a/unlock"));
        assert_eq!(find("/a/break"), ordinary("/a/break"));
        assert_eq!(find("/free/x/lock"), ordinary("/free/x/lock"));
        assert_eq!(find("/a/lock/lock"), Err(Name::MalformedRequest));
        assert_eq!(find("/a/lock/break/lock"), Err(Name::MalformedRequest));
        assert_eq!(find("/lock"), Err(Name::NotLockable));
        assert_eq!(find("/lock/break"), Err(Name::NotLockable));
    }

    #[test]
    fn a_prefix_and_a_suffix_are_one_segment_each() {
        for text in ["/-/", "/locks/", "/a.b/"] {
            assert!(is_prefix(text), "{text}");
        }
        for text in ["", "/", "//", "-/", "/-", "/a/b/", "/%2D/", "/../"] {
            assert!(!is_prefix(text), "{text}");
        }
        for text in ["/lock", "/_lock", "/-"] {
            assert!(is_suffix(text), "{text}");
        }
        for text in ["", "/", "lock", "/a/b", "/lock/", "/break", "/freeze", "/."] {
            assert!(!is_suffix(text), "{text}");
        }
    }

    #[test]
    fn the_lock_of_a_url_is_that_of_the_resource_it_names() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        let rules = Rules::new(vec![
            Rule {
                patterns: vec![pattern("/v1/flags/{id}/**"), pattern("/v2/flags/{id}")],
                resource: Some(pattern("/flags/{id}")),
                ..Rule::default()
            },
            Rule {
                patterns: vec![pattern("/item")],
                query: vec!["id".to_owned()],
                ..Rule::default()
            },
        ]);
        let named = |url: &str| {
            let (path, query) = url.split_once('?').map_or((url, None), |(p, q)| (p, Some(q)));
            match find(&resource(path), query, "/lock", &rules) {
                Ok(Endpoint::Lock(located, _)) => {
                    Ok((located.resource.to_string(), located.asked.endpoint("/lock")))
                }
                Ok(Endpoint::Resource(located)) => {
                    Ok((located.resource.to_string(), String::new()))
                }
                Err(problem) => Err(problem.name),
            }
        };
        let lock = |name: &str, url: &str| Ok((name.to_owned(), url.to_owned()));
        assert_eq!(named("/v1/flags/7/lock"), lock("/flags/7", "/v1/flags/7/lock"));
        assert_eq!(named("/v1/flags/7/on/lock/break"), lock("/flags/7", "/v1/flags/7/on/lock"));
        assert_eq!(named("/v2/flags/7/lock?wait=1"), lock("/flags/7", "/v2/flags/7/lock"));
        assert_eq!(named("/flags/7/lock"), lock("/flags/7", "/flags/7/lock"));
        assert_eq!(named("/item/lock?wait=1&id=%37"), lock("/item/?id=7", "/item/lock?id=7"));
        assert_eq!(named("/item/lock"), lock("/item", "/item/lock"));
        assert_eq!(named("/item/lock?id=7&id=8"), Err(Name::MalformedRequest));
        assert_eq!(named("/item?id=7"), lock("/item/?id=7", ""));
        // A lock on these would not cover what is below them.
        assert_eq!(named("/v1/flags/lock"), Err(Name::NotLockable));
        assert_eq!(named("/v1/lock"), Err(Name::NotLockable));
        assert_eq!(named("/flags/lock"), lock("/flags", "/flags/lock"));
    }
}
