//! One request, as everything behind identity sees it.

use std::sync::Arc;

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use leasehold_core::caller::{Caller, Permission, Role};
use leasehold_core::event::Origin;
use leasehold_core::lock::{Dialect, Lock};
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
    /// What it shows, where only the upstream can tell whether that is worth anything; none: it is
    /// known who calls.
    pub credentials: Option<Arc<Credentials>>,
}

/// The credentials of a caller whom nobody here can tell from one who has made them up.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The head of a request that shows them, and says nothing else of what was asked here.
    pub head: Parts,
    /// What the operator has given to the caller by its name. What is about no one resource is
    /// decided by these alone: the upstream cannot be asked about it.
    pub roles: Arc<[Role]>,
    /// How to show some, where the request shows none.
    pub challenge: Option<HeaderValue>,
}

impl Call {
    /// The call with no more than what the operator has given to the caller by its name.
    #[must_use]
    pub fn by_name(&self) -> Self {
        let mut call = self.clone();
        if let Some(credentials) = &self.credentials {
            call.caller.roles = credentials.roles.clone();
        }
        call
    }

    /// Whether the caller is known to hold this lock.
    #[must_use]
    pub fn holds(&self, lock: &Lock) -> bool {
        !self.caller.anonymous && lock.grant.holder == self.caller.principal
    }

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
    /// `403 forbidden`; `401 unauthenticated` where credentials could change that.
    pub fn need(&self, permission: Permission, resource: &Resource) -> Result<(), Box<Problem>> {
        if self.caller.may(permission, resource) {
            return Ok(());
        }
        Err(self.forbidden(permission, &format!("for {resource}")))
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
        Err(self.forbidden(permission, &what))
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
        Err(self.forbidden(permission, "for this"))
    }

    fn forbidden(&self, permission: Permission, what: &str) -> Box<Problem> {
        let word = permission.as_str();
        let detail = format!("The permission `{word}` is needed {what}");
        let shown = self.credentials.as_ref();
        Box::new(match shown.and_then(|credentials| credentials.challenge.clone()) {
            Some(challenge) => Problem::new(
                Name::Unauthenticated,
                format!("{detail}, and the request shows no credentials."),
            )
            .header(WWW_AUTHENTICATE, challenge),
            None => Problem::new(Name::Forbidden, format!("{detail}.")).with("permission", word),
        })
    }
}
