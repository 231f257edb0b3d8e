//! Paths and patterns.

use leasehold_core::pattern::Pattern;
use leasehold_core::resource::Resource;

/// A path is refused, or has one normal form that stands for it everywhere. A line break separates two
/// of them.
pub fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let (first, second) = (Resource::parse(first), Resource::parse(second));
    for resource in [&first, &second].into_iter().flatten() {
        normal_form(resource);
    }
    let (Ok(first), Ok(second)) = (first, second) else { return };
    assert_eq!(first == second, first.as_str() == second.as_str());
    let above = first.segments().zip(second.segments()).all(|(ours, theirs)| ours == theirs)
        && first.segments().count() <= second.segments().count();
    assert_eq!(first.covers(&second), above, "{first} covers {second}");
    assert_eq!(first.covers(&second) && second.covers(&first), first == second);
}

fn normal_form(resource: &Resource) {
    let text = resource.as_str();
    assert_eq!(Resource::parse(text).as_ref(), Ok(resource), "{text}");
    assert!(text.starts_with('/') && text.len() <= 2048 * 3, "{text}");
    assert!(!text.contains("//") && (text == "/" || !text.ends_with('/')), "{text}");
    // Escaping all of it, or another time in lower case, changes nothing.
    let escaped: String = text
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                format!("%{byte:02x}")
            } else {
                char::from(byte).to_string()
            }
        })
        .collect();
    // What is escaped already would be escaped twice.
    if !text.contains('%')
        && let Ok(same) = Resource::parse(&escaped)
    {
        assert_eq!(same, *resource);
    }
    if let Some(parent) = resource.parent() {
        assert!(parent.covers(resource) && parent != *resource);
        assert_eq!(parent.child(&resource.name()).as_ref(), Ok(resource));
    } else {
        assert!(resource.is_root());
    }
    // A pattern of the path matches it, where the path has nothing that means more in a pattern.
    if !text.contains(['{', '}', '*'])
        && let Ok(pattern) = Pattern::parse(text)
    {
        assert!(pattern.matches(resource), "{text}");
    }
}
