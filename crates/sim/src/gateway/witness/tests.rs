//! What the witness lets pass, and what it does not.

use leasehold_core::event::Origin;
use leasehold_core::ids::{Fence, Principal};
use leasehold_core::lock::{Depth, Dialect};
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use uuid::Uuid;

use super::*;
use crate::gateway::api::{Answered, Lost};

const ALICE: LockId = LockId(Uuid::from_u128(1));
const BOB: LockId = LockId(Uuid::from_u128(2));

fn grant(lock_id: LockId, mode: Mode, granted: u64, predecessor_unknown: bool) -> Grant {
    Grant {
        lock_id,
        fence: Fence(u64::try_from(lock_id.0.as_u128()).unwrap()),
        resources: [Resource::parse("/a").unwrap()].into(),
        dialect: Dialect::Http,
        mode,
        depth: Depth::Infinity,
        holder: Principal::new("somebody"),
        reason: None,
        metadata: None,
        handle: None,
        ttl_ms: 1000,
        deadline: LeaseTime(granted + 1000),
        granted: LeaseTime(granted),
        acquired_at: WallTime(0),
        max_deadline: None,
        max_ttl_ms: 1000,
        waited_ms: 0,
        idempotency: None,
        predecessor_unknown,
    }
}

fn follow(witness: &mut Witness, lease: u64, body: EventBody) -> Verdict {
    let lease = LeaseTime(lease);
    witness.at(lease);
    let (seq, origin) = (witness.last.next(), Origin::default());
    witness.last = seq;
    witness.follow(&Event { seq, at: WallTime(0), lease, origin, body })
}

fn acquired(witness: &mut Witness, lease: u64, lock_id: LockId, unknown: bool) -> Verdict {
    let grant = grant(lock_id, Mode::Exclusive, lease, unknown);
    follow(witness, lease, EventBody::Acquired(Box::new(grant)))
}

fn crashed(witness: &mut Witness, lease: u64) {
    let (cause, incarnation) = (RecoveryCause::Crash, "i".into());
    let body = EventBody::Recovered { cause, incarnation, fence_floor: Fence(0) };
    follow(witness, lease, body).unwrap();
}

fn target(path: &str) -> Target {
    Target::Content(Resource::parse(path).unwrap())
}

fn exchange(path: &str, tokens: &[LockId], has_outlived_its_process: bool) -> Exchange {
    let until = Duration::from_secs(1);
    Exchange {
        connection: 1,
        call: 1,
        targets: vec![target(path)],
        lock: None,
        tokens: tokens.to_vec(),
        is_whole: true,
        answered: Answered::Nothing,
        has_landed: false,
        lost: Some(Lost { until, lands_at: None, has_outlived_its_process }),
    }
}

fn witness() -> Witness {
    Witness::new(Duration::from_millis(100))
}

fn is_breach(verdict: &Verdict) -> bool {
    matches!(verdict, Err(Violation { invariant: Invariant::CleanHandOver, .. }))
}

#[test]
fn nothing_lands_under_the_lock_of_somebody_else() {
    let mut witness = witness();
    acquired(&mut witness, 0, ALICE, false).unwrap();
    assert!(is_breach(&witness.landed(1, &exchange("/a/x", &[], false))));
    assert!(is_breach(&witness.landed(1, &exchange("/a/x", &[BOB], false))));
    assert_eq!(witness.landed(1, &exchange("/a/x", &[ALICE], false)), Ok(()));
    assert_eq!(witness.landed(1, &exchange("/b", &[], false)), Ok(()));
    witness.at(LeaseTime(1000));
    assert_eq!(witness.landed(1, &exchange("/a/x", &[], false)), Ok(()));
}

#[test]
fn a_grant_that_does_not_know_excuses_what_was_sent_before_the_crash_alone() {
    let mut witness = witness();
    crashed(&mut witness, 10);
    acquired(&mut witness, 20, ALICE, true).unwrap();
    assert_eq!(witness.landed(1, &exchange("/a", &[], true)), Ok(()));
    assert!(is_breach(&witness.landed(1, &exchange("/a", &[], false))));
}

