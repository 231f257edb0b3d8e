//! Histories too long for the model, folded by every way at every cut.

// These are tests, but their helpers are functions of their own.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use leasehold_core::event::{Event, EventBody, Origin, Subject};
use leasehold_core::ids::{Fence, LockId, Principal, Seq};
use leasehold_core::lock::{Depth, Dialect, Grant, Idempotency, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::state::State;
use leasehold_core::time::{LeaseTime, WallTime};
use leasehold_model::fold;
use uuid::Uuid;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

fn acquired(number: u64, key: Option<&str>, lease: u64) -> EventBody {
    let key = key.map(|key| Idempotency { key: Arc::from(key), digest: Arc::from("d") });
    EventBody::Acquired(Box::new(Grant {
        lock_id: LockId(Uuid::from_u128(number.into())),
        fence: Fence(number),
        resources: Arc::from([Resource::parse("/a").unwrap()]),
        dialect: Dialect::Http,
        mode: Mode::Shared,
        depth: Depth::Zero,
        holder: Principal::new("alice"),
        reason: None,
        metadata: None,
        handle: None,
        ttl_ms: DAY_MS,
        deadline: LeaseTime(lease + DAY_MS),
        granted: LeaseTime(lease),
        acquired_at: WallTime(0),
        max_deadline: None,
        max_ttl_ms: DAY_MS,
        waited_ms: 0,
        idempotency: key.map(Box::new),
        predecessor_unknown: false,
    }))
}

fn subject(number: u64) -> Subject {
    Subject {
        lock_id: LockId(Uuid::from_u128(number.into())),
        fence: Fence(number),
        resources: Arc::from([Resource::parse("/a").unwrap()]),
        holder: Principal::new("alice"),
        dialect: Dialect::Http,
    }
}

fn released(number: u64) -> EventBody {
    EventBody::Released { lock: subject(number), undelivered: false }
}

/// Folds each beginning of a history at each cut; gives back the state at its end.
fn check(history: Vec<(u64, EventBody)>) -> State {
    let trail: Vec<Event> = history
        .into_iter()
        .enumerate()
        .map(|(at, (lease, body))| Event {
            seq: Seq(at as u64 + 1),
            at: WallTime(0),
            lease: LeaseTime(lease),
            origin: Origin::default(),
            body,
        })
        .collect();
    let mut live = State::new(1);
    for (at, event) in trail.iter().enumerate() {
        live.apply(event);
        for cut in 0..=at + 1 {
            fold::assert_fold(&trail[..=at], &live, 9, cut);
        }
    }
    live
}

#[test]
fn a_key_that_was_used_twice_is_that_of_the_newer_lock_also_after_a_start() {
    let live = check(vec![
        (0, acquired(1, Some("k"), 0)),
        (MINUTE_MS, released(1)),
        (12 * MINUTE_MS, acquired(2, Some("k"), 12 * MINUTE_MS)),
        (13 * MINUTE_MS, released(2)),
    ]);
    let newer = Some(LockId(Uuid::from_u128(2)));
    assert_eq!(live.got_by(&Principal::new("alice"), "k"), newer);
}

#[test]
fn how_a_lock_ended_is_forgotten_after_a_day_and_its_key_after_ten_minutes() {
    let expired = |number| EventBody::Expired { lock: subject(number), deadline: LeaseTime(5) };
    let live = check(vec![
        (0, acquired(1, Some("k"), 0)),
        (0, acquired(2, None, 0)),
        (0, acquired(3, Some("l"), 0)),
        (7, released(1)),
        // Written down late: it ended before the one above.
        (8, expired(2)),
        (9, released(3)),
        (10 * MINUTE_MS + 7, acquired(4, None, 10 * MINUTE_MS + 7)),
        (10 * MINUTE_MS + 8, acquired(5, None, 10 * MINUTE_MS + 8)),
        (DAY_MS + 5, acquired(6, None, DAY_MS + 5)),
        (DAY_MS + 6, acquired(7, None, DAY_MS + 6)),
        (DAY_MS + 8, acquired(8, None, DAY_MS + 8)),
    ]);
    let is_known = |number: u128| live.ended(LockId(Uuid::from_u128(number))).is_some();
    assert_eq!([1, 2, 3].map(is_known), [false, false, true]);
    assert_eq!(live.got_by(&Principal::new("alice"), "k"), None);
}
