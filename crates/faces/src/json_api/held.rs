//! What holders do with a lock, and what others may do to it: renew, release, transfer, ask for,
//! break.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use leasehold_core::caller::Permission;
use leasehold_core::command::{Address, BreakLock, Presented, Release, Renew, Transfer};
use leasehold_core::ids::{LockId, Principal};
use leasehold_core::lock::{Dialect, Ending};
use leasehold_core::refusal::HolderRefusal;
use leasehold_core::resource::Resource;
use leasehold_engine::Refused;
use leasehold_guard::body::{Body, empty};
use leasehold_guard::call::Call;
use leasehold_guard::telling;
use leasehold_guard::upstream::Answer;
use leasehold_problems::Problem;
use serde_json::json;
use uuid::Uuid;

use super::acquire::MAX_REASON;
use super::asking::query;
use super::fields::{Fields, MAX_BODY, invalid, malformed, object, to_ms};
use super::{JsonApi, json as answer, json_of_lock};

/// The longest grace of a break, in seconds: a lock cannot be renewed for longer.
const MAX_GRACE_SECONDS: f64 = 24.0 * 60.0 * 60.0;

impl JsonApi {
    fn need_at(call: &Call, permission: Permission, address: &Address) -> Result<(), Box<Problem>> {
        match address {
            Address::Resource(resource) => call.need(permission, resource),
            // The token, and its principal, say whose lock it is.
            Address::Id(_) => Ok(()),
        }
    }

    /// Renews.
    ///
    /// # Errors
    /// The refusal.
    pub async fn renew(&self, request: Request<Body>, address: Address, call: &Call) -> Answer {
        Self::need_at(call, Permission::Lock, &address)?;
        let (head, body) = request.into_parts();
        let mut fields = Fields::new(object(body, MAX_BODY).await?);
        let ttl_ms = fields.seconds("ttl_seconds")?;
        fields.end()?;
        let tokens = self.tokens(&head.headers)?;
        let rules = self.rules.load_full();
        let telling = self.telling(&rules, call);
        let command = Renew {
            caller: call.caller.clone(),
            origin: call.origin(Dialect::Http),
            address: address.clone(),
            tokens: tokens.clone(),
            ttl_ms,
        };
        match self.engine.renew(command).await {
            Ok(lock) => Ok(json_of_lock(StatusCode::OK, &telling.lock(&lock).with_request())),
            Err(refused) => {
                Err(telling.holder(self.recalled(call, &address, &tokens, refused).await))
            }
        }
    }

    /// Releases.
    ///
    /// # Errors
    /// The refusal.
    pub async fn release(&self, request: Request<Body>, address: Address, call: &Call) -> Answer {
        Self::need_at(call, Permission::Lock, &address)?;
        let tokens = self.tokens(request.headers())?;
        let command = Release {
            caller: call.caller.clone(),
            origin: call.origin(Dialect::Http),
            address: address.clone(),
            tokens: tokens.clone(),
        };
        let refused = match self.engine.release(command).await {
            Ok(_) => return Ok(no_content()),
            Err(refused) => self.recalled(call, &address, &tokens, refused).await,
        };
        match refused {
            Refused::By(HolderRefusal::Gone(_, Some(ended)))
                if ended.ending == Ending::Released =>
            {
                Ok(no_content())
            }
            refused => {
                let rules = self.rules.load_full();
                Err(self.telling(&rules, call).holder(refused))
            }
        }
    }

    /// How a lock ended is kept in memory for a bounded number of locks; for others the trail says
    /// it.
    async fn recalled(
        &self,
        call: &Call,
        address: &Address,
        tokens: &[Presented],
        refused: Refused<HolderRefusal>,
    ) -> Refused<HolderRefusal> {
        let Refused::By(HolderRefusal::Gone(lock_id, None)) = &refused else { return refused };
        let Some(ended) = self.trail.how_ended(*lock_id).await else { return refused };
        let same = Presented::Token { lock_id: *lock_id, fence: ended.fence };
        if !tokens.contains(&same) {
            return refused;
        }
        if !call.caller.anonymous && ended.holder != call.caller.principal {
            return Refused::By(HolderRefusal::NotTheHolder);
        }
        let fits = match address {
            Address::Resource(resource) => ended.resources.contains(resource),
            Address::Id(id) => id == lock_id,
        };
        if !fits {
            return Refused::By(HolderRefusal::InvalidToken);
        }
        Refused::By(HolderRefusal::Gone(*lock_id, Some(Box::new(ended))))
    }

    /// Hands a lock over.
    ///
    /// # Errors
    /// The refusal.
    pub async fn transfer(&self, request: Request<Body>, address: Address, call: &Call) -> Answer {
        Self::need_at(call, Permission::Lock, &address)?;
        let (head, body) = request.into_parts();
        let mut fields = Fields::new(object(body, MAX_BODY).await?);
        let to = fields.text("to", Principal::MAX_BYTES)?;
        fields.end()?;
        let to = match to {
            None => return Err(malformed("to", "`to` is needed: who gets the lock.")),
            Some(to) if to.is_empty() => return Err(invalid("to", "is empty")),
            Some(to) => Principal::new(&to),
        };
        let tokens = self.tokens(&head.headers)?;
        let rules = self.rules.load_full();
        let telling = self.telling(&rules, call);
        let command = Transfer {
            caller: call.caller.clone(),
            origin: call.origin(Dialect::Http),
            address: address.clone(),
            tokens: tokens.clone(),
            lock_id: LockId(Uuid::new_v4()),
            to,
            drain_wait_ms: self.settings.drain_wait_ms,
        };
        let granted = match self.engine.transfer(command).await {
            Ok(granted) => granted,
            Err(refused) => {
                let refused = self.recalled(call, &address, &tokens, refused).await;
                return Err(telling.holder(refused));
            }
        };
        let grant = &granted.lock.grant;
        let token = self.engine.token(grant.lock_id, grant.fence);
        // Who hands a lock over is told to whom, whatever a rule hides from others.
        let shown = telling.lock(&granted.lock).with_holder().with_token(&token);
        Ok(answer(StatusCode::OK, &shown))
    }

