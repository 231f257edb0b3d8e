//! Scripts: one command a line, with the time it comes at and what must come of it.
//!
//! ```text
//! 0s    alice acquires /flags/x 10s      -> fence 1
//! 9.9s  bob   acquires /flags/x 10s      -> locked by 1
//! ```
//!
//! Before each command the table ends what is due, unless the line says `lazily`. What comes of
//! parked commands stands in the same line, before the outcome if the tick brought it and after it
//! if the command did: `-> bob: fence 2 | locked`. An expectation may leave out the end of an
//! outcome; a `.` as its last word says that it does not. Locks are named by their fences.

// These are tests, but their helpers are functions of their own.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_core::acquire::{Acquired, fold_set};
use leasehold_core::caller::{Caller, Permissions, Role};
use leasehold_core::command::{
    Acquire, AcquireLimits, Address, BreakLock, Check, IfList, Presented, Release, Renew, Request,
    SetFreeze, Transfer, Want, Write,
};
use leasehold_core::event::{Event, EventBody, Origin, WriteResult};
use leasehold_core::holder::Transferring;
use leasehold_core::ids::{Fence, LockId, PinId, Principal, Seq, WaiterId};
use leasehold_core::lock::{Depth, Ended, Idempotency, Lock, Mode};
use leasehold_core::refusal::{
    AcquireRefusal, BreakRefusal, HolderRefusal, InTheWay, TokenIs, WriteRefusal,
};
use leasehold_core::resource::Resource;
use leasehold_core::state::State;
use leasehold_core::table::{Granted, LockTable, TableLimits, Woken};
use leasehold_core::target::Target;
use leasehold_core::time::{LeaseTime, Now, WallTime};
use uuid::Uuid;

/// The wall clock where a script's time is 0.
const WALL: i64 = 1_795_176_000_000;

/// Runs a script on an empty table.
pub(crate) fn check(script: &str) {
    check_with(TableLimits::default(), script);
}

/// The same with limits of the whole table.
#[allow(dead_code)] // Few scripts have limits of their own.
pub(crate) fn check_with(limits: TableLimits, script: &str) {
    let mut bench = Bench {
        table: LockTable::new(State::new(7), limits, 7),
        now: Now { lease: LeaseTime(0), wall: WallTime(WALL) },
        ids: BTreeMap::new(),
        fences: BTreeMap::new(),
        waiters: BTreeMap::new(),
        pins: BTreeMap::new(),
        rests_on: BTreeMap::new(),
        trail: Vec::new(),
        durable: Seq(0),
        next_id: 1,
    };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        bench.line(line);
    }
}

struct Bench {
    table: LockTable,
    now: Now,
    ids: BTreeMap<Fence, LockId>,
    fences: BTreeMap<LockId, Fence>,
    waiters: BTreeMap<WaiterId, String>,
    pins: BTreeMap<String, PinId>,
    rests_on: BTreeMap<String, u64>,
    trail: Vec<Event>,
    durable: Seq,
    next_id: u128,
}

/// The words of a command after its verb.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn after(&self, word: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|each| *each == word)?;
        self.0.get(at + 1).copied()
    }

    fn ms_after(&self, word: &str) -> Option<u64> {
        self.after(word).map(ms)
    }

    fn number_after(&self, word: &str) -> Option<u64> {
        self.after(word).map(|text| text.parse().unwrap())
    }
}

fn ms(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap());
    let number: f64 = number.parse().unwrap();
    let unit = match unit {
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        _ => panic!("no unit of time: {text}"),
    };
    (number * unit).round() as u64
}

fn seconds(ms: u64) -> String {
    format!("{}s", ms as f64 / 1000.0)
}

fn resource(path: &str) -> Resource {
    Resource::parse(path).unwrap()
}

fn caller(name: &str) -> Caller {
    if name == "anonymous" {
        return Caller::anonymous();
    }
    let roles = Arc::from([Role { permissions: Permissions::ALL, patterns: Vec::new() }]);
    Caller { principal: Principal::new(name), anonymous: false, roles }
}

