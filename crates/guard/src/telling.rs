//! Refusals, told as problems: the one place that pairs a refusal with a name and its members.
//!
//! A dialect that says it otherwise has one such match of its own.

use std::time::Duration;

use http::header::LINK;
use http::{HeaderValue, Method};
use leasehold_core::caller::{Caller, Permission};
use leasehold_core::ids::{LockId, Principal};
use leasehold_core::lock::{Ended, Ending, Freeze, Lock};
use leasehold_core::refusal::{
    AcquireRefusal, BreakRefusal, HolderRefusal, InTheWay, TokenIs, WriteRefusal,
};
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use leasehold_engine::{Engine, EngineError, Refused};
use leasehold_problems::{Name, Problem};
use serde_json::{Value, json};

use crate::guard::is_safe;
use crate::rules::{Asked, Rules};
use crate::shown::Shown;

/// What telling needs to know of the server and the request.
#[derive(Clone, Copy)]
pub struct Telling<'a> {
    /// For the clocks.
    pub engine: &'a Engine,
    /// For what a rule hides.
    pub rules: &'a Rules,
    /// Who is told.
    pub caller: &'a Caller,
    /// The URL that was asked by, for links; none: the resource's name.
    pub asked: Option<&'a Asked>,
    /// The suffix of lock endpoints, `/lock`.
    pub lock_suffix: &'a str,
}

/// The longest `Retry-After` of a lock, in seconds.
const RETRY_MAX: u64 = 60;

