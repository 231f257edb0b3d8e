//! What a write changes.

use crate::resource::Resource;

/// One thing that a write changes. A lock stands in the way of a write when it covers one of the
/// write's targets.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// The content of a resource.
    Content(Resource),
    /// The list of a resource's children: one appears or goes.
    Members(Resource),
    /// A resource and everything below it.
    Subtree(Resource),
}

impl Target {
    /// The resource it is about.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        match self {
            Self::Content(resource) | Self::Members(resource) | Self::Subtree(resource) => resource,
        }
    }
}
