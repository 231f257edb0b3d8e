//! Each invariant is judged after a step by what the step has left behind alone.

use std::sync::Arc;

use leasehold_core::acquire::Acquired;
use leasehold_core::caller::{Caller, Permissions, Role};
use leasehold_core::command::{Acquire, AcquireLimits, Want};
use leasehold_core::event::{EventBody, Origin};
use leasehold_core::ids::Principal;
use leasehold_core::lock::Depth;
use leasehold_core::resource::Resource;
use leasehold_core::sabotage::{self, Mistake};
use leasehold_core::state::State;
use leasehold_core::table::{LockTable, TableLimits};
use leasehold_core::target::Target;
use leasehold_core::time::{Now, WallTime};
use leasehold_engine::start::Look;

use super::*;
use crate::client::LIMITS;

const TTL_MS: u64 = 10_000;

fn resource(path: &str) -> Resource {
    Resource::parse(path).unwrap()
}

fn now(lease: u64) -> Now {
    Now { lease: LeaseTime(lease), wall: WallTime(0) }
}

/// The lock of the acquire with this number.
fn lock(number: u64) -> LockId {
    LockId(uuid::Uuid::from_u128(u128::from(number)))
}

fn acquire(number: u64, path: &str, wait_ms: u64) -> Acquire {
    let role = Role { permissions: Permissions::ALL, patterns: Vec::new() };
    Acquire {
        caller: Caller {
            principal: Principal::new("alice"),
            anonymous: false,
            roles: Arc::from([role]),
        },
        origin: Origin::default(),
        lock_id: lock(number),
        want: Want::All(Arc::from([resource(path)])),
        mode: Mode::Exclusive,
        depth: Depth::Infinity,
        ttl_ms: Some(TTL_MS),
        reason: None,
        metadata: None,
        handle: None,
        idempotency: None,
        holds: Vec::new(),
        wait_ms,
        limits: AcquireLimits {
            default_ttl_ms: TTL_MS,
            max_ttl_ms: TTL_MS,
            max_hold_ms: None,
            max_queue: 9,
            max_locks_per_holder: None,
            drain_wait_ms: 0,
        },
    }
}

/// A table on which these paths were locked one after the other, by acquires 1, 2 and so on, and
/// the events.
fn locked(paths: &[&str]) -> (LockTable, Vec<Event>) {
    let mut table = LockTable::new(State::new(1), TableLimits::default(), 1);
    for (number, path) in (1..).zip(paths) {
        let acquired = table.acquire(acquire(number, path, 0), now(0));
        assert!(matches!(acquired, Ok(Acquired::Granted(_))), "{path}: {acquired:?}");
    }
    let events = table.take_events();
    (table, events)
}

/// What a judge says who is shown this after a step.
fn verdict(
    judge: &mut Judge,
    table: &LockTable,
    gathered: &[Event],
    lease: u64,
) -> Option<Invariant> {
    judge.at(Duration::from_millis(lease), LeaseTime(lease));
    let durable = judge.trail.last();
    let look = Look { table, gathered, durable, now: now(lease), is_serving: true };
    judge.after_step(&look).err().map(|violation| violation.invariant)
}

fn judge() -> Judge {
    Judge::new(LIMITS)
}

#[test]
fn nothing_is_found_where_everything_holds() {
    let (table, events) = locked(&["/a", "/b"]);
    let mut judge = judge();
    assert_eq!(verdict(&mut judge, &table, &events, 0), None);
    judge.promises.insert(lock(1), Duration::from_millis(TTL_MS));
    assert_eq!(verdict(&mut judge, &table, &events, TTL_MS - 1), None);
    assert_eq!(verdict(&mut judge, &table, &events, TTL_MS + LATENESS), None);
}

#[test]
fn two_locks_that_conflict_are_found_by_their_events_and_without_them() {
    sabotage::make(Some(Mistake::IgnoreLocksBelow));
    let (table, events) = locked(&["/a/x", "/a"]);
    sabotage::make(None);
    assert_eq!(verdict(&mut judge(), &table, &events, 0), Some(Invariant::Exclusion));
    assert_eq!(verdict(&mut judge(), &table, &[], 0), Some(Invariant::Exclusion));
}

#[test]
fn a_lock_beside_a_write_on_its_way_is_found() {
    let (table, events) = locked(&["/a"]);
    let with = |tokens| Underway {
        targets: vec![Target::Content(resource("/a/x"))],
        tokens,
        shares: false,
    };
    for gathered in [&events[..], &[]] {
        let mut judge = judge();
        judge.underway.insert(1, with(Vec::new()));
        assert_eq!(verdict(&mut judge, &table, gathered, 0), Some(Invariant::CleanHandOver));
    }
    let mut judge = judge();
    judge.underway.insert(1, with(vec![lock(1)]));
    assert_eq!(verdict(&mut judge, &table, &events, 0), None);
}

