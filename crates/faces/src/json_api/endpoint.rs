//! Which lock endpoint a path is.

use leasehold_core::resource::Resource;
use leasehold_guard::rules::Rules;
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
    Resource(Resource),
    /// A lock endpoint of this resource.
    Lock(Resource, Action),
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

/// Under a rule with `lockable = false` a path that ends like a lock endpoint is an ordinary one.
fn is_ordinary(resource: &Resource, rules: &Rules) -> bool {
    let (number, rule) = rules.find(resource);
    number > 0 && !rule.lockable
}

/// Which endpoint `path` is.
///
/// # Errors
/// `400` where the resource before it is itself the name of a lock endpoint; `404 not-lockable`
/// for `/`, where no rule makes it lockable.
pub fn find(path: Resource, suffix: &str, rules: &Rules) -> Result<Endpoint, Box<Problem>> {
    let Some((resource, action)) = split(&path, suffix) else {
        return Ok(Endpoint::Resource(path));
    };
    if is_ordinary(&resource, rules) {
        return Ok(Endpoint::Resource(path));
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
    if !rules.find(&resource).1.lockable {
        return Err(not_lockable(&resource));
    }
    Ok(Endpoint::Lock(resource, action))
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
    use leasehold_core::pattern::Pattern;
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
        let find = |path: &str| find(resource(path), "/lock", &rules).map_err(|p| p.name);
        let lock = |path: &str, action| Ok(Endpoint::Lock(resource(path), action));
        assert_eq!(find("/a/lock"), lock("/a", Action::Lock));
        assert_eq!(find("/a/%6Cock"), lock("/a", Action::Lock));
        assert_eq!(find("/a/lock/break"), lock("/a", Action::Break));
        assert_eq!(find("/a/lock/freeze"), lock("/a", Action::Freeze));
        let ordinary = |path: &str| Ok(Endpoint::Resource(resource(path)));
        assert_eq!(find("/a/lock/other"), ordinary("/a/lock/other"));
        assert_eq!(find("/a/unlock"), ordinary("/a/unlock"));
        assert_eq!(find("/a/break"), ordinary("/a/break"));
        assert_eq!(find("/free/x/lock"), ordinary("/free/x/lock"));
        assert_eq!(find("/a/lock/lock"), Err(Name::MalformedRequest));
        assert_eq!(find("/a/lock/break/lock"), Err(Name::MalformedRequest));
        assert_eq!(find("/lock"), Err(Name::NotLockable));
        assert_eq!(find("/lock/break"), Err(Name::NotLockable));
    }
}