    pub(super) async fn request(
        &self,
        request: Request<Body>,
        resource: Resource,
        call: &Call,
    ) -> Answer {
        call.need(Permission::Lock, &resource)?;
        let mut fields = Fields::new(object(request.into_body(), MAX_BODY).await?);
        let message = fields.text("message", MAX_REASON)?.map(Arc::from);
        fields.end()?;
        let command = leasehold_core::command::Request {
            caller: call.caller.clone(),
            origin: call.origin(Dialect::Http),
            resource: resource.clone(),
            message,
        };
        let rules = self.rules.load_full();
        let asked = self
            .engine
            .request(command)
            .await
            .map_err(|refused| self.telling(&rules, call).break_(resource.as_str(), refused))?;
        Ok(answer(StatusCode::ACCEPTED, &json!({ "asked": asked })))
    }

    /// Breaks a lock, or tells what a break would end.
    ///
    /// # Errors
    /// The refusal.
    pub async fn break_lock(
        &self,
        request: Request<Body>,
        address: Address,
        call: &Call,
    ) -> Answer {
        let (head, body) = request.into_parts();
        match &address {
            Address::Resource(resource) => call.need(Permission::Break, resource)?,
            Address::Id(lock_id) => self.need_of_lock(call, Permission::Break, *lock_id).await?,
        }
        let dry_run = match query(&head, "dry_run").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(malformed("dry_run", "`dry_run` is `true` or `false`.")),
        };
        let mut fields = Fields::new(object(body, MAX_BODY).await?);
        let reason = fields.text("reason", MAX_REASON)?;
        let grace = fields.number("grace_seconds")?.unwrap_or(0.0);
        let lock_id = match fields.text("lock_id", 64)? {
            None => None,
            Some(text) => Some(
                text.parse::<LockId>()
                    .map_err(|_| malformed("lock_id", "`lock_id` is no lock id."))?,
            ),
        };
        fields.end()?;
        if !(0.0..=MAX_GRACE_SECONDS).contains(&grace) {
            return Err(invalid("grace_seconds", "is not from 0 to 86400, a day"));
        }
        let reason = match reason {
            Some(reason) if !reason.trim().is_empty() => reason,
            None if dry_run => String::new(),
            _ => return Err(malformed("reason", "`reason` is needed: why the lock is broken.")),
        };
        let what = match &address {
            Address::Resource(resource) => resource.to_string(),
            Address::Id(id) => id.to_string(),
        };
        let command = BreakLock {
            caller: call.caller.clone(),
            origin: call.origin(Dialect::Http),
            address,
            lock_id,
            reason: Arc::from(reason),
            grace_ms: to_ms(grace),
        };
        let rules = self.rules.load_full();
        let telling = self.telling(&rules, call);
        if dry_run {
            let preview = self
                .engine
                .preview_break(command)
                .await
                .map_err(|refused| telling.break_(&what, refused))?;
            let now = self.engine.now();
            let age = now.lease.since(preview.lock.grant.granted);
            let body = json!({
                "dry_run": true,
                "lock": telling.lock_shown(&preview.lock),
                "age_ms": age,
                "writes_in_flight": preview.writes_in_flight,
                "queue": self.queue_shown(&telling, &preview, now),
            });
            return Ok(answer(StatusCode::OK, &body));
        }
        let broken = self
            .engine
            .break_lock(command)
            .await
            .map_err(|refused| telling.break_(&what, refused))?;
        let ends_in_ms = self.engine.remaining_ms(broken.ends_at);
        let ends_at = (self.engine.clock().wall() + ends_in_ms).to_string();
        let body = json!({
            "lock_id": broken.lock.grant.lock_id,
            "resource": broken.lock.grant.resources.first(),
            "resources": &broken.lock.grant.resources[..],
            "holder": telling.discloses(&broken.lock).then_some(&broken.lock.grant.holder),
            "ends_at": ends_at,
            "ends_in_ms": ends_in_ms,
        });
        Ok(answer(StatusCode::OK, &body))
    }

    /// Whether the caller may do this to every resource of a lock. Its holder may read it. A lock
    /// that there is not is told only to whom may do it everywhere.
    pub(super) async fn need_of_lock(
        &self,
        call: &Call,
        permission: Permission,
        lock_id: LockId,
    ) -> Result<(), Box<Problem>> {
        let lock = self.engine.lock(lock_id).await;
        match lock.map_err(|error| Box::new(telling::engine_error(error)))? {
            Some(lock) if permission == Permission::Read && call.holds(&lock) => Ok(()),
            Some(lock) => {
                lock.grant.resources.iter().try_for_each(|each| call.need(permission, each))
            }
            None => call.need_everywhere(permission),
        }
    }
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