impl Telling<'_> {
    /// Whether the caller is told who holds a lock.
    #[must_use]
    pub fn discloses(&self, lock: &Lock) -> bool {
        let resources = &lock.grant.resources;
        resources.iter().all(|resource| self.rules.find(resource).1.disclose_holder)
            || (!self.caller.anonymous && lock.grant.holder == self.caller.principal)
            || resources.iter().all(|resource| self.caller.may(Permission::Admin, resource))
    }

    fn discloses_at(&self, resource: &Resource) -> bool {
        self.rules.find(resource).1.disclose_holder || self.caller.may(Permission::Admin, resource)
    }

    /// When a lock ends, as `expires_at` and `expires_in_ms` tell it.
    #[must_use]
    pub fn expiry(&self, lock: &Lock) -> (WallTime, u64) {
        let left = self.engine.remaining_ms(lock.deadline);
        (self.engine.clock().wall() + left, left)
    }

    /// Everything about a lock but its token.
    #[must_use]
    pub fn lock<'l>(&self, lock: &'l Lock) -> Shown<'l> {
        Shown::new(lock, self.discloses(lock), self.expiry(lock))
    }

    /// A lock as inspection and lists show it.
    #[must_use]
    pub fn lock_shown<'l>(&self, lock: &'l Lock) -> Shown<'l> {
        self.lock(lock).with_history()
    }

    /// A freeze.
    #[must_use]
    pub fn freeze(&self, freeze: &Freeze) -> Value {
        json!({
            "resource": freeze.resource, "by": freeze.by, "reason": freeze.reason,
            "since": freeze.since, "until": freeze.until,
        })
    }

    // ---- refusals ----------------------------------------------------------------------------

    /// No answer of the engine.
    #[must_use]
    pub fn engine_error(&self, error: EngineError) -> Box<Problem> {
        Box::new(engine_error(error))
    }

    /// A refused acquire. `resource` is what was asked for.
    #[must_use]
    pub fn acquire(&self, resource: &Resource, refused: Refused<AcquireRefusal>) -> Box<Problem> {
        let refusal = match refused {
            Refused::By(refusal) => refusal,
            Refused::Engine(error) => return self.engine_error(error),
        };
        Box::new(match refusal {
            AcquireRefusal::TtlOutOfRange { max_ttl_ms } => ttl_out_of_range(max_ttl_ms),
            AcquireRefusal::Frozen(freeze) => self.frozen(&freeze),
            AcquireRefusal::Locked(found) => {
                let mut problem = self.locked(resource, &found);
                let status = self.rules.find(resource).1.locked_status;
                problem.status = http::StatusCode::from_u16(status).ok();
                if found.waited_ms > 0 {
                    problem = problem.with("waited_ms", found.waited_ms);
                }
                problem
            }
            AcquireRefusal::QueueFull { resource } => Problem::new(
                Name::QueueFull,
                format!("As many wait for {resource} as may wait for one resource."),
            )
            .with("resource", resource.as_str())
            .retry_after(1),
            AcquireRefusal::TooManyWaiters { limit, of_principal } => {
                let whose = if of_principal { " of yours" } else { "" };
                let detail = format!("As many requests{whose} wait as this server lets wait.");
                Problem::new(Name::QueueFull, detail).with("limit", limit).retry_after(1)
            }
            AcquireRefusal::TooManyLocks { limit, of_holder } => {
                let whose = if of_holder { "you may hold" } else { "this server keeps" };
                Problem::new(Name::TooManyLocks, format!("There are as many locks as {whose}."))
                    .with("limit", limit)
                    .retry_after(1)
            }
            AcquireRefusal::Deadlock { circle } => {
                let circle: Vec<Value> = circle
                    .iter()
                    .map(|step| {
                        let shown = self.discloses_at(&step.resource);
                        json!({
                            "waiter": shown.then_some(&step.waiter),
                            "resource": step.resource,
                            "behind": shown.then_some(&step.behind),
                            "lock_id": step.lock_id,
                        })
                    })
                    .collect();
                Problem::new(
                    Name::Deadlock,
                    format!(
                        "Waiting for {resource} would close a circle: nobody in it could go on."
                    ),
                )
                .with("circle", circle)
            }
            AcquireRefusal::KeyReused => Problem::new(
                Name::IdempotencyKeyReused,
                "This Idempotency-Key was used for another request.",
            ),
            AcquireRefusal::KeyInProgress => Problem::new(
                Name::IdempotencyInProgress,
                "The first request with this Idempotency-Key is still being decided.",
            )
            .retry_after(1),
            AcquireRefusal::Gone(ended) => gone(Some(&ended)),
            AcquireRefusal::Token(what) => match *what {
                TokenIs::NotYours => not_the_holder(),
                TokenIs::Ended(_, ended) => gone(ended.as_deref()),
                TokenIs::Unknown | TokenIs::Fits(_) | TokenIs::LiveElsewhere(_) => invalid_token(),
            },
        })
    }

    /// A refused command of a holder.
    #[must_use]
    pub fn holder(&self, refused: Refused<HolderRefusal>) -> Box<Problem> {
        let refusal = match refused {
            Refused::By(refusal) => refusal,
            Refused::Engine(error) => return self.engine_error(error),
        };
        Box::new(match refusal {
            HolderRefusal::InvalidToken => invalid_token(),
            HolderRefusal::NotTheHolder => not_the_holder(),
            HolderRefusal::Gone(_, ended) => gone(ended.as_deref()),
            HolderRefusal::Closing(lock) => {
                let (ends_at, ends_in_ms) = self.expiry(&lock);
                let mut problem = Problem::new(
                    Name::LockChanged,
                    "The lock is being broken and cannot be renewed or handed over.",
                )
                .with("ends_at", ends_at.to_string())
                .with("ends_in_ms", ends_in_ms);
                if let Some(breaking) = &lock.breaking {
                    problem =
                        problem.with("by", breaking.by.as_str()).with("reason", &*breaking.reason);
                }
                problem
            }
            HolderRefusal::TtlOutOfRange { max_ttl_ms } => ttl_out_of_range(max_ttl_ms),
            HolderRefusal::MaxHoldReached { max_hold_ms } => Problem::new(
                Name::TtlOutOfRange,
                "The lock has been held as long as its rule allows; release it and acquire again.",
            )
            .with("max_hold_seconds", seconds(max_hold_ms)),
            HolderRefusal::WritesInFlight { writes } => {
                Problem::new(Name::Locked, "Writes made under the lock are still on their way.")
                    .with("writes_in_flight", writes)
                    .retry_after(1)
            }
            HolderRefusal::NoSuchLock => gone(None),
        })
    }

    /// A refused break or request to let go.
    #[must_use]
    pub fn break_(&self, what: &str, refused: Refused<BreakRefusal>) -> Box<Problem> {
        let refusal = match refused {
            Refused::By(refusal) => refusal,
            Refused::Engine(error) => return self.engine_error(error),
        };
        Box::new(match refusal {
            BreakRefusal::Changed => {
                Problem::new(Name::LockChanged, format!("There is no such lock on {what} now."))
            }
            BreakRefusal::Ambiguous(locks) => {
                let locks: Vec<Value> = locks
                    .iter()
                    .map(|lock| {
                        let holder = self.discloses(lock).then_some(&lock.grant.holder);
                        json!({"lock_id": lock.grant.lock_id, "holder": holder,
                               "resource": lock.grant.resources.first()})
                    })
                    .collect();
                Problem::new(
                    Name::MalformedRequest,
                    format!("Several locks cover {what}: name one of them in `lock_id`."),
                )
                .with("field", "lock_id")
                .with("locks", locks)
            }
        })
    }

    /// A refused write to `resource`.
    #[must_use]
    pub fn write(&self, resource: &Resource, refused: Refused<WriteRefusal>) -> Box<Problem> {
        let refusal = match refused {
            Refused::By(refusal) => refusal,
            Refused::Engine(error) => return self.engine_error(error),
        };
        Box::new(match refusal {
            WriteRefusal::Frozen(freeze) => self.frozen(&freeze),
            WriteRefusal::ConditionFailed => {
                Problem::new(Name::PreconditionFailed, "No list of the If header is true.")
            }
            WriteRefusal::Locked(found) => self.locked(resource, &found),
            WriteRefusal::LockLost(id, ended) => lock_lost(id, ended.as_deref()),
            WriteRefusal::LockMismatch(lock) => Problem::new(
                Name::LockMismatch,
                format!("A lock that was presented does not cover this write to {resource}."),
            )
            .with("lock_id", lock.grant.lock_id.to_string())
            .with(
                "resources",
                lock.grant.resources.iter().map(Resource::as_str).collect::<Value>(),
            ),
            WriteRefusal::NotTheHolder => not_the_holder(),
            WriteRefusal::InvalidToken => invalid_token(),
            WriteRefusal::PreconditionRequired => Problem::new(
                Name::PreconditionRequired,
                format!(
                    "A write to {resource} needs a lock token, If-Match, If-None-Match or If-Unmodified-Since."
                ),
            ),
        })
    }

    fn frozen(&self, freeze: &Freeze) -> Problem {
        let wall = self.engine.clock().wall();
        let left = u64::try_from(freeze.until.0.saturating_sub(wall.0)).unwrap_or(0);
        let at = Asked::by_name(&freeze.resource);
        let unfreeze = format!("DELETE {}", at.endpoint(&format!("{}/freeze", self.lock_suffix)));
        Problem::new(
            Name::Frozen,
            format!("{} is frozen by {} until {}.", freeze.resource, freeze.by, freeze.until),
        )
        .with("freeze", self.freeze(freeze))
        .with("how_to_unlock", json!({ "unfreeze": unfreeze }))
        .retry_after(retry_seconds(left))
    }

    fn locked(&self, resource: &Resource, found: &InTheWay) -> Problem {
        let at = self.asked.map_or_else(|| Asked::by_name(resource), Clone::clone);
        let endpoint = |action: &str| at.endpoint(&format!("{}{action}", self.lock_suffix));
        let (lock, detail, wait_ms) = match (&found.lock, &found.pending) {
            (Some(lock), _) => {
                let (expires_at, left) = self.expiry(lock);
                let holder = self.discloses(lock).then(|| lock.grant.holder.clone());
                let by = holder.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
                let for_another = left.div_ceil(1000);
                let detail = format!("{resource} is locked{by} for another {for_another} s.");
                let shown = json!({
                    "lock_id": lock.grant.lock_id, "resource": lock.grant.resources.first(),
                    "kind": "lock", "dialect": lock.grant.dialect, "mode": lock.grant.mode,
                    "holder": holder, "reason": lock.grant.reason,
                    "acquired_at": lock.grant.acquired_at,
                    "expires_at": expires_at, "expires_in_ms": left,
                });
                (shown, detail, left)
            }
            (None, Some(pending)) => {
                let holder = self.discloses_at(&pending.resource).then(|| pending.holder.clone());
                let detail = format!(
                    "{resource} is about to be locked: the lock waits for writes under way."
                );
                let shown = json!({
                    "kind": "pending", "resource": pending.resource, "holder": holder,
                });
                (shown, detail, 0)
            }
            (None, None) => {
                let detail = if found.queue_ahead > 0 {
                    format!("{} wait for {resource} before you.", found.queue_ahead)
                } else {
                    format!("Writes to {resource} are still on their way.")
                };
                (Value::Null, detail, 0)
            }
        };
        let wait = retry_seconds(wait_ms);
        let mut problem = Problem::new(Name::Locked, detail)
            .with("lock", lock)
            .with("locks_in_the_way", found.locks)
            .with("held_by_you", found.held_by_you)
            .with(
                "how_to_unlock",
                json!({
                    "wait": format!("try again in {wait} s, or acquire with Prefer: wait=30"),
                    "inspect": format!("GET {}", endpoint("")),
                    "request": format!("POST {}", endpoint("/request")),
                    "break": format!("POST {}", endpoint("/break")),
                }),
            )
            .retry_after(wait);
        if found.queue_ahead > 0 {
            problem = problem.with("queue_ahead", found.queue_ahead);
        }
        if found.writes_in_flight > 0 {
            problem = problem.with("writes_in_flight", found.writes_in_flight);
        }
        if !found.presented.is_empty() {
            let presented: Vec<Value> = found.presented.iter().map(token_is).collect();
            problem = problem.with("presented", presented);
        }
        // A canonical path has no byte that a header field could not carry.
        if let Ok(link) = HeaderValue::from_str(&format!("<{}>; rel=\"lock\"", endpoint(""))) {
            problem = problem.header(LINK, link);
        }
        problem
    }
}