#[test]
fn a_promise_without_a_lock_is_found() {
    let (table, events) = locked(&["/a"]);
    let mut judge = judge();
    judge.promises.insert(lock(1), Duration::from_millis(TTL_MS + 1));
    assert_eq!(verdict(&mut judge, &table, &events, TTL_MS - 1), None);
    assert_eq!(verdict(&mut judge, &table, &events, TTL_MS), Some(Invariant::NeverEarly));
}

#[test]
fn a_lock_that_is_there_long_after_its_deadline_is_found() {
    let (table, events) = locked(&["/a"]);
    let late = TTL_MS + LATENESS + 1;
    assert_eq!(verdict(&mut judge(), &table, &events, late), Some(Invariant::NotLate));
    let mut judge = judge();
    judge.at(Duration::ZERO, LeaseTime(late - 1));
    judge.stood_still();
    assert_eq!(verdict(&mut judge, &table, &events, late), None);
}

#[test]
fn a_fence_that_was_there_before_is_found_before_it_is_durable() {
    let (table, mut events) = locked(&["/a", "/b"]);
    let EventBody::Acquired(grant) = &mut events[1].body else { panic!("{events:?}") };
    grant.fence = Fence(1);
    assert_eq!(verdict(&mut judge(), &table, &events, 0), Some(Invariant::FencesGrow));
}

#[test]
fn what_counts_as_durable_and_is_not_in_the_log_is_found() {
    let (table, events) = locked(&["/a"]);
    for (is_harmed, invariant) in
        [(false, Invariant::DurableBeforeSaid), (true, Invariant::FailStop)]
    {
        let mut judge = judge();
        judge.is_harmed = is_harmed;
        let mut look = Look {
            table: &table,
            gathered: &events,
            durable: Seq(0),
            now: now(0),
            is_serving: true,
        };
        assert_eq!(judge.after_step(&look), Ok(()));
        look.durable = Seq(1);
        assert_eq!(judge.after_step(&look).map_err(|it| it.invariant), Err(invariant));
    }
}

#[test]
fn a_table_that_is_not_what_its_events_come_to_is_found() {
    let (table, events) = locked(&["/a", "/b"]);
    assert_eq!(verdict(&mut judge(), &table, &events[..1], 0), Some(Invariant::TrailIsTruth));
    let (shorter, _) = locked(&["/a"]);
    assert_eq!(verdict(&mut judge(), &shorter, &events, 0), Some(Invariant::TrailIsTruth));
    let (other, _) = locked(&["/a", "/c"]);
    assert_eq!(verdict(&mut judge(), &other, &events, 0), Some(Invariant::TrailIsTruth));
}

#[test]
fn a_waiter_who_was_overtaken_is_found_while_it_waits() {
    let (mut table, _) = locked(&["/a"]);
    let parked = table.acquire(acquire(7, "/a", 1000), now(0));
    assert!(matches!(parked, Ok(Acquired::Parked(_))), "{parked:?}");
    let (_, events) = locked(&["/a"]);
    // Call 7 was sent before call 9, which has the lock.
    let mut judge = judge();
    for (call, lock_id) in [(7, lock(7)), (9, lock(1))] {
        let asked = Acquiring {
            lock_id,
            resources: vec![resource("/a")],
            is_any_of: false,
            mode: Mode::Exclusive,
            depth: Depth::Infinity,
            has_holds: false,
            wait_ms: 1000,
            repeats: None,
        };
        judge.acquire_sent(call, asked);
    }
    assert_eq!(verdict(&mut judge, &table, &events, 0), Some(Invariant::FirstComeFirstServed));
    judge.left(7);
    assert_eq!(verdict(&mut judge, &table, &events, 0), None);
}

#[test]
fn more_locks_or_waiters_than_there_may_be_are_found() {
    let (mut table, events) = locked(&["/a", "/b"]);
    for number in 3..=4 {
        let parked = table.acquire(acquire(number, "/a", 1000), now(0));
        assert!(matches!(parked, Ok(Acquired::Parked(_))), "{parked:?}");
    }
    let within = Limits { max_locks: 2, max_locks_per_holder: 2, max_waiters: 2, max_queue: 2 };
    assert_eq!(verdict(&mut Judge::new(within), &table, &events, 0), None);
    for limits in [
        Limits { max_locks: 1, ..within },
        Limits { max_locks_per_holder: 1, ..within },
        Limits { max_waiters: 1, ..within },
        Limits { max_queue: 1, ..within },
    ] {
        let found = verdict(&mut Judge::new(limits), &table, &events, 0);
        assert_eq!(found, Some(Invariant::Bounded), "{limits:?}");
    }
    let found = verdict(&mut Judge::new(Limits { max_locks: 1, ..within }), &table, &[], 0);
    assert_eq!(found, Some(Invariant::Bounded), "without events");
}