impl Bench {
    fn line(&mut self, line: &str) {
        let (command, expected) = line.split_once("->").unwrap_or((line, ""));
        let mut words: Vec<&str> = command.split_whitespace().collect();
        let at = ms(words.remove(0));
        assert!(self.now.lease.0 <= at, "time goes back: {line}");
        self.now = Now { lease: LeaseTime(at), wall: WallTime(WALL + at as i64) };
        let mut found = Vec::new();
        if words.first() == Some(&"lazily") {
            words.remove(0);
        } else {
            while self.table.tick(self.now, usize::MAX) {}
            self.settle(&mut found);
        }
        if !words.is_empty() {
            let outcome = self.command(&words);
            let mut after = Vec::new();
            self.settle(&mut after);
            // The name of a lock is known once its event has been seen.
            found.push(self.say(outcome));
            found.extend(after);
        }
        let expected: Vec<&str> = match expected.trim() {
            "" => Vec::new(),
            expected => expected.split('|').map(str::trim).collect(),
        };
        let fits = expected.len() == found.len()
            && expected.iter().zip(&found).all(|(expected, found)| outcome_fits(expected, found));
        assert!(
            fits,
            "\n    line {line}\nexpected {}\n   found {}",
            expected.join(" | "),
            found.join(" | ")
        );
    }

    /// Takes the events and wakes that have come, and checks the invariants.
    fn settle(&mut self, found: &mut Vec<String>) {
        for event in self.table.take_events() {
            if let EventBody::Acquired(grant) | EventBody::Transferred { to: grant, .. } =
                &event.body
            {
                self.ids.insert(grant.fence, grant.lock_id);
                self.fences.insert(grant.lock_id, grant.fence);
            }
            self.trail.push(event);
        }
        for (waiter, woken) in self.table.take_wakes() {
            let name = self.waiters.remove(&waiter).unwrap_or_else(|| format!("{waiter:?}"));
            let outcome = match woken {
                Woken::Granted(granted) | Woken::Transferred(granted) => Said::Granted(granted),
                Woken::Refused(refusal) => Said::Acquire(*refusal),
                Woken::NotTransferred(refusal) => Said::Holder(*refusal),
                Woken::Frozen { writes_in_flight } => {
                    Said::Text(format!("frozen writes {writes_in_flight}"))
                }
            };
            let outcome = self.say(outcome);
            found.push(format!("{name}: {outcome}"));
        }
        self.table.assert_invariants(self.now);
    }

    fn fresh_id(&mut self) -> LockId {
        self.next_id += 1;
        LockId(Uuid::from_u128(self.next_id))
    }

    fn token(&self, text: &str) -> Presented {
        if text == "forged" {
            return Presented::Forged;
        }
        let fence = Fence(text.trim_end_matches('!').parse().unwrap());
        let lock_id = self.ids[&fence];
        // `1!`: the name of lock 1 with a fence that it never had.
        Presented::Token { lock_id, fence: if text.ends_with('!') { Fence(999) } else { fence } }
    }

    fn tokens(&self, words: &Words<'_>, word: &str) -> Vec<Presented> {
        let list = words.after(word).into_iter().flat_map(|list| list.split(','));
        list.map(|text| self.token(text)).collect()
    }

    fn address(&self, text: &str) -> Address {
        match text.strip_prefix("id:") {
            Some(fence) => Address::Id(self.ids[&Fence(fence.parse().unwrap())]),
            None => Address::Resource(resource(text)),
        }
    }

