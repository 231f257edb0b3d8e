//! What covers what, by the texts of paths.

use leasehold_core::lock::{Depth, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;

/// What a lock covers or an acquire asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) resources: Vec<Resource>,
    pub(crate) mode: Mode,
    pub(crate) depth: Depth,
}

pub(super) fn is_below(above: &Resource, resource: &Resource) -> bool {
    let (above, resource) = (above.as_str(), resource.as_str());
    above != resource && (above == "/" || resource.starts_with(&format!("{above}/")))
}

pub(super) fn covers(from: &Resource, depth: Depth, to: &Resource) -> bool {
    from == to || (depth == Depth::Infinity && is_below(from, to))
}

impl Claim {
    pub(crate) fn covers(&self, to: &Resource) -> bool {
        self.resources.iter().any(|from| covers(from, self.depth, to))
    }

    fn meets(&self, other: &Self) -> bool {
        self.resources.iter().any(|each| other.covers(each))
            || other.resources.iter().any(|each| self.covers(each))
    }

    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive) && self.meets(other)
    }

    /// Whether something that a target changes is covered.
    pub(super) fn guards(&self, target: &Target) -> bool {
        match target {
            Target::Content(at) | Target::Members(at) => self.covers(at),
            Target::Subtree(at) => {
                self.covers(at) || self.resources.iter().any(|each| is_below(at, each))
            }
        }
    }

    /// Whether all that a target changes is covered.
    pub(super) fn guards_all(&self, target: &Target) -> bool {
        match target {
            Target::Content(at) | Target::Members(at) => self.covers(at),
            Target::Subtree(at) => self.depth == Depth::Infinity && self.covers(at),
        }
    }
}

/// The parts of a target that a shared lock covers, each as a target of its own.
pub(super) fn shared_regions(claim: &Claim, target: &Target) -> Vec<Target> {
    let Target::Subtree(at) = target else { return vec![target.clone()] };
    let part = |from: &Resource| match claim.depth {
        Depth::Infinity => Target::Subtree(from.clone()),
        Depth::Zero => Target::Content(from.clone()),
    };
    let mut parts = Vec::new();
    if claim.covers(at) {
        parts.push(part(at));
    }
    parts.extend(claim.resources.iter().filter(|each| is_below(at, each)).map(part));
    parts
}
