//! Refusals, told as problems: the one place that pairs a refusal with a name and its members.
//!
//! A dialect that says it otherwise has one such match of its own.

use http::header::LINK;
use http::{HeaderValue, Method};
use leasehold_core::caller::{Caller, Permission};
use leasehold_core::ids::{LockId, Principal};
use leasehold_core::json::{self, Members};
use leasehold_core::lock::{Ended, Ending, Freeze, Lock};
use leasehold_core::refusal::{
    AcquireRefusal, BreakRefusal, HolderRefusal, InTheWay, TokenIs, WriteRefusal,
};
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use leasehold_engine::{Engine, EngineError, Refused};
use leasehold_problems::{InTheWay as Told, Name, Problem};
use serde_json::{Value, json};

use crate::method::is_safe;
use crate::rules::{Asked, Rules};
use crate::shown::{Shown, seconds};

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
        let by_name;
        let at = match self.asked {
            Some(asked) => asked,
            None => {
                by_name = Asked::by_name(resource);
                &by_name
            }
        };
        let (mut holder, mut at_stake) = (None, None);
        let mut lock = Vec::with_capacity(512);
        let (detail, wait_ms) = match (&found.lock, &found.pending) {
            (Some(in_the_way), _) => {
                let expiry = self.expiry(in_the_way);
                let first = in_the_way.grant.resources.first();
                at_stake = Some(first.map(ToString::to_string).unwrap_or_default());
                holder = self.discloses(in_the_way).then_some(&in_the_way.grant.holder);
                write_in_the_way(&mut lock, in_the_way, holder, expiry);
                let seconds = expiry.1.div_ceil(1000).to_string();
                let (by, name) = holder.map_or(("", ""), |holder| (" by ", holder.as_str()));
                let parts =
                    [resource.as_str(), " is locked", by, name, " for another ", &seconds, " s."];
                (parts.concat(), expiry.1)
            }
            (None, Some(pending)) => {
                holder = self.discloses_at(&pending.resource).then_some(&pending.holder);
                at_stake = Some(pending.resource.to_string());
                let shown = json!({
                    "kind": "pending", "resource": pending.resource, "holder": holder,
                });
                lock.extend_from_slice(shown.to_string().as_bytes());
                let detail = format!(
                    "{resource} is about to be locked: the lock waits for writes under way."
                );
                (detail, 0)
            }
            (None, None) => {
                let detail = if found.queue_ahead > 0 {
                    format!("{} wait for {resource} before you.", found.queue_ahead)
                } else {
                    format!("Writes to {resource} are still on their way.")
                };
                (detail, 0)
            }
        };
        let wait = retry_seconds(wait_ms);
        let mut problem = Problem::new(Name::Locked, detail).retry_after(wait);
        problem.lock = at_stake.map(|resource| {
            let holder = holder.map(ToString::to_string);
            Box::new(Told { resource, holder, written: lock })
        });
        problem.written = self.way_out(found, at, wait);
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
        let (path, mark, query) = at.around();
        let link = ["<", path, self.lock_suffix, mark, query, ">; rel=\"lock\""].concat();
        if let Ok(link) = HeaderValue::try_from(link) {
            problem = problem.header(LINK, link);
        }
        problem
    }

    /// The members that each `locked` has beside the lock in the way.
    fn way_out(&self, found: &InTheWay, at: &Asked, wait: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        let mut members = Members::of(&mut out);
        json::number(members.member("locks_in_the_way"), found.locks as u64);
        let held_by_you: &[u8] = if found.held_by_you { b"true" } else { b"false" };
        members.member("held_by_you").extend_from_slice(held_by_you);
        let ways = members.member("how_to_unlock");
        ways.push(b'{');
        let mut way = Members::of(ways);
        let seconds = wait.to_string();
        let wait = ["try again in ", &seconds, " s, or acquire with Prefer: wait=30"];
        json::text_of(way.member("wait"), &wait);
        let (path, mark, query) = at.around();
        for (name, method, action) in [
            ("inspect", "GET ", ""),
            ("request", "POST ", "/request"),
            ("break", "POST ", "/break"),
        ] {
            let endpoint = [method, path, self.lock_suffix, action, mark, query];
            json::text_of(way.member(name), &endpoint);
        }
        out.push(b'}');
        out
    }
}

/// Appends what is told of a lock that is in somebody's way.
fn write_in_the_way(
    out: &mut Vec<u8>,
    lock: &Lock,
    holder: Option<&Principal>,
    (expires_at, expires_in_ms): (WallTime, u64),
) {
    let grant = &lock.grant;
    out.push(b'{');
    let mut members = Members::of(out);
    json::id(members.member("lock_id"), grant.lock_id.0);
    let resource = grant.resources.first().map(Resource::as_str);
    json::text_or_null(members.member("resource"), resource);
    json::text(members.member("kind"), "lock");
    json::text(members.member("dialect"), grant.dialect.as_str());
    json::text(members.member("mode"), grant.mode.as_str());
    json::text_or_null(members.member("holder"), holder.map(Principal::as_str));
    json::text_or_null(members.member("reason"), grant.reason.as_deref());
    json::time(members.member("acquired_at"), grant.acquired_at);
    json::time(members.member("expires_at"), expires_at);
    json::number(members.member("expires_in_ms"), expires_in_ms);
    out.push(b'}');
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
    let holder = problem.lock.as_ref().and_then(|lock| lock.holder.as_deref().map(Principal::new));
    engine.count_refusal(Some(resource.clone()), holder, problem.name.entry().name);
}