    fn command(&mut self, words: &[&str]) -> Said {
        let now = self.now;
        match words {
            ["settles"] => {
                self.durable = self.table.state().seq();
                self.table.settled(self.durable);
                return Said::Text("settled".to_owned());
            }
            ["fails"] => {
                self.fail();
                return Said::Text("loaded again".to_owned());
            }
            ["recovers", "for", span] => {
                self.table.await_recovery(ms(span), now);
                return Said::Text("recovers".to_owned());
            }
            ["ticks", budget] => {
                let more = self.table.tick(now, budget.parse().unwrap());
                return Said::Text(if more { "more" } else { "done" }.to_owned());
            }
            ["undelivered", fence] => {
                let lock_id = self.ids[&Fence(fence.parse().unwrap())];
                self.table.undelivered(lock_id, now);
                return Said::Text("noted".to_owned());
            }
            ["lock", fence] => {
                let lock_id = self.ids[&Fence(fence.parse().unwrap())];
                let lock = self.table.lock(lock_id, now);
                return Said::Text(lock.map_or("none".to_owned(), |lock| show(&lock)));
            }
            _ => {}
        }
        let (who, verb, rest) = (words[0], words[1], Words(words[2..].to_vec()));
        let on = rest.0.first().copied().unwrap_or("");
        let caller = caller(who);
        let origin = Origin { actor: Some(caller.principal.clone()), ..Origin::default() };
        let label = rest.after("as").unwrap_or(who).to_owned();
        match verb {
            "acquires" => self.acquire(caller, origin, label, &rest),
            "renews" => {
                let ttl_ms = rest.ms_after("for");
                let tokens = self.tokens(&rest, "fence");
                let command = Renew { caller, origin, address: self.address(on), tokens, ttl_ms };
                match self.table.renew(&command, now) {
                    Ok(lock) => Said::Text(show(&lock)),
                    Err(refusal) => Said::Holder(refusal),
                }
            }
            "releases" => {
                let tokens = self.tokens(&rest, "fence");
                let command = Release { caller, origin, address: self.address(on), tokens };
                match self.table.release(&command, now) {
                    Ok(_) => Said::Text("released".to_owned()),
                    Err(refusal) => Said::Holder(refusal),
                }
            }
            "transfers" => {
                let command = Transfer {
                    caller,
                    origin,
                    address: self.address(on),
                    tokens: self.tokens(&rest, "fence"),
                    lock_id: self.fresh_id(),
                    to: Principal::new(rest.after("to").unwrap()),
                    drain_wait_ms: rest.ms_after("drain").unwrap_or(5000),
                };
                match self.table.transfer(command, now) {
                    Ok(Transferring::Done(granted)) => Said::Granted(granted),
                    Ok(Transferring::Parked(waiter)) => self.parked(waiter, label),
                    Err(refusal) => Said::Holder(refusal),
                }
            }
            "requests" => {
                let message = Some(Arc::from("please"));
                let command = Request { caller, origin, resource: resource(on), message };
                match self.table.request(&command, now) {
                    Ok(asked) => Said::Asked(asked),
                    Err(refusal) => Said::Break(refusal),
                }
            }
            "breaks" | "previews" => {
                let command = BreakLock {
                    caller,
                    origin,
                    address: self.address(on),
                    lock_id: rest.number_after("lock").map(|fence| self.ids[&Fence(fence)]),
                    reason: Arc::from("why not"),
                    grace_ms: rest.ms_after("grace").unwrap_or(0),
                };
                if verb == "previews" {
                    return match self.table.preview_break(&command, now) {
                        Ok(preview) => {
                            let queue: Vec<&str> =
                                preview.queue.iter().map(|each| each.holder.as_str()).collect();
                            Said::Text(format!(
                                "would end {} writes {} queue {}",
                                preview.lock.grant.fence,
                                preview.writes_in_flight,
                                queue.join(",")
                            ))
                        }
                        Err(refusal) => Said::Break(refusal),
                    };
                }
                match self.table.break_lock(&command, now) {
                    Ok(broken) => Said::Text(format!(
                        "broken {} at {}",
                        broken.lock.grant.fence,
                        seconds(broken.ends_at.0)
                    )),
                    Err(refusal) => Said::Break(refusal),
                }
            }
            "freezes" => {
                let command = SetFreeze {
                    caller,
                    origin,
                    resource: resource(on),
                    reason: Arc::from("audit"),
                    until: WallTime(WALL + rest.ms_after("until").unwrap() as i64),
                    drain_wait_ms: rest.ms_after("drain").unwrap_or(5000),
                };
                match self.table.freeze(&command, now) {
                    (_, None) => Said::Text("frozen".to_owned()),
                    (_, Some(waiter)) => self.parked(waiter, label),
                }
            }
            "unfreezes" => {
                let lifted = self.table.unfreeze(&resource(on), origin, now);
                Said::Text(if lifted { "lifted" } else { "not frozen" }.to_owned())
            }
            "writes" | "checks" => self.write(caller, origin, label, verb == "checks", &rest),
            "ends" => {
                let result = match on {
                    "" => WriteResult::Answered(200),
                    "unknown" => WriteResult::Unknown,
                    _ => WriteResult::NotSent,
                };
                let pin = self.pins.remove(who).unwrap();
                self.table.complete(pin, result, now);
                Said::Text("ended".to_owned())
            }
            "leaves" => {
                let (&waiter, _) = self.waiters.iter().find(|(_, name)| *name == who).unwrap();
                self.table.leave(waiter, now);
                self.waiters.remove(&waiter);
                Said::Text("left".to_owned())
            }
            "looks" => {
                let inspection = self.table.inspect(&resource(on), now);
                let fences = |fences: Vec<String>| {
                    if fences.is_empty() { "none".to_owned() } else { fences.join(",") }
                };
                let locks = fences(
                    inspection.locks.iter().map(|lock| lock.grant.fence.to_string()).collect(),
                );
                let place = |granted| if granted { "!" } else { "" };
                let queue = fences(
                    inspection
                        .queue
                        .iter()
                        .map(|each| format!("{}{}", each.holder, place(each.granted)))
                        .collect(),
                );
                let freeze =
                    inspection.freeze.map_or("no".to_owned(), |freeze| freeze.resource.to_string());
                Said::Text(format!("locks {locks} queue {queue} freeze {freeze}"))
            }
            _ => panic!("no such verb: {verb}"),
        }
    }

