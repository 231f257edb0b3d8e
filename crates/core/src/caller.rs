//! Who asks, and what they may do.

use std::sync::Arc;

use crate::ids::Principal;
use crate::pattern::Pattern;
use crate::resource::Resource;

/// One thing a caller may be allowed to do.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Permission {
    /// Read resources and inspect locks.
    Read = 1,
    /// Write to resources.
    Write = 2,
    /// Acquire, renew, release, transfer, ask for locks.
    Lock = 4,
    /// End other people's locks.
    Break = 8,
    /// Freeze and unfreeze.
    Freeze = 16,
    /// Read the trail.
    Audit = 32,
    /// Metrics and everything else.
    Admin = 64,
}

impl Permission {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Lock => "lock",
            Self::Break => "break",
            Self::Freeze => "freeze",
            Self::Audit => "audit",
            Self::Admin => "admin",
        }
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Permissions(u8);

impl Permissions {
    /// Every permission.
    pub const ALL: Self = Self(127);

    /// These permissions.
    #[must_use]
    pub fn of(permissions: &[Permission]) -> Self {
        Self(permissions.iter().fold(0, |bits, permission| bits | *permission as u8))
    }

    /// Whether `permission` is in the set.
    #[must_use]
    pub fn has(self, permission: Permission) -> bool {
        self.0 & permission as u8 != 0
    }
}

/// A role: a set of permissions, everywhere or where one of the patterns matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Role {
    /// What it allows.
    pub permissions: Permissions,
    /// Where. Empty: everywhere.
    pub patterns: Vec<Pattern>,
}

/// Who asks, and what they may do. Made by the server from the request's credentials.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who they are.
    pub principal: Principal,
    /// Whether the principal says nothing (anonymous mode): then a token alone proves a holder.
    pub anonymous: bool,
    /// What they may do.
    pub roles: Arc<[Role]>,
}

impl Caller {
    /// The caller of anonymous mode: everyone is `anonymous`, with every permission.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            principal: Principal::new("anonymous"),
            anonymous: true,
            roles: Arc::from([Role { permissions: Permissions::ALL, patterns: Vec::new() }]),
        }
    }

    /// The caller of this name, who may do this everywhere.
    #[must_use]
    pub fn named(name: &str, permissions: Permissions) -> Self {
        Self {
            principal: Principal::new(name),
            anonymous: false,
            roles: Arc::from([Role { permissions, patterns: Vec::new() }]),
        }
    }

    /// Whether the caller may do this to `resource`.
    #[must_use]
    pub fn may(&self, permission: Permission, resource: &Resource) -> bool {
        self.roles.iter().any(|role| {
            role.permissions.has(permission)
                && (role.patterns.is_empty()
                    || role.patterns.iter().any(|pattern| pattern.matches(resource)))
        })
    }

    /// Whether the caller may do this to `resource` and to everything below it, whatever is there.
    #[must_use]
    pub fn may_below(&self, permission: Permission, resource: &Resource) -> bool {
        self.roles.iter().any(|role| {
            role.permissions.has(permission)
                && (role.patterns.is_empty()
                    || role.patterns.iter().any(|pattern| pattern.matches_all_below(resource)))
        })
    }

    /// Whether the caller may do this everywhere: what is not about one resource needs that.
    #[must_use]
    pub fn may_everywhere(&self, permission: Permission) -> bool {
        self.roles.iter().any(|role| role.permissions.has(permission) && role.patterns.is_empty())
    }
}
