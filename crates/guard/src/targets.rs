//! What a write changes, as far as its head tells: for what stands behind a proxy.

use http::Method;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;

/// The targets of a write whose body is not looked into.
///
/// A `PUT` without `If-Match` may create; what a `POST` creates is not known, so it counts for the
/// collection alone; what goes away takes everything below along.
#[must_use]
pub fn by_head(method: &Method, resource: &Resource, has_if_match: bool) -> Vec<Target> {
    let members_above = |targets: &mut Vec<Target>| {
        targets.extend(resource.parent().map(Target::Members));
    };
    let mut targets = Vec::new();
    match method.as_str() {
        "DELETE" | "MOVE" => {
            targets.push(Target::Subtree(resource.clone()));
            members_above(&mut targets);
        }
        "POST" => {
            targets.push(Target::Content(resource.clone()));
            targets.push(Target::Members(resource.clone()));
        }
        "PUT" if has_if_match => targets.push(Target::Content(resource.clone())),
        "PUT" | "MKCOL" => {
            targets.push(Target::Content(resource.clone()));
            members_above(&mut targets);
        }
        _ => targets.push(Target::Content(resource.clone())),
    }
    targets
}