    /// A commit fails, and whatever has come since everything was settled never was.
    fn fail(&mut self) {
        let durable = self.durable;
        self.trail.retain(|event| event.seq <= durable);
        let mut state = State::new(7);
        self.trail.iter().for_each(|event| state.apply(event));
        let empty = LockTable::new(State::new(7), TableLimits::default(), 7);
        let before = std::mem::replace(&mut self.table, empty);
        self.table = before.reloaded(state, durable, 7);
        self.waiters.clear();
    }

    fn acquire(
        &mut self,
        caller: Caller,
        origin: Origin,
        label: String,
        words: &Words<'_>,
    ) -> Said {
        let depth = if words.has("depth0") { Depth::Zero } else { Depth::Infinity };
        let (any_of, list) = match words.0[0].strip_prefix("any:") {
            Some(list) => (true, list),
            None => (false, words.0[0]),
        };
        let resources: Vec<Resource> = list.split(',').map(resource).collect();
        let want = if any_of {
            Want::AnyOf(resources.into())
        } else {
            Want::All(fold_set(&resources, depth))
        };
        let idempotency = words.after("key").map(|key| Idempotency {
            key: Arc::from(key),
            digest: Arc::from(words.after("body").unwrap_or(list)),
        });
        let command = Acquire {
            caller,
            origin,
            lock_id: self.fresh_id(),
            want,
            mode: if words.has("shared") { Mode::Shared } else { Mode::Exclusive },
            depth,
            ttl_ms: words
                .0
                .get(1)
                .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
                .map(|word| ms(word)),
            reason: None,
            metadata: None,
            handle: None,
            idempotency,
            holds: self.tokens(words, "holds"),
            wait_ms: words.ms_after("wait").unwrap_or(0),
            limits: AcquireLimits {
                default_ttl_ms: 300_000,
                max_ttl_ms: words.ms_after("max").unwrap_or(1_800_000),
                max_hold_ms: words.ms_after("hold").or(Some(86_400_000)),
                max_queue: words.number_after("queue").map_or(1000, |number| number as usize),
                max_locks_per_holder: words.number_after("each"),
                drain_wait_ms: words.ms_after("drain").unwrap_or(5000),
            },
        };
        match self.table.acquire(command, self.now) {
            Ok(Acquired::Granted(granted)) => Said::Granted(granted),
            Ok(Acquired::Parked(waiter)) => self.parked(waiter, label),
            Err(refusal) => Said::Acquire(refusal),
        }
    }

    fn parked(&mut self, waiter: WaiterId, label: String) -> Said {
        self.waiters.insert(waiter, label);
        Said::Text("waits".to_owned())
    }

