//! `POST {resource}/lock`, and `POST /-/locks`: acquire.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use leasehold_core::acquire::fold_set;
use leasehold_core::caller::Permission;
use leasehold_core::command::{Acquire, AcquireLimits, Want};
use leasehold_core::ids::LockId;
use leasehold_core::lock::{Depth, Dialect, Json, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::time::millis;
use leasehold_engine::{Delivery, Grant};
use leasehold_guard::body::{Body, BoxError};
use leasehold_guard::call::Call;
use leasehold_guard::rules::{Asked, Located, Rules};
use leasehold_guard::tokens::{self, LOCK_TOKEN};
use leasehold_guard::upstream::Answer;
use leasehold_problems::Problem;
use serde_json::Value;
use uuid::Uuid;

use super::asking::{Wait, idempotency, wait};
use super::fields::{Fields, MAX_BODY, invalid, malformed, object};
use super::{JsonApi, endpoint, json_of_lock};

/// The longest wait for several resources at once, in milliseconds.
pub const MAX_SET_WAIT_MS: u64 = 10_000;

/// The most resources of one lock.
pub const MAX_SET: usize = 256;

/// The longest reason or message, in bytes.
pub const MAX_REASON: usize = 1024;

/// The longest metadata, in bytes of JSON.
pub const MAX_METADATA: usize = 4096;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What the body of an acquire says, apart from what is to be locked.
struct Terms {
    ttl_ms: Option<u64>,
    mode: Mode,
    depth: Depth,
    reason: Option<Arc<str>>,
    metadata: Option<Json>,
}

impl JsonApi {
    pub(super) async fn acquire(
        &self,
        request: Request<Body>,
        resource: Resource,
        call: &Call,
    ) -> Answer {
        call.need(Permission::Lock, &resource)?;
        let (head, body) = request.into_parts();
        let members = object(body, MAX_BODY).await?;
        let asked = call.asked.as_deref().cloned();
        let asked = asked.unwrap_or_else(|| Asked::by_name(&resource));
        let path = asked.endpoint(&self.settings.lock_suffix);
        let value = Value::Object(members);
        let idempotency = idempotency(&head.headers, &path, &value)?;
        let Value::Object(members) = value else { return Err(malformed("body", "No object.")) };
        let mut fields = Fields::new(members);
        let terms = terms(&mut fields)?;
        fields.end()?;
        let rules = self.rules.load_full();
        let rule = rules.find(&resource).1;
        let wait = wait(&head, millis(rule.max_wait))?;
        let want = Want::All(Arc::from([resource.clone()]));
        let command = self.command(&head.headers, call, want, terms, idempotency, wait, &rules)?;
        self.granted(command, call, &rules, wait, |_| path.clone()).await
    }

    /// `POST /-/locks`: several in one step, or the first of several that is free.
    ///
    /// # Errors
    /// The refusal.
    pub async fn acquire_set(&self, request: Request<Body>, call: &Call) -> Answer {
        let (head, body) = request.into_parts();
        let members = object(body, MAX_BODY).await?;
        let value = Value::Object(members);
        let path = format!("{}locks", self.settings.prefix);
        let idempotency = idempotency(&head.headers, &path, &value)?;
        let Value::Object(members) = value else { return Err(malformed("body", "No object.")) };
        let mut fields = Fields::new(members);
        let rules = self.rules.load_full();
        let all = fields.resources("resources", MAX_SET, &rules)?;
        let any = fields.resources("any_of", MAX_SET, &rules)?;
        let terms = terms(&mut fields)?;
        fields.end()?;
        let named = |found: &Vec<Located>| -> Vec<Resource> {
            found.iter().map(|located| located.resource.clone()).collect()
        };
        let mut max_wait = MAX_SET_WAIT_MS;
        let mut urls = Vec::new();
        for located in all.iter().chain(&any).flatten() {
            let path = located.asked.path();
            let reserved = endpoint::is_reserved(path, &self.settings.lock_suffix, &rules);
            if reserved || path.as_str().starts_with(&self.settings.prefix) {
                let what = format!("{path} is the server's own and cannot be locked.");
                return Err(malformed("resources", what));
            }
            endpoint::check_lockable(located, &rules)?;
            call.need(Permission::Lock, &located.resource)?;
            urls.push(located.asked.clone());
            max_wait = max_wait.min(millis(rules.find(path).1.max_wait));
        }
        for asked in &urls {
            self.is_shown(call, asked).await?;
        }
        let want = match (all.as_ref().map(named), any.as_ref().map(named)) {
            (Some(all), None) => Want::All(fold_set(&all, terms.depth)),
            // Only duplicates are folded: each is an alternative of its own.
            (None, Some(any)) => Want::AnyOf(fold_set(&any, Depth::Zero)),
            (None, None) => {
                return Err(malformed("resources", "`resources` or `any_of` is needed."));
            }
            (Some(_), Some(_)) => {
                return Err(malformed("any_of", "`resources` and `any_of` exclude each other."));
            }
        };
        let wait = wait(&head, max_wait)?;
        let prefix = self.settings.prefix.clone();
        let command = self.command(&head.headers, call, want, terms, idempotency, wait, &rules)?;
        self.granted(command, call, &rules, wait, |id| format!("{prefix}locks/{id}")).await
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of one command")]
    fn command(
        &self,
        headers: &http::HeaderMap,
        call: &Call,
        want: Want,
        terms: Terms,
        idempotency: Option<leasehold_core::lock::Idempotency>,
        wait: Wait,
        rules: &Rules,
    ) -> Result<Acquire, Box<Problem>> {
        Ok(Acquire {
            caller: call.caller.clone(),
            origin: call.origin(Dialect::Http),
            lock_id: LockId(Uuid::new_v4()),
            limits: limits(rules, want.resources(), self.settings.drain_wait_ms),
            want,
            mode: terms.mode,
            depth: terms.depth,
            ttl_ms: terms.ttl_ms,
            reason: terms.reason,
            metadata: terms.metadata,
            handle: None,
            idempotency,
            holds: tokens::presented(&self.engine, headers)?,
            wait_ms: wait.ms,
        })
    }

    async fn granted(
        &self,
        command: Acquire,
        call: &Call,
        rules: &Rules,
        wait: Wait,
        location: impl FnOnce(LockId) -> String,
    ) -> Answer {
        let telling = self.telling(rules, call);
        let Some(first) = command.want.resources().first().cloned() else {
            return Err(malformed("resources", "Nothing is named."));
        };
        let preference =
            wait.applied.and_then(|seconds| HeaderValue::from_str(&format!("wait={seconds}")).ok());
        let Grant { granted, delivery } = match self.engine.acquire(command).await {
            Ok(grant) => grant,
            Err(refused) => {
                let problem = telling.acquire(&first, refused);
                let mut problem = self.withheld(problem, &first, call).await;
                if let Some(preference) = preference {
                    problem.headers.push((PREFERENCE_APPLIED, preference));
                }
                return Err(problem);
            }
        };
        let grant = &granted.lock.grant;
        let token = self.engine.token(grant.lock_id, grant.fence);
        let body = telling.lock(&granted.lock).with_token(&token);
        let mut response = json_of_lock(StatusCode::CREATED, &body);
        let headers = response.headers_mut();
        let mut id = [0; 36];
        let id: &str = grant.lock_id.0.hyphenated().encode_lower(&mut id);
        // A token is base64url, a canonical path and a prefix are ASCII.
        if let Ok(uri) = HeaderValue::try_from(["<opaquelocktoken:", id, "/", &token, ">"].concat())
        {
            headers.insert(LOCK_TOKEN, uri);
        }
        if let Ok(location) = HeaderValue::try_from(location(grant.lock_id)) {
            headers.insert(LOCATION, location);
        }
        if let Some(preference) = preference {
            headers.insert(PREFERENCE_APPLIED, preference);
        }
        if granted.replayed {
            headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response.map(|inner| Delivered { inner, delivery: Some(delivery) }.boxed_unsync()))
    }
}

fn terms(fields: &mut Fields) -> Result<Terms, Box<Problem>> {
    let ttl_ms = fields.seconds("ttl_seconds")?;
    let mode = fields
        .word("mode", &[("exclusive", Mode::Exclusive), ("shared", Mode::Shared)])?
        .unwrap_or_default();
    let depth = fields
        .word("depth", &[("infinity", Depth::Infinity), ("0", Depth::Zero)])?
        .unwrap_or_default();
    let reason = fields.text("reason", MAX_REASON)?.map(Arc::from);
    let metadata = match fields.object("metadata")? {
        Some(object) if !object.is_empty() => {
            let text = Value::Object(object).to_string();
            if text.len() > MAX_METADATA {
                let reason = format!("is longer than {MAX_METADATA} bytes as JSON");
                return Err(invalid("metadata", &reason));
            }
            let raw = serde_json::value::RawValue::from_string(text)
                .map_err(|_| malformed("metadata", "`metadata` is no object."))?;
            Some(Json::new(raw))
        }
        _ => None,
    };
    Ok(Terms { ttl_ms, mode, depth, reason, metadata })
}

/// What the rules allow: for several resources the strictest of each.
fn limits(rules: &Rules, resources: &[Resource], drain_wait_ms: u64) -> AcquireLimits {
    let mut limits = AcquireLimits {
        default_ttl_ms: u64::MAX,
        max_ttl_ms: u64::MAX,
        max_hold_ms: None,
        max_queue: usize::MAX,
        max_locks_per_holder: None,
        drain_wait_ms,
    };
    let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    };
    for resource in resources {
        let rule = rules.find(resource).1;
        limits.default_ttl_ms = limits.default_ttl_ms.min(millis(rule.default_ttl));
        limits.max_ttl_ms = limits.max_ttl_ms.min(millis(rule.max_ttl));
        limits.max_hold_ms = least(limits.max_hold_ms, Some(millis(rule.max_hold)));
        limits.max_queue = limits.max_queue.min(rule.max_queue);
        limits.max_locks_per_holder = least(limits.max_locks_per_holder, rule.max_locks_per_holder);
    }
    limits.default_ttl_ms = limits.default_ttl_ms.min(limits.max_ttl_ms);
    limits
}

/// The body of a grant: it counts as delivered when the connection has taken it.
struct Delivered {
    inner: Body,
    delivery: Option<Delivery>,
}

impl HttpBody for Delivered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(_)) | None) = &frame
            && let Some(delivery) = self.delivery.take()
        {
            delivery.delivered();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