/// Who asked the holder to let go, if somebody did.
#[must_use]
pub fn requested_by(lock: &Lock) -> Option<Value> {
    lock.requested
        .as_ref()
        .map(|let_go| json!({ "by": let_go.by, "message": let_go.message, "at": let_go.at }))
}

/// Milliseconds as seconds: a whole number where it is one.
#[must_use]
pub fn seconds(ms: u64) -> Value {
    if ms.is_multiple_of(1000) {
        (ms / 1000).into()
    } else {
        Duration::from_millis(ms).as_secs_f64().into()
    }
}

/// `Retry-After` for something that ends in `ms`: rounded up, at least 1, at most 60.
#[must_use]
pub fn retry_seconds(ms: u64) -> u64 {
    ms.div_ceil(1000).clamp(1, RETRY_MAX)
}

/// No answer of the engine, as a problem.
#[must_use]
pub fn engine_error(error: EngineError) -> Problem {
    match error {
        EngineError::StorageFailure => Problem::new(
            Name::StorageFailure,
            "The journal failed while this was being written down: whether it took effect is not \
             known. Ask again with the same Idempotency-Key.",
        )
        .retry_after(1),
        EngineError::Unavailable => Problem::new(
            Name::Unavailable,
            "The journal does not work at the moment; nothing was done.",
        )
        .retry_after(1),
        EngineError::ShuttingDown => {
            Problem::new(Name::Unavailable, "The server is shutting down; nothing was done.")
                .retry_after(2)
        }
        EngineError::ExpiredBeforeTold => Problem::new(
            Name::Unavailable,
            "The lock expired before its grant could be told: the journal is slow.",
        )
        .retry_after(1),
    }
}