    fn write(
        &mut self,
        caller: Caller,
        origin: Origin,
        label: String,
        only_checks: bool,
        words: &Words<'_>,
    ) -> Said {
        let target = |text: &str| match text.split_once(':') {
            Some(("members", path)) => Target::Members(resource(path)),
            Some(("subtree", path)) => Target::Subtree(resource(path)),
            _ => Target::Content(resource(text)),
        };
        let targets: Vec<Target> = words.0[0].split('+').map(target).collect();
        // `if /a:1,not2;/b:true`: two lists.
        let list = |text: &str| {
            let (path, checks) = text.split_once(':').unwrap();
            let check = |text: &str| {
                let (negated, text) =
                    text.strip_prefix("not").map_or((false, text), |rest| (true, rest));
                let check = match text {
                    "true" => Check::Known(true),
                    "false" => Check::Known(false),
                    token => Check::Token(self.token(token)),
                };
                (negated, check)
            };
            IfList { resource: resource(path), checks: checks.split(',').map(check).collect() }
        };
        let write = Write {
            caller,
            origin,
            method: Arc::from("PUT"),
            resource: targets[0].resource().clone(),
            conditions: words
                .after("if")
                .map_or(Vec::new(), |lists| lists.split(';').map(list).collect()),
            targets,
            tokens: self.tokens(words, "fence"),
            lacks_precondition: words.has("bare"),
        };
        if only_checks {
            return match self.table.check(&write, self.now) {
                Ok(()) => Said::Text("may pass".to_owned()),
                Err(refusal) => Said::Write(refusal),
            };
        }
        match self.table.admit(&write, self.now) {
            Ok(admitted) => {
                self.pins.insert(label.clone(), admitted.pin);
                self.rests_on.insert(label, admitted.rests_on.0);
                let mut said = format!("admitted rests on {}", admitted.rests_on);
                if let Some(first) = admitted.admission {
                    said += &format!(" admission {first}");
                }
                if let Some(requested) = admitted.requested {
                    said += &format!(" requested by {}", requested.by);
                }
                Said::Text(said)
            }
            Err(refusal) => Said::Write(refusal),
        }
    }

    // ---- outcomes as text --------------------------------------------------------------------

    fn say(&self, said: Said) -> String {
        match said {
            Said::Text(text) => text,
            Said::Granted(Granted { lock, replayed }) => {
                let word = if replayed { "again" } else { "fence" };
                let unknown = if lock.grant.predecessor_unknown { "unknown " } else { "" };
                format!("{unknown}{word} {}", show(&lock))
            }
            Said::Asked(asked) => {
                let asked: Vec<String> =
                    asked.iter().map(|id| self.fences[id].to_string()).collect();
                format!("asked {}", asked.join(","))
            }
            Said::Acquire(refusal) => self.acquire_refusal(&refusal),
            Said::Holder(refusal) => self.holder_refusal(&refusal),
            Said::Break(BreakRefusal::Changed) => "lock-changed".to_owned(),
            Said::Break(BreakRefusal::Ambiguous(locks)) => {
                let fences: Vec<String> =
                    locks.iter().map(|lock| lock.grant.fence.to_string()).collect();
                format!("ambiguous {}", fences.join(","))
            }
            Said::Write(refusal) => self.write_refusal(&refusal),
        }
    }

    fn acquire_refusal(&self, refusal: &AcquireRefusal) -> String {
        match refusal {
            AcquireRefusal::TtlOutOfRange { max_ttl_ms } => {
                format!("ttl-out-of-range {}", seconds(*max_ttl_ms))
            }
            AcquireRefusal::Frozen(freeze) => format!("frozen at {}", freeze.resource),
            AcquireRefusal::Locked(found) => self.locked(found),
            AcquireRefusal::QueueFull { resource } => format!("queue-full {resource}"),
            AcquireRefusal::TooManyWaiters { limit, of_principal } => {
                format!("too-many-waiters {limit} {}", if *of_principal { "each" } else { "all" })
            }
            AcquireRefusal::TooManyLocks { limit, of_holder } => {
                format!("too-many-locks {limit} {}", if *of_holder { "each" } else { "all" })
            }
            AcquireRefusal::Deadlock { circle } => {
                let steps: Vec<String> = circle
                    .iter()
                    .map(|step| {
                        let on = step
                            .lock_id
                            .map_or("queue".to_owned(), |id| self.fences[&id].to_string());
                        format!("{}>{}({on})", step.waiter, step.behind)
                    })
                    .collect();
                format!("deadlock {}", steps.join(" "))
            }
            AcquireRefusal::KeyReused => "key-reused".to_owned(),
            AcquireRefusal::KeyInProgress => "key-in-progress".to_owned(),
            AcquireRefusal::Gone(ended) => format!("gone {}", how(ended)),
            AcquireRefusal::Token(token) => format!("token {}", self.token_is(token)),
        }
    }