#[test]
fn after_a_crash_every_grant_says_that_it_does_not_know() {
    let mut witness = witness();
    crashed(&mut witness, 10);
    assert!(is_breach(&acquired(&mut witness, 109, ALICE, false)));
    assert_eq!(acquired(&mut witness, 110, BOB, false), Ok(()));
}

#[test]
fn who_has_the_resource_after_a_write_that_was_never_answered_is_told_once() {
    let mut witness = witness();
    witness.doubts(1, &[target("/a")], &[], Says::Must);
    assert!(is_breach(&acquired(&mut witness, 0, ALICE, false)));

    witness.doubts(1, &[target("/a")], &[], Says::Must);
    assert_eq!(acquired(&mut witness, 0, ALICE, true), Ok(()));
    assert!(is_breach(&acquired(&mut witness, 0, BOB, true)));
}

#[test]
fn each_part_of_what_a_write_took_along_is_told_once() {
    let acquired = |witness: &mut Witness, path: &str, unknown| {
        let mut grant = grant(ALICE, Mode::Exclusive, 0, unknown);
        grant.resources = [Resource::parse(path).unwrap()].into();
        follow(witness, 0, EventBody::Acquired(Box::new(grant)))
    };
    let mut witness = witness();
    let whole = Target::Subtree(Resource::parse("/a").unwrap());
    witness.doubts(1, &[whole], &[], Says::Must);
    assert_eq!(acquired(&mut witness, "/a/x", true), Ok(()));
    assert!(is_breach(&acquired(&mut witness, "/a/x/1", true)));
    assert!(is_breach(&acquired(&mut witness, "/a/y", false)));
    assert_eq!(acquired(&mut witness, "/a", true), Ok(()));
    assert!(is_breach(&acquired(&mut witness, "/a/z", true)));
    // What was told by a grant that a failed commit took back is told again.
    witness.doubts(2, &[Target::Subtree(Resource::root())], &[], Says::Must);
    assert_eq!(acquired(&mut witness, "/a", true), Ok(()));
    let (cause, incarnation) = (RecoveryCause::FailedCommit, "i".into());
    let body = EventBody::Recovered { cause, incarnation, fence_floor: Fence(0) };
    follow(&mut witness, 0, body).unwrap();
    for says_so in [true, false] {
        assert_eq!(acquired(&mut witness, "/a", says_so), Ok(()));
    }
}

#[test]
fn who_may_have_been_told_need_not_be() {
    for says_so in [false, true] {
        let mut witness = witness();
        witness.doubts(1, &[target("/a")], &[], Says::May);
        assert_eq!(acquired(&mut witness, 0, ALICE, says_so), Ok(()));
        witness.knows(1);
        assert!(is_breach(&acquired(&mut witness, 0, BOB, true)));
    }
}

#[test]
fn who_is_handed_a_lock_has_to_be_told_as_well() {
    let mut witness = witness();
    acquired(&mut witness, 0, ALICE, false).unwrap();
    crashed(&mut witness, 10);
    let before = grant(ALICE, Mode::Exclusive, 0, false);
    let lock = leasehold_core::event::Subject {
        lock_id: ALICE,
        fence: before.fence,
        resources: before.resources.clone(),
        holder: before.holder,
        dialect: before.dialect,
    };
    let to = Box::new(grant(BOB, Mode::Exclusive, 20, false));
    assert!(is_breach(&follow(&mut witness, 20, EventBody::Transferred { lock, to })));
}

#[test]
fn sharers_need_not_be_told_of_the_writes_of_sharers_which_they_may_meet() {
    for (tokens, must) in [(vec![ALICE], false), (Vec::new(), true)] {
        let mut witness = witness();
        let shared = |lock_id| Box::new(grant(lock_id, Mode::Shared, 0, false));
        follow(&mut witness, 0, EventBody::Acquired(shared(ALICE))).unwrap();
        witness.doubts(1, &[target("/a")], &tokens, Says::Must);
        let beside = follow(&mut witness, 0, EventBody::Acquired(shared(BOB)));
        assert_eq!(is_breach(&beside), must);
    }
}
