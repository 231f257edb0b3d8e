//! The table and the naive one side by side.

use std::fmt::Debug;
use std::sync::Arc;

use leasehold_core::acquire::{Acquired, fold_set};
use leasehold_core::caller::Caller;
use leasehold_core::command::{
    Acquire, AcquireLimits, Address, BreakLock, Presented, Release, Renew, Request, SetFreeze,
    Transfer, Want, Write,
};
use leasehold_core::event::{Event, EventBody, Origin, WriteResult};
use leasehold_core::holder::Transferring;
use leasehold_core::ids::{Fence, LockId, Principal, WaiterId};
use leasehold_core::lock::{Depth, Idempotency, Mode};
use leasehold_core::refusal::{AcquireRefusal, BreakRefusal, HolderRefusal, TokenIs, WriteRefusal};
use leasehold_core::resource::Resource;
use leasehold_core::state::State;
use leasehold_core::table::{LockTable, TableLimits, Woken};
use leasehold_core::target::Target;
use leasehold_core::time::{LeaseTime, Now, WallTime};
use uuid::Uuid;

use crate::fold;
use crate::naive::{
    Acquiring, Away, Claim, Drain, Draining, How, Naive, Pin, Token, Waiter, Writing, alternatives,
};
use crate::steps::{Pick, Step, What};

const SEED: u64 = 11;
const PATHS: [&str; 8] = ["/", "/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/f", "/g"];
const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const MAX_TTL_MS: u64 = 60_000;
const DRAIN_WAIT_MS: u64 = 5000;

/// The tables, the naive one, and what has happened.
pub struct Bench {
    /// Two, so that each shows that the other does nothing by chance.
    tables: [LockTable; 2],
    naive: Naive,
    trail: Vec<Event>,
    grants: Vec<(LockId, Fence)>,
    /// Every acquire with a key.
    keyed: Vec<Acquire>,
    durable: u64,
    next_id: u128,
}

/// What a command brought about.
struct Done<T> {
    outcome: T,
    events: Vec<Event>,
    wakes: Vec<(WaiterId, Woken)>,
}

fn resource(at: usize) -> Resource {
    Resource::parse(PATHS[at]).unwrap()
}

fn principal(at: usize) -> Principal {
    Principal::new(NAMES[at])
}

fn caller(principal: &Principal) -> Caller {
    Caller { principal: principal.clone(), anonymous: false, roles: Arc::from([]) }
}

fn origin(principal: &Principal) -> Origin {
    Origin { actor: Some(principal.clone()), ..Origin::default() }
}

/// Why a holder's command is refused.
#[derive(Clone, Debug, PartialEq)]
enum Refused {
    InvalidToken,
    NotTheHolder,
    Gone(LockId, How),
    Closing,
    TtlOutOfRange,
    MaxHold,
}

fn refused(refusal: &HolderRefusal) -> Refused {
    match refusal {
        HolderRefusal::InvalidToken => Refused::InvalidToken,
        HolderRefusal::NotTheHolder => Refused::NotTheHolder,
        HolderRefusal::Gone(id, ended) => Refused::Gone(*id, how(ended.as_ref().unwrap())),
        HolderRefusal::Closing(_) => Refused::Closing,
        HolderRefusal::TtlOutOfRange { .. } => Refused::TtlOutOfRange,
        HolderRefusal::MaxHoldReached { .. } => Refused::MaxHold,
        other => panic!("not expected: {other:?}"),
    }
}

fn how(ended: &leasehold_core::lock::Ended) -> How {
    match ended.ending.as_str() {
        "expired" => How::Expired,
        "released" => How::Released,
        "broken" => How::Broken,
        _ => How::Transferred,
    }
}