    fn locked(&self, found: &InTheWay) -> String {
        let mut said = "locked".to_owned();
        if let Some(lock) = &found.lock {
            said += &format!(" by {}", lock.grant.fence);
        }
        if found.locks > 1 {
            said += &format!(" of {}", found.locks);
        }
        if found.held_by_you {
            said += " yours";
        }
        if found.queue_ahead > 0 {
            said += &format!(" behind {}", found.queue_ahead);
        }
        if let Some(pending) = &found.pending {
            said += &format!(" pending {}", pending.holder);
        }
        if found.writes_in_flight > 0 {
            said += &format!(" writes {}", found.writes_in_flight);
        }
        if found.waited_ms > 0 {
            said += &format!(" waited {}", seconds(found.waited_ms));
        }
        if !found.presented.is_empty() {
            let tokens: Vec<String> =
                found.presented.iter().map(|token| self.token_is(token)).collect();
            said += &format!(" presented {}", tokens.join(","));
        }
        said
    }

    fn token_is(&self, token: &TokenIs) -> String {
        match token {
            TokenIs::Fits(id) => format!("{}:fits", self.fences[id]),
            TokenIs::LiveElsewhere(id) => format!("{}:live", self.fences[id]),
            TokenIs::Ended(id, None) => format!("{}:ended", self.fences[id]),
            TokenIs::Ended(id, Some(ended)) => format!("{}:{}", self.fences[id], how(ended)),
            TokenIs::NotYours => "not-yours".to_owned(),
            TokenIs::Unknown => "unknown".to_owned(),
        }
    }

    fn gone(&self, lock_id: LockId, ended: Option<&Ended>) -> String {
        format!("{} {}", self.fences[&lock_id], ended.map_or("unknown", how))
    }

    fn holder_refusal(&self, refusal: &HolderRefusal) -> String {
        match refusal {
            HolderRefusal::InvalidToken => "invalid-token".to_owned(),
            HolderRefusal::NotTheHolder => "not-the-holder".to_owned(),
            HolderRefusal::Gone(id, ended) => format!("gone {}", self.gone(*id, ended.as_deref())),
            HolderRefusal::Closing(lock) => format!("closing {}", show(lock)),
            HolderRefusal::TtlOutOfRange { max_ttl_ms } => {
                format!("ttl-out-of-range {}", seconds(*max_ttl_ms))
            }
            HolderRefusal::MaxHoldReached { max_hold_ms } => {
                format!("max-hold {}", seconds(*max_hold_ms))
            }
            HolderRefusal::WritesInFlight { writes } => format!("writes {writes}"),
            HolderRefusal::NoSuchLock => "no-such-lock".to_owned(),
        }
    }

    fn write_refusal(&self, refusal: &WriteRefusal) -> String {
        match refusal {
            WriteRefusal::Frozen(freeze) => format!("frozen at {}", freeze.resource),
            WriteRefusal::ConditionFailed => "condition-failed".to_owned(),
            WriteRefusal::Locked(found) => self.locked(found),
            WriteRefusal::LockLost(id, ended) => {
                format!("lock-lost {}", self.gone(*id, ended.as_deref()))
            }
            WriteRefusal::LockMismatch(lock) => format!("lock-mismatch {}", lock.grant.fence),
            WriteRefusal::NotTheHolder => "not-the-holder".to_owned(),
            WriteRefusal::InvalidToken => "invalid-token".to_owned(),
            WriteRefusal::PreconditionRequired => "precondition-required".to_owned(),
        }
    }
}

enum Said {
    Text(String),
    Granted(Granted),
    Asked(Vec<LockId>),
    Acquire(AcquireRefusal),
    Holder(HolderRefusal),
    Break(BreakRefusal),
    Write(WriteRefusal),
}

fn how(ended: &Ended) -> &'static str {
    ended.ending.as_str()
}

fn show(lock: &Lock) -> String {
    let resources: Vec<&str> = lock.grant.resources.iter().map(Resource::as_str).collect();
    let mut said = format!(
        "{} {} {} until {}",
        lock.grant.fence,
        resources.join(","),
        lock.grant.holder,
        seconds(lock.deadline.0)
    );
    if lock.grant.waited_ms > 0 {
        said += &format!(" waited {}", seconds(lock.grant.waited_ms));
    }
    if lock.breaking.is_some() {
        said += " breaking";
    }
    if let Some(requested) = &lock.requested {
        said += &format!(" requested by {}", requested.by);
    }
    said
}

fn outcome_fits(expected: &str, found: &str) -> bool {
    let mut expected: Vec<&str> = expected.split_whitespace().collect();
    let found: Vec<&str> = found.split_whitespace().collect();
    let is_exact = expected.last() == Some(&".");
    if is_exact {
        expected.pop();
    }
    found.starts_with(&expected) && (!is_exact || found.len() == expected.len())
}