fn ttl_out_of_range(max_ttl_ms: u64) -> Problem {
    let max = seconds(max_ttl_ms);
    Problem::new(Name::TtlOutOfRange, format!("The TTL has to be from 1 to {max} seconds."))
        .with("max_ttl_seconds", max)
}

/// The token was never issued here, or for other resources.
#[must_use]
pub fn invalid_token() -> Problem {
    Problem::new(Name::InvalidLockToken, "The lock token was not issued for this.")
}

fn not_the_holder() -> Problem {
    Problem::new(Name::NotTheHolder, "The lock token is another principal's.")
}

fn ended_members(mut problem: Problem, ended: Option<&Ended>) -> Problem {
    let Some(ended) = ended else { return problem.with("ended", "unknown") };
    problem = problem
        .with("lock_id", ended.lock_id.to_string())
        .with("ended", ended.ending.as_str())
        .with("ended_at", ended.at.to_string());
    match &ended.ending {
        Ending::Broken(breaking) => {
            problem.with("by", breaking.by.as_str()).with("reason", &*breaking.reason)
        }
        Ending::Transferred { to, .. } => problem.with("to", to.as_str()),
        Ending::Expired | Ending::Released => problem,
    }
}

fn how_it_ended(ended: Option<&Ended>) -> &'static str {
    match ended.map(|ended| &ended.ending) {
        Some(Ending::Expired) => "it expired",
        Some(Ending::Released) => "it was released",
        Some(Ending::Broken(_)) => "it was broken",
        Some(Ending::Transferred { .. }) => "it was handed over",
        None => "how is no longer known",
    }
}

