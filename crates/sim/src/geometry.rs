//! What meets what, as plainly as the reference says it: by paths, without a tree.

use leasehold_core::lock::{Depth, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;

/// What a lock covers, or an acquire asks for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The resources.
    pub resources: &'a [Resource],
    /// Whether others may share them.
    pub mode: Mode,
    /// How far down it reaches.
    pub depth: Depth,
}

fn is_below(resource: &Resource, above: &Resource) -> bool {
    let (resource, above) = (resource.as_str(), above.as_str());
    above == "/" && resource != "/"
        || resource.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

impl Claim<'_> {
    /// Whether it covers a resource.
    #[must_use]
    pub fn covers(&self, resource: &Resource) -> bool {
        self.resources.iter().any(|own| {
            own == resource || (self.depth == Depth::Infinity && is_below(resource, own))
        })
    }

    /// Whether no two locks may be these.
    #[must_use]
    pub fn conflicts(&self, other: &Claim<'_>) -> bool {
        (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive)
            && (self.resources.iter().any(|own| other.covers(own))
                || other.resources.iter().any(|theirs| self.covers(theirs)))
    }

    /// Whether a write to the target needs its token.
    #[must_use]
    pub fn stands_before(&self, target: &Target) -> bool {
        let goes_below = matches!(target, Target::Subtree(_));
        self.covers(target.resource())
            || (goes_below && self.resources.iter().any(|own| is_below(own, target.resource())))
    }

    /// Whether all that a write to the target changes is covered.
    #[must_use]
    pub fn stands_before_all(&self, target: &Target) -> bool {
        let goes_below = matches!(target, Target::Subtree(_));
        self.covers(target.resource()) && (!goes_below || self.depth == Depth::Infinity)
    }
}
