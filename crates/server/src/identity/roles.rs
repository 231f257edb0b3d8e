//! What callers may do who are known from elsewhere: roles by what is said of them there.

use std::sync::Arc;

use leasehold_core::caller::{Caller, Role};
use leasehold_core::ids::Principal;

/// Which roles a caller has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RoleMap {
    /// The role of everyone who is known.
    pub everyone: Option<Role>,
    /// The roles of those of whom this value is said. One value can give several.
    pub by_value: Vec<(String, Role)>,
}

impl RoleMap {
    /// The caller of this name, of whom `values` are said. Without a role it may do nothing.
    pub(super) fn caller<'a>(
        &self,
        principal: Principal,
        values: impl Iterator<Item = &'a str>,
    ) -> Caller {
        let mut roles: Vec<Role> = self.everyone.iter().cloned().collect();
        for value in values {
            let given = self.by_value.iter().filter(|(given, _)| given == value);
            roles.extend(given.map(|(_, role)| role.clone()));
        }
        Caller { principal, anonymous: false, roles: Arc::from(roles) }
    }
}

/// The principal of this name, if it can be one: 1 to 255 bytes, no control characters, no space
/// around it, and not the name of those whom nobody asks.
pub(super) fn principal(name: &str) -> Option<Principal> {
    let sound = !name.is_empty()
        && name.len() <= Principal::MAX_BYTES
        && !name.chars().any(char::is_control)
        && name.trim() == name
        && name != "anonymous";
    sound.then(|| Principal::new(name))
}
