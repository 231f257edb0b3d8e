//! `PUT` and `DELETE {resource}/lock/freeze`.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use leasehold_core::caller::Permission;
use leasehold_core::command::SetFreeze;
use leasehold_core::lock::Dialect;
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use leasehold_guard::body::{Body, empty};
use leasehold_guard::call::Call;
use leasehold_guard::telling::engine_error;
use leasehold_guard::upstream::Answer;
use leasehold_problems::{Name, Problem};

use super::acquire::MAX_REASON;
use super::fields::{Fields, MAX_BODY, invalid, malformed, object};
use super::{JsonApi, json};

/// The longest freeze: 366 days, in milliseconds.
pub const MAX_FREEZE_MS: i64 = 366 * 24 * 60 * 60 * 1000;

impl JsonApi {
    pub(super) async fn set_freeze(
        &self,
        request: Request<Body>,
        resource: Resource,
        call: &Call,
    ) -> Answer {
        call.need(Permission::Freeze, &resource)?;
        let mut fields = Fields::new(object(request.into_body(), MAX_BODY).await?);
        let reason = fields.text("reason", MAX_REASON)?;
        let until = fields.text("until", 64)?;
        fields.end()?;
        let reason = match reason {
            Some(reason) if !reason.trim().is_empty() => reason,
            _ => return Err(invalid("reason", "is needed: why nobody is to write")),
        };
        let Some(until) = until else { return Err(invalid("until", "is needed: until when")) };
        let until: WallTime = until
            .parse()
            .map_err(|_| malformed("until", "`until` is no time as RFC 3339 writes it."))?;
        let left = until.0.saturating_sub(self.engine.clock().wall().0);
        if left <= 0 || MAX_FREEZE_MS < left {
            return Err(Box::new(Problem::new(
                Name::TtlOutOfRange,
                "`until` has to be in the future, by at most 366 days.",
            )));
        }
        let command = SetFreeze {
            caller: call.caller.clone(),
            origin: call.origin(Dialect::Http),
            resource,
            reason: Arc::from(reason),
            until,
            drain_wait_ms: self.settings.drain_wait_ms,
        };
        let (freeze, writes_in_flight) =
            self.engine.freeze(command).await.map_err(|error| Box::new(engine_error(error)))?;
        let rules = self.rules.load_full();
        let mut body = self.telling(&rules, call).freeze(&freeze);
        if writes_in_flight > 0 {
            body["writes_in_flight"] = writes_in_flight.into();
        }
        Ok(json(StatusCode::OK, &body))
    }

    pub(super) async fn unfreeze(&self, resource: &Resource, call: &Call) -> Answer {
        call.need(Permission::Freeze, resource)?;
        // Lifting what has gone already is done.
        self.engine
            .unfreeze(resource.clone(), call.origin(Dialect::Http))
            .await
            .map_err(|error| Box::new(engine_error(error)))?;
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }
}