fn token_of(token: &TokenIs) -> Token {
    match token {
        TokenIs::Fits(id) | TokenIs::LiveElsewhere(id) => Token::Live(*id),
        TokenIs::Ended(id, ended) => Token::Ended(*id, how(ended.as_ref().unwrap())),
        TokenIs::NotYours => Token::NotYours,
        TokenIs::Unknown => Token::Unknown,
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        let table = || LockTable::new(State::new(SEED), TableLimits::default(), SEED);
        Self {
            tables: [table(), table()],
            naive: Naive::default(),
            trail: Vec::new(),
            grants: Vec::new(),
            keyed: Vec::new(),
            durable: 0,
            next_id: 0,
        }
    }

    /// Takes one step in all of them, and panics where they differ.
    pub fn step(&mut self, step: &Step) {
        let now = &mut self.naive.now;
        *now = Now {
            lease: now.lease + step.passes_ms,
            wall: WallTime(now.wall.0 + i64::try_from(step.passes_ms).unwrap()),
        };
        if step.settles {
            let newest = self.tables[0].state().seq();
            self.durable = newest.0;
            self.tables.iter_mut().for_each(|table| table.settled(newest));
        }
        if let Some(budget) = step.budget {
            self.tick(budget);
        }
        self.command(&step.what);
        self.naive.leaving.clear();
    }

    /// Gives both tables the same command.
    fn both<T: Debug>(&mut self, act: impl Fn(&mut LockTable, Now) -> T) -> Done<T> {
        let now = self.naive.now;
        let [mut first, second] = self.tables.each_mut().map(|table| {
            let outcome = act(table, now);
            Done { outcome, events: table.take_events(), wakes: table.take_wakes() }
        });
        assert_eq!(format!("{:?}", first.outcome), format!("{:?}", second.outcome));
        assert_eq!(first.events, second.events, "the same commands give the same events");
        assert_eq!(format!("{:?}", first.wakes), format!("{:?}", second.wakes));
        for event in &first.events {
            fold::assert_round_trip(event);
            if let EventBody::Acquired(grant) | EventBody::Transferred { to: grant, .. } =
                &event.body
            {
                self.grants.push((grant.lock_id, grant.fence));
            }
        }
        self.trail.extend(first.events.iter().cloned());
        self.tables[0].assert_invariants(now);
        first.wakes.shrink_to_fit();
        first
    }

    fn tick(&mut self, budget: usize) {
        let done = self.both(|table, now| table.tick(now, budget));
        self.naive.leaving = done
            .wakes
            .iter()
            .filter(|(_, woken)| matches!(woken, Woken::Refused(_)))
            .map(|(waiter, _)| *waiter)
            .collect();
        self.follow(&done.events);
        self.woken(&done.wakes, &done.events);
        self.observe(true);
        let now = self.naive.now;
        if !done.outcome {
            self.naive.away.retain(|away| now.lease < away.until);
            let naive = &self.naive;
            assert!(naive.locks.iter().all(|lock| naive.is_live(lock)), "not late");
            assert!(naive.waiters.iter().all(|waiter| now.lease < waiter.until), "not late");
            assert!(naive.drains.iter().all(|drain| now.lease < drain.until), "not late");
            assert!(naive.freezes.iter().all(|freeze| now.wall < freeze.until), "not late");
            assert!(
                naive
                    .locks
                    .iter()
                    .all(|lock| { lock.used || lock.uncollected.is_none_or(|at| now.lease < at) })
            );
            let next = self.tables[0].next_deadline();
            assert!(next.is_none_or(|at| now.lease < at), "a table that is done has nothing due");
        }
        self.naive.leaving.clear();
    }

    fn follow(&mut self, events: &[Event]) {
        for event in events {
            if matches!(event.body, EventBody::Acquired(_)) {
                // One that has taken its place on one of several has left the others.
                self.observe(false);
            }
            self.naive.follow(event);
        }
    }

    /// Follows what was settled before the command itself was decided, and splits off the rest.
    fn follow_until<'e>(
        &mut self,
        events: &'e [Event],
        is_own: impl Fn(&EventBody) -> bool,
    ) -> &'e [Event] {
        let own = events.iter().position(|event| is_own(&event.body)).unwrap_or(events.len());
        self.follow(&events[..own]);
        if own > 0 {
            self.observe(false);
        }
        &events[own..]
    }

    fn finish_step(&mut self, events: &[Event], wakes: &[(WaiterId, Woken)]) {
        self.follow(events);
        self.woken(wakes, events);
        self.observe(true);
    }

    /// Follows what has come of parked commands.
    fn woken(&mut self, wakes: &[(WaiterId, Woken)], _events: &[Event]) {
        let now = self.naive.now;
        for (waiter, woken) in wakes {
            match woken {
                Woken::Granted(granted) => {
                    assert!(!granted.replayed);
                    let lock = self.naive.lock(granted.lock.grant.lock_id);
                    assert_eq!(lock.expect("it was granted").fence, granted.lock.grant.fence);
                    assert!(self.naive.waiters.iter().all(|other| other.ticket != *waiter));
                }
                Woken::Refused(refusal) => self.time_up(*waiter, refusal),
                Woken::Transferred(granted) => {
                    let drain = self.take_drain(*waiter);
                    assert!(matches!(drain.what, Draining::Transfer { .. }));
                    let lock = self.naive.lock(granted.lock.grant.lock_id).expect("it lives");
                    assert!(!lock.used);
                }
                Woken::NotTransferred(refusal) => {
                    let drain = self.take_drain(*waiter);
                    let Draining::Transfer { lock } = drain.what else { panic!("no transfer") };
                    match &**refusal {
                        HolderRefusal::WritesInFlight { writes } => {
                            assert!(drain.until <= now.lease, "never early");
                            assert_eq!(*writes, drain.pins.len());
                        }
                        HolderRefusal::Closing(_) => {
                            assert!(self.naive.lock(lock).expect("it lives").breaking);
                        }
                        other => {
                            assert!(matches!(refused(other), Refused::Gone(id, _) if id == lock))
                        }
                    }
                }
                Woken::Frozen { writes_in_flight } => {
                    let drain = self.take_drain(*waiter);
                    assert!(matches!(drain.what, Draining::Freeze));
                    assert_eq!(*writes_in_flight, drain.pins.len());
                    assert!(*writes_in_flight == 0 || drain.until <= now.lease, "never early");
                }
            }
        }
    }

    fn time_up(&mut self, ticket: WaiterId, refusal: &AcquireRefusal) {
        let now = self.naive.now;
        let at = self.naive.waiters.iter().position(|waiter| waiter.ticket == ticket);
        let waiter = self.naive.waiters.remove(at.expect("it waited"));
        assert!(waiter.until <= now.lease, "a waiter is refused when its time is up");
        match refusal {
            AcquireRefusal::Locked(found) => {
                assert_eq!(found.waited_ms, now.lease.since(waiter.since));
            }
            AcquireRefusal::Frozen(_) => {}
            other => panic!("{other:?}"),
        }
        if waiter.command.wait_ms > 0
            && let Some(key) = waiter.command.idempotency
        {
            self.naive.away.push(Away {
                ticket,
                until: now.lease + 5000_u64,
                principal: waiter.command.caller.principal,
                key,
                resources: waiter.command.want.resources().to_vec(),
            });
        }
    }

    fn take_drain(&mut self, waiter: WaiterId) -> Drain {
        let at = self.naive.drains.iter().position(|drain| drain.waiter == waiter);
        self.naive.drains.remove(at.expect("it waited for writes"))
    }

    /// Sees who has its place meanwhile, whether it may, and (at the end) whether somebody is
    /// missing.
    fn observe(&mut self, is_end: bool) {
        loop {
            let table = &self.tables[0];
            let naive = &self.naive;
            let claims = |waiter: &Waiter| {
                alternatives(&waiter.command).into_iter().find(|claim| {
                    let queue = table.inspect(&claim.resources[0], naive.now).queue;
                    queue.iter().any(|it| it.waiter == waiter.ticket && it.granted)
                })
            };
            let next = naive.waiters.iter().enumerate().find_map(|(at, waiter)| {
                let claim = if waiter.claimed.is_none() { claims(waiter)? } else { return None };
                naive.in_the_way(&claim, &naive.asks(waiter)).is_nothing().then_some((at, claim))
            });
            match next {
                Some((at, claim)) => self.naive.waiters[at].claimed = Some(claim.resources),
                None => {
                    if is_end {
                        let unknown = naive
                            .waiters
                            .iter()
                            .find(|waiter| waiter.claimed.is_none() && claims(waiter).is_some());
                        assert!(unknown.is_none(), "it has its place too early: {unknown:?}");
                    }
                    break;
                }
            }
        }
        if is_end {
            self.nobody_is_missing();
        }
    }

    fn nobody_is_missing(&self) {
        let naive = &self.naive;
        let now = naive.now;
        for waiter in &naive.waiters {
            if let Some(resources) = &waiter.claimed {
                let claim = Claim {
                    resources: resources.clone(),
                    mode: waiter.command.mode,
                    depth: waiter.command.depth,
                };
                assert!(!naive.pins_against(&claim).is_empty(), "no write before {waiter:?}");
                continue;
            }
            for claim in alternatives(&waiter.command) {
                let is_free = naive.in_the_way(&claim, &naive.asks(waiter)).is_nothing();
                // What is due and not written down yet is served when it is.
                let due = naive
                    .locks
                    .iter()
                    .any(|lock| !naive.is_live(lock) && lock.claim.conflicts(&claim));
                let thawed = naive.freezes.iter().any(|freeze| freeze.until <= now.wall);
                assert!(!is_free || due || thawed, "nobody starves: {waiter:?}");
            }
        }
        for drain in &naive.drains {
            assert!(!drain.pins.is_empty(), "no write before {drain:?}");
        }
        let table = &self.tables[0];
        assert_eq!(table.waiters(), naive.waiters.len());
        assert_eq!(table.writes_in_flight(), naive.pins.len());
        assert_eq!(table.live(), naive.locks.len());
        assert_eq!(table.state().fence(), naive.fence);
    }

    // ---- picking -----------------------------------------------------------------------------

    fn fresh_id(&mut self) -> LockId {
        self.next_id += 1;
        LockId(Uuid::from_u128(self.next_id))
    }

    /// All grants: those that live first, the newest first.
    fn in_order(&self, whose: Option<&Principal>) -> Vec<(LockId, Fence)> {
        let lives = |id: LockId| {
            self.naive.lock(id).is_some_and(|lock| whose.is_none_or(|whose| lock.holder == *whose))
        };
        let (live, ended): (Vec<_>, Vec<_>) =
            self.grants.iter().rev().copied().partition(|(id, _)| lives(*id));
        if whose.is_some() { live } else { live.into_iter().chain(ended).collect() }
    }

    fn token(&self, pick: Pick) -> Presented {
        let all = self.in_order(None);
        match pick {
            Pick::Forged => Presented::Forged,
            Pick::Newest(at) | Pick::WrongFence(at) => match all.get(at % all.len().max(1)) {
                None => Presented::Forged,
                Some(&(lock_id, fence)) => {
                    let is_wrong = matches!(pick, Pick::WrongFence(_));
                    let fence = if is_wrong { Fence(fence.0 + 1000) } else { fence };
                    Presented::Token { lock_id, fence }
                }
            },
        }
    }

    /// A token of the caller's own, if there is one.
    fn own_token(&self, who: &Principal, pick: Pick) -> Option<Presented> {
        match pick {
            Pick::Newest(at) if at < 5 => {
                let (lock_id, fence) = *self.in_order(Some(who)).get(at)?;
                Some(Presented::Token { lock_id, fence })
            }
            pick => Some(self.token(pick)),
        }
    }

    fn holder_of(&self, token: Presented) -> Option<&Principal> {
        let Presented::Token { lock_id, .. } = token else { return None };
        let live = self.naive.lock(lock_id).map(|lock| &lock.holder);
        live.or_else(|| self.naive.end_of(lock_id).map(|ended| &ended.lock.holder))
    }

    fn resource_of(&self, token: Presented) -> Option<Resource> {
        let Presented::Token { lock_id, .. } = token else { return None };
        let live = self.naive.lock(lock_id).map(|lock| &lock.claim);
        let claim = live.or_else(|| self.naive.end_of(lock_id).map(|ended| &ended.lock.claim))?;
        Some(claim.resources[0].clone())
    }

    fn who(&self, who: Option<usize>, token: Option<Presented>) -> Principal {
        match (who, token.and_then(|token| self.holder_of(token))) {
            (Some(who), _) => principal(who),
            (None, Some(holder)) => holder.clone(),
            (None, None) => principal(0),
        }
    }

    // ---- commands ----------------------------------------------------------------------------

    fn command(&mut self, what: &What) {
        match what {
            What::Nothing => {}
            What::Acquire { .. } => self.acquire(what),
            What::Renew { who, token, ttl_ms, elsewhere } => {
                let token = self.token(*token);
                let who = self.who(*who, Some(token));
                self.renew(&who, token, *ttl_ms, elsewhere.map(resource));
            }
            What::Release { who, token } => {
                let token = self.token(*token);
                let who = self.who(*who, Some(token));
                self.release(&who, token);
            }
            What::Transfer { who, token, to } => {
                let token = self.token(*token);
                let who = self.who(*who, Some(token));
                self.transfer(&who, token, &principal(*to));
            }
            What::Request { who, resource: at } => self.request(&principal(*who), &resource(*at)),
            What::Break { resource: at, named, grace_ms } => {
                let named = named.and_then(|pick| match self.token(pick) {
                    Presented::Token { lock_id, .. } => Some(lock_id),
                    Presented::Forged => None,
                });
                self.break_lock(&resource(*at), named, *grace_ms);
            }
            What::Freeze { resource: at, for_ms } => self.freeze(&resource(*at), *for_ms),
            What::Unfreeze { resource: at } => {
                let at = resource(*at);
                let was = self.naive.freezes.iter().any(|freeze| freeze.resource == at);
                let done = self.both(|table, now| table.unfreeze(&at, origin(&principal(0)), now));
                assert_eq!(done.outcome, was);
                self.finish_step(&done.events, &done.wakes);
            }
            What::Write { .. } => self.write(what),
            What::Complete { pick, sent } => self.complete(*pick, *sent),
            What::Again { pick, wait_ms } => {
                if let Some(before) = self.keyed.iter().rev().nth(*pick).cloned() {
                    let lock_id = self.fresh_id();
                    let wait_ms = *wait_ms;
                    self.acquires(&Acquire { lock_id, wait_ms, ..before });
                }
            }
            What::Leave { pick } => self.leave(*pick),
            What::Undelivered { pick } => self.undelivered(*pick),
            What::Reload => self.reload(),
        }
    }

    fn acquire(&mut self, what: &What) {
        let What::Acquire {
            who,
            resources,
            any_of,
            shared,
            depth_0,
            ttl_ms,
            wait_ms,
            key,
            holds,
            hold_ms,
        } = what
        else {
            return;
        };
        let who = principal(*who);
        let depth = if *depth_0 { Depth::Zero } else { Depth::Infinity };
        let resources: Vec<Resource> = resources.iter().map(|&at| resource(at)).collect();
        let want = if *any_of {
            // Disjoint ones, so that it can be seen which of them it has its place on.
            let mut apart: Vec<Resource> = Vec::new();
            for each in resources {
                if apart.iter().all(|other| !other.covers(&each) && !each.covers(other)) {
                    apart.push(each);
                }
            }
            Want::AnyOf(apart.into())
        } else {
            Want::All(fold_set(&resources, depth))
        };
        let mode = if *shared { Mode::Shared } else { Mode::Exclusive };
        let command = Acquire {
            caller: caller(&who),
            origin: origin(&who),
            lock_id: self.fresh_id(),
            mode,
            depth,
            ttl_ms: *ttl_ms,
            reason: None,
            metadata: None,
            handle: None,
            idempotency: key.map(|key| Idempotency {
                key: Arc::from(format!("k{key}")),
                digest: Arc::from(format!("{want:?} {mode:?} {depth:?}")),
            }),
            want,
            holds: holds.iter().filter_map(|&pick| self.own_token(&who, pick)).collect(),
            wait_ms: *wait_ms,
            limits: AcquireLimits {
                default_ttl_ms: 10_000,
                max_ttl_ms: MAX_TTL_MS,
                max_hold_ms: *hold_ms,
                max_queue: 3,
                max_locks_per_holder: None,
                drain_wait_ms: DRAIN_WAIT_MS,
            },
        };
        if command.idempotency.is_some() {
            self.keyed.push(command.clone());
        }
        self.acquires(&command);
    }

    fn acquires(&mut self, command: &Acquire) {
        let done = self.both(|table, now| table.acquire(command.clone(), now));
        let is_own = |body: &EventBody| matches!(body, EventBody::Acquired(grant) if grant.lock_id == command.lock_id);
        let rest = self.follow_until(&done.events, is_own);
        let stale_away = self.naive.away.iter().any(|away| away.until <= self.naive.now.lease);
        let expected = self.naive.acquire(command);
        match (&done.outcome, expected) {
            (Ok(Acquired::Granted(granted)), Acquiring::Granted { resources }) => {
                assert!(!granted.replayed);
                let [own] = rest else { panic!("one event: {rest:?}") };
                assert_eq!(granted.lock.grant.resources.to_vec(), resources);
                assert_eq!(granted.lock.grant.waited_ms, 0);
                self.naive.grant(own.seq.0, command, &granted.lock.grant);
                self.finish_step(&[], &done.wakes);
                return;
            }
            (Ok(Acquired::Granted(granted)), Acquiring::Again { id }) => {
                assert!(granted.replayed);
                let at = self.naive.locks.iter().position(|lock| lock.id == id).unwrap();
                let lock = &mut self.naive.locks[at];
                lock.uncollected = None;
                assert_eq!(granted.lock.grant.lock_id, id);
                assert_eq!(granted.lock.deadline, lock.deadline);
            }
            (Ok(Acquired::Parked(ticket)), Acquiring::Parked { ticket: kept }) => {
                if let Some(kept) = kept {
                    assert_eq!(*ticket, kept, "who comes back keeps its place");
                }
                self.add_waiter(*ticket, command);
                self.observe(false);
                assert!(!self.naive.closes_circle(*ticket), "a circle was not seen");
            }
            (Err(AcquireRefusal::Deadlock { circle }), Acquiring::Parked { ticket }) => {
                assert!(!circle.is_empty());
                // It would have been this one.
                let ticket = ticket.unwrap_or(WaiterId(u64::MAX));
                self.add_waiter(ticket, command);
                assert!(self.naive.closes_circle(ticket), "no circle is closed: {circle:?}");
                self.naive.waiters.retain(|waiter| waiter.ticket != ticket);
            }
            (
                Err(AcquireRefusal::Locked(found)),
                Acquiring::Locked { locks, behind, is_pending, is_yours, ends_last },
            ) => {
                assert_eq!(found.locks, locks);
                assert_eq!(found.queue_ahead, behind);
                assert_eq!(found.pending.is_some(), is_pending);
                assert_eq!(found.held_by_you, is_yours);
                assert_eq!(found.lock.as_ref().map(|lock| lock.deadline), ends_last);
            }
            (Err(AcquireRefusal::TtlOutOfRange { .. }), Acquiring::TtlOutOfRange)
            | (Err(AcquireRefusal::Frozen(_)), Acquiring::Frozen)
            | (Err(AcquireRefusal::QueueFull { .. }), Acquiring::QueueFull)
            | (Err(AcquireRefusal::KeyReused), Acquiring::KeyReused)
            | (Err(AcquireRefusal::KeyInProgress), Acquiring::KeyInProgress) => {}
            (Err(AcquireRefusal::Gone(ended)), Acquiring::Gone { how: expected }) => {
                assert_eq!(how(ended), expected);
            }
            (Err(AcquireRefusal::Token(token)), Acquiring::Token(expected)) => {
                assert_eq!(token_of(token), expected);
            }
            // Whose time away is over stands in the queue until a tick.
            (Ok(Acquired::Parked(ticket)), Acquiring::QueueFull) if stale_away => {
                self.add_waiter(*ticket, command);
            }
            (Err(AcquireRefusal::Deadlock { circle }), Acquiring::QueueFull) if stale_away => {
                let ticket = WaiterId(u64::MAX);
                self.add_waiter(ticket, command);
                assert!(self.naive.closes_circle(ticket), "no circle is closed: {circle:?}");
                self.naive.waiters.retain(|waiter| waiter.ticket != ticket);
            }
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    fn add_waiter(&mut self, ticket: WaiterId, command: &Acquire) {
        let now = self.naive.now;
        let wait_ms = if command.wait_ms == 0 { DRAIN_WAIT_MS } else { command.wait_ms };
        self.naive.waiters.push(Waiter {
            ticket,
            command: command.clone(),
            since: now.lease,
            until: now.lease + wait_ms,
            claimed: None,
        });
    }

    fn addressed(
        &self,
        who: &Principal,
        token: Presented,
        address: &Resource,
    ) -> Result<LockId, Refused> {
        let fits = |id: LockId| {
            let live = self.naive.lock(id).map(|lock| &lock.claim);
            let claim = live.or_else(|| self.naive.end_of(id).map(|ended| &ended.lock.claim));
            claim.is_some_and(|claim| claim.resources.contains(address))
        };
        match self.naive.judge(who, token) {
            Token::Live(id) if fits(id) => Ok(id),
            Token::Ended(id, how) if fits(id) => Err(Refused::Gone(id, how)),
            Token::NotYours => Err(Refused::NotTheHolder),
            _ => Err(Refused::InvalidToken),
        }
    }

    fn renew(
        &mut self,
        who: &Principal,
        token: Presented,
        ttl_ms: Option<u64>,
        elsewhere: Option<Resource>,
    ) {
        let at = elsewhere.or_else(|| self.resource_of(token)).unwrap_or_else(|| resource(1));
        let command = Renew {
            caller: caller(who),
            origin: origin(who),
            address: Address::Resource(at.clone()),
            tokens: vec![token],
            ttl_ms,
        };
        let done = self.both(|table, now| table.renew(&command, now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::Renewed { .. }));
        let now = self.naive.now;
        let expected = self.addressed(who, token, &at).and_then(|id| {
            let lock = self.naive.lock(id).unwrap();
            if lock.breaking {
                return Err(Refused::Closing);
            }
            let asked = ttl_ms.unwrap_or(lock.ttl_ms);
            if ttl_ms.is_some() && !(1000..=lock.max_ttl_ms).contains(&asked) {
                return Err(Refused::TtlOutOfRange);
            }
            let mut deadline = now.lease + asked;
            if ttl_ms.is_none() {
                deadline = deadline.max(lock.deadline);
            }
            match lock.max_deadline {
                Some(max) if max < deadline && lock.deadline == max => Err(Refused::MaxHold),
                Some(max) => Ok((id, deadline.min(max))),
                None => Ok((id, deadline)),
            }
        });
        match (&done.outcome, expected) {
            (Ok(lock), Ok((id, deadline))) => {
                assert_eq!((lock.grant.lock_id, lock.deadline), (id, deadline));
            }
            (Err(found), Err(expected)) => assert_eq!(refused(found), expected),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    fn release(&mut self, who: &Principal, token: Presented) {
        let at = self.resource_of(token).unwrap_or_else(|| resource(1));
        let command = Release {
            caller: caller(who),
            origin: origin(who),
            address: Address::Resource(at.clone()),
            tokens: vec![token],
        };
        let done = self.both(|table, now| table.release(&command, now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::Released { .. }));
        let expected = match self.addressed(who, token, &at) {
            Err(Refused::Gone(id, How::Released)) => Ok(id),
            other => other,
        };
        match (&done.outcome, expected) {
            (Ok(found), Ok(id)) => assert_eq!(*found, id),
            (Err(found), Err(expected)) => assert_eq!(refused(found), expected),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    fn transfer(&mut self, who: &Principal, token: Presented, to: &Principal) {
        let at = self.resource_of(token).unwrap_or_else(|| resource(1));
        let command = Transfer {
            caller: caller(who),
            origin: origin(who),
            address: Address::Resource(at.clone()),
            tokens: vec![token],
            lock_id: self.fresh_id(),
            to: to.clone(),
            drain_wait_ms: DRAIN_WAIT_MS,
        };
        let done = self.both(|table, now| table.transfer(command.clone(), now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::Transferred { .. }));
        let expected = match self.addressed(who, token, &at) {
            Ok(id) if self.naive.lock(id).unwrap().breaking => Err(Refused::Closing),
            other => other,
        };
        match (&done.outcome, expected) {
            (Ok(Transferring::Done(granted)), Ok(_)) => {
                assert_eq!(granted.lock.grant.lock_id, command.lock_id);
                assert!(!granted.replayed);
                assert_eq!(rest.first().map(|event| event.body.name()), Some("transferred"));
            }
            (Ok(Transferring::Parked(waiter)), Ok(lock)) => {
                let pins = self.naive.pins_under(lock);
                assert!(!pins.is_empty());
                let until = self.naive.now.lease + DRAIN_WAIT_MS;
                let what = Draining::Transfer { lock };
                self.naive.drains.push(Drain { waiter: *waiter, pins, until, what });
            }
            (Ok(Transferring::Done(granted)), Err(Refused::Gone(id, How::Transferred))) => {
                assert!(granted.replayed);
                let went = self.naive.end_of(id).and_then(|ended| ended.successor.clone());
                let (successor, went_to) = went.unwrap();
                assert_eq!((granted.lock.grant.lock_id, to), (successor, &went_to));
                let lock = self.naive.lock(successor).expect("it lives");
                assert!(self.naive.is_live(lock) && !lock.used);
            }
            (Err(found), Err(expected)) => {
                assert_eq!(refused(found), expected);
                if let Refused::Gone(id, How::Transferred) = expected {
                    let went = self.naive.end_of(id).and_then(|ended| ended.successor.clone());
                    let (successor, went_to) = went.unwrap();
                    let repeats = self
                        .naive
                        .lock(successor)
                        .is_some_and(|lock| self.naive.is_live(lock) && !lock.used);
                    assert!(!repeats || went_to != *to, "the same answer again");
                }
            }
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    fn covering(&self, at: &Resource) -> Vec<LockId> {
        let mut covering: Vec<LockId> =
            self.naive.live().filter(|lock| lock.claim.covers(at)).map(|lock| lock.id).collect();
        covering.sort_unstable();
        covering
    }

    fn request(&mut self, who: &Principal, at: &Resource) {
        let command = Request {
            caller: caller(who),
            origin: origin(who),
            resource: at.clone(),
            message: None,
        };
        let done = self.both(|table, now| table.request(&command, now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::Requested { .. }));
        let expected = self.covering(at);
        let mut asked = done.outcome.unwrap_or_default();
        asked.sort_unstable();
        assert_eq!(asked, expected);
        self.finish_step(rest, &done.wakes);
    }

    fn break_lock(&mut self, at: &Resource, named: Option<LockId>, grace_ms: u64) {
        let who = Principal::new("root");
        let command = BreakLock {
            caller: caller(&who),
            origin: origin(&who),
            address: Address::Resource(at.clone()),
            lock_id: named,
            reason: Arc::from("why not"),
            grace_ms,
        };
        let preview = self.both(|table, now| table.preview_break(&command, now));
        self.finish_step(&preview.events, &preview.wakes);
        let done = self.both(|table, now| table.break_lock(&command, now));
        let covering = self.covering(at);
        let expected = match named {
            Some(named) => covering.contains(&named).then_some(named).ok_or(0),
            None if covering.len() == 1 => Ok(covering[0]),
            None => Err(covering.len()),
        };
        match (&done.outcome, expected) {
            (Ok(broken), Ok(id)) => {
                assert_eq!(broken.lock.grant.lock_id, id);
                let lock = self.naive.lock(id).unwrap();
                let ends_at = (self.naive.now.lease + grace_ms).min(lock.deadline);
                assert_eq!(broken.ends_at, ends_at);
                let previewed = preview.outcome.expect("the preview tells the same");
                assert_eq!(previewed.lock.grant.lock_id, id);
                assert_eq!(previewed.writes_in_flight, self.naive.pins_under(id).len());
            }
            (Err(BreakRefusal::Changed), Err(0)) => assert!(preview.outcome.is_err()),
            (Err(BreakRefusal::Ambiguous(locks)), Err(count)) => assert_eq!(locks.len(), count),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(&done.events, &done.wakes);
    }

    fn freeze(&mut self, at: &Resource, for_ms: u64) {
        let who = Principal::new("root");
        let until = self.naive.now.wall + for_ms;
        let command = SetFreeze {
            caller: caller(&who),
            origin: origin(&who),
            resource: at.clone(),
            reason: Arc::from("audit"),
            until,
            drain_wait_ms: DRAIN_WAIT_MS,
        };
        let done = self.both(|table, now| table.freeze(&command, now));
        self.follow(&done.events);
        let claim =
            Claim { resources: vec![at.clone()], mode: Mode::Exclusive, depth: Depth::Infinity };
        let pins = self.naive.pins_against(&claim);
        assert_eq!(done.outcome.1.is_none(), pins.is_empty());
        if let Some(waiter) = done.outcome.1 {
            let until = self.naive.now.lease + DRAIN_WAIT_MS;
            self.naive.drains.push(Drain { waiter, pins, until, what: Draining::Freeze });
        }
        self.finish_step(&[], &done.wakes);
    }

    fn write(&mut self, what: &What) {
        let What::Write { who, targets, tokens, at_lock } = what else { return };
        let tokens: Vec<Presented> = tokens.iter().map(|&pick| self.token(pick)).collect();
        let who = self.who(*who, tokens.first().copied());
        let mut targets: Vec<(Resource, u8)> =
            targets.iter().map(|&(at, part)| (resource(at), part)).collect();
        if *at_lock && let Some(at) = tokens.first().and_then(|&token| self.resource_of(token)) {
            targets.truncate(1);
            targets[0].0 = at;
        }
        let targets: Vec<Target> = targets
            .into_iter()
            .map(|(at, part)| match part {
                0 => Target::Content(at),
                1 => Target::Members(at),
                _ => Target::Subtree(at),
            })
            .collect();
        let write = Write {
            caller: caller(&who),
            origin: origin(&who),
            method: Arc::from("PUT"),
            resource: targets[0].resource().clone(),
            targets: targets.clone(),
            tokens,
            conditions: Vec::new(),
            lacks_precondition: false,
        };
        let checked = self.both(|table, now| table.check(&write, now));
        self.finish_step(&checked.events, &checked.wakes);
        let done = self.both(|table, now| table.admit(&write, now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::WriteAdmitted { .. }));
        assert_eq!(checked.outcome.is_ok(), done.outcome.is_ok());
        match (&done.outcome, self.naive.write(&write)) {
            (Ok(admitted), Writing::Admitted { used }) => {
                let mut locks: Vec<LockId> = admitted.locks.iter().map(|(id, _)| *id).collect();
                locks.sort_unstable();
                assert_eq!(locks, used);
                assert_eq!(rest.len(), used.len());
                assert_eq!(admitted.admission, rest.first().map(|event| event.seq));
                // Durable before said.
                if let Some(last) = rest.last() {
                    assert_eq!(admitted.rests_on, last.seq);
                }
                let newest = self.naive.newest_change(&targets);
                assert!(
                    newest <= self.durable || newest <= admitted.rests_on.0,
                    "it rests on event {newest}: {admitted:?}"
                );
                assert!(admitted.rests_on <= self.tables[0].state().seq());
                self.naive.pins.push(Pin { id: admitted.pin, targets, locks: used });
            }
            (Err(WriteRefusal::Locked(found)), Writing::Locked { locks, is_pending }) => {
                assert_eq!((found.locks, found.pending.is_some()), (locks, is_pending));
            }
            (Err(WriteRefusal::Frozen(_)), Writing::Frozen)
            | (Err(WriteRefusal::LockLost(..)), Writing::LockLost)
            | (Err(WriteRefusal::LockMismatch(_)), Writing::LockMismatch)
            | (Err(WriteRefusal::NotTheHolder), Writing::NotTheHolder)
            | (Err(WriteRefusal::InvalidToken), Writing::InvalidToken) => {}
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    fn complete(&mut self, pick: usize, sent: bool) {
        if self.naive.pins.is_empty() {
            return;
        }
        let pin = self.naive.pins.remove(pick % self.naive.pins.len());
        for drain in &mut self.naive.drains {
            drain.pins.retain(|other| *other != pin.id);
        }
        let result = if sent { WriteResult::Answered(204) } else { WriteResult::NotSent };
        let done = self.both(|table, now| table.complete(pin.id, result, now));
        let completed = |event: &&Event| matches!(event.body, EventBody::WriteCompleted { .. });
        assert_eq!(done.events.iter().filter(completed).count(), pin.locks.len());
        self.follow(&done.events);
        self.woken(&done.wakes, &done.events);
        // The holder may have sent another write meanwhile: then a transfer waits for that.
        for at in 0..self.naive.drains.len() {
            let drain = &self.naive.drains[at];
            if let Draining::Transfer { lock } = drain.what
                && drain.pins.is_empty()
            {
                self.naive.drains[at].pins = self.naive.pins_under(lock);
            }
        }
        self.observe(true);
    }

    fn leave(&mut self, pick: usize) {
        let tickets: Vec<WaiterId> = self
            .naive
            .waiters
            .iter()
            .map(|waiter| waiter.ticket)
            .chain(self.naive.drains.iter().map(|drain| drain.waiter))
            .collect();
        if tickets.is_empty() {
            return;
        }
        let ticket = tickets[pick % tickets.len()];
        self.naive.waiters.retain(|waiter| waiter.ticket != ticket);
        self.naive.drains.retain(|drain| drain.waiter != ticket);
        let done = self.both(|table, now| table.leave(ticket, now));
        self.finish_step(&done.events, &done.wakes);
    }

    fn undelivered(&mut self, pick: usize) {
        if self.naive.locks.is_empty() {
            return;
        }
        let at = pick % self.naive.locks.len();
        let now = self.naive.now.lease;
        let lock = &mut self.naive.locks[at];
        let (id, has_key) = (lock.id, lock.key.is_some());
        if !lock.used {
            lock.uncollected = Some(if has_key { now + 10_000_u64 } else { now });
        }
        let goes = !lock.used && !has_key;
        let done = self.both(|table, now| table.undelivered(id, now));
        self.finish_step(&done.events, &done.wakes);
        assert!(!goes || self.naive.lock(id).is_none(), "it is released at once");
    }

    /// The log failed and was read again: what is parked is gone, what is on its way is not.
    fn reload(&mut self) {
        let newest = self.tables[0].state().seq();
        for table in &mut self.tables {
            let mut state = State::new(SEED);
            for event in &self.trail {
                state.apply(event);
            }
            let empty = LockTable::new(State::new(SEED), TableLimits::default(), SEED);
            let before = std::mem::replace(table, empty);
            *table = before.reloaded(state, newest, SEED);
            table.settled(newest);
        }
        self.durable = newest.0;
        let naive = &mut self.naive;
        naive.waiters.clear();
        naive.away.clear();
        naive.drains.clear();
        naive.locks.iter_mut().for_each(|lock| lock.uncollected = None);
        self.tables[0].assert_invariants(self.naive.now);
        self.observe(true);
    }

    /// The trail is the truth: whatever way the state is rebuilt, it is the same.
    /// Judges the whole history.
    pub fn finish(self) {
        // A different cut for each history, and the same for the same.
        let cut = usize::try_from(self.next_id).unwrap() * 7919 % (self.trail.len() + 1);
        fold::assert_fold(&self.trail, self.tables[0].state(), self.next_id, cut);
        assert!(self.naive.now.lease < LeaseTime(24 * 3_600_000), "the case is too long");
    }
}