/// `410 lock-gone`.
#[must_use]
pub fn gone(ended: Option<&Ended>) -> Problem {
    let detail = format!("The lock has ended: {}.", how_it_ended(ended));
    ended_members(Problem::new(Name::LockGone, detail), ended)
}

fn lock_lost(id: LockId, ended: Option<&Ended>) -> Problem {
    let detail = format!(
        "A lock that was presented has ended ({}): what was read under it may have changed.",
        how_it_ended(ended)
    );
    ended_members(Problem::new(Name::LockLost, detail).with("lock_id", id.to_string()), ended)
}

fn token_is(what: &TokenIs) -> Value {
    match what {
        TokenIs::Fits(id) => json!({ "lock_id": id, "state": "fits" }),
        TokenIs::LiveElsewhere(id) => json!({ "lock_id": id, "state": "live-elsewhere" }),
        TokenIs::Ended(id, ended) => {
            let (how, at) = match ended {
                Some(ended) => (ended.ending.as_str(), Some(ended.at)),
                None => ("unknown", None),
            };
            json!({ "lock_id": id, "state": "ended", "ended": how, "ended_at": at })
        }
        TokenIs::NotYours => json!({ "state": "not-yours" }),
        TokenIs::Unknown => json!({ "state": "unknown" }),
    }
}

/// The name that a refused write is told under.
#[must_use]
pub fn write_refusal_name(refusal: &WriteRefusal) -> Name {
    match refusal {
        WriteRefusal::Frozen(_) => Name::Frozen,
        WriteRefusal::ConditionFailed => Name::PreconditionFailed,
        WriteRefusal::Locked(_) => Name::Locked,
        WriteRefusal::LockLost(..) => Name::LockLost,
        WriteRefusal::LockMismatch(_) => Name::LockMismatch,
        WriteRefusal::NotTheHolder => Name::NotTheHolder,
        WriteRefusal::InvalidToken => Name::InvalidLockToken,
        WriteRefusal::PreconditionRequired => Name::PreconditionRequired,
    }
}

/// Counts the refusal of a request to a resource, for the trail.
pub fn count_refusal(engine: &Engine, resource: &Resource, problem: &Problem, method: &Method) {
    // Reads that find nothing say nothing about conflicts.
    if problem.name == Name::NotFound && is_safe(method) {
        return;
    }
    let lock = problem.members.get("lock");
    let holder = lock.and_then(|lock| lock.get("holder")?.as_str().map(Principal::new));
    engine.count_refusal(Some(resource.clone()), holder, problem.name.entry().name);
}
