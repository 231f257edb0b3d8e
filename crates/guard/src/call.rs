//! One request, as everything behind identity sees it.

use std::sync::Arc;

use leasehold_core::caller::{Caller, Permission};
use leasehold_core::event::Origin;
use leasehold_core::lock::Dialect;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_problems::{Name, Problem};

use crate::memory::Share;
use crate::rules::Asked;

/// Who asks, and where from.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Caller,
    /// The id of the request.
    pub request_id: Arc<str>,
    /// The address of the peer.
    pub remote_addr: Option<Arc<str>>,
    /// The URL that it asked by, where a rule knows what is there by another name.
    pub asked: Option<Arc<Asked>>,
    /// What its body has taken of memory. A write that goes on after its client has gone keeps it.
    pub memory: Option<Arc<Share>>,
}

impl Call {
    /// Where a command of this request comes from, for the trail.
    #[must_use]
    pub fn origin(&self, dialect: Dialect) -> Origin {
        Origin {
            actor: Some(self.caller.principal.clone()),
            dialect,
            request_id: Some(self.request_id.clone()),
            remote_addr: self.remote_addr.clone(),
        }
    }

    /// Whether the caller may do this to `resource`.
    ///
    /// # Errors
    /// `403 forbidden`.
    pub fn need(&self, permission: Permission, resource: &Resource) -> Result<(), Box<Problem>> {
        if self.caller.may(permission, resource) {
            return Ok(());
        }
        Err(Box::new(self.forbidden(permission, &format!("for {resource}"))))
    }

    /// Whether the caller may do this to `resource` and to everything below it.
    ///
    /// # Errors
    /// `403 forbidden`.
    pub fn need_below(
        &self,
        permission: Permission,
        resource: &Resource,
    ) -> Result<(), Box<Problem>> {
        if self.caller.may_below(permission, resource) {
            return Ok(());
        }
        let what = format!("for {resource} and everything below it");
        Err(Box::new(self.forbidden(permission, &what)))
    }

    /// Whether the caller may write to everything of this, where nobody knows how much of it there
    /// is.
    ///
    /// # Errors
    /// `403 forbidden`.
    pub fn need_to_write(&self, targets: &[Target]) -> Result<(), Box<Problem>> {
        targets.iter().try_for_each(|target| match target {
            Target::Content(resource) => self.need(Permission::Write, resource),
            Target::Subtree(resource) => self.need_below(Permission::Write, resource),
            Target::Members(_) => Ok(()),
        })
    }

    /// Whether the caller may do this everywhere.
    ///
    /// # Errors
    /// `403 forbidden`.
    pub fn need_everywhere(&self, permission: Permission) -> Result<(), Box<Problem>> {
        if self.caller.may_everywhere(permission) {
            return Ok(());
        }
        Err(Box::new(self.forbidden(permission, "for this")))
    }

    fn forbidden(&self, permission: Permission, what: &str) -> Problem {
        let word = permission.as_str();
        Problem::new(Name::Forbidden, format!("The permission `{word}` is needed {what}."))
            .with("permission", word)
    }
}
