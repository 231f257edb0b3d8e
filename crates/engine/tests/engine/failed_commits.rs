//! A failed commit is unknown, not undone.

use std::pin::pin;
use std::time::Duration;

use leasehold_core::event::{EventBody, RecoveryCause, WriteResult};
use leasehold_core::refusal::{AcquireRefusal, WriteRefusal};
use leasehold_engine::{EngineError, Refused};

use super::common::*;

const BOTH: [Fault; 2] = [Fault::NotWritten, Fault::Written];

fn failed<T: std::fmt::Debug, R: std::fmt::Debug + std::fmt::Display>(
    answer: Result<T, Refused<R>>,
) -> EngineError {
    match answer {
        Err(Refused::Engine(error)) => error,
        other => panic!("this was an answer: {other:?}"),
    }
}

#[tokio::test]
async fn whoever_waits_for_a_commit_that_fails_is_told_so_and_nothing_is_answered_meanwhile() {
    for fault in BOTH {
        let world = World::new();
        let held = world.locked("alice", "/held").await;
        let mut queued = pin!(world.engine.acquire(acquire("bob", "/held").waiting(10_000)));
        assert!(still_waits(queued.as_mut()).await);
        world.gate.hold();
        world.gate.fail_next(fault);
        world.gate.hold_reopen();
        let mut granted = pin!(world.engine.acquire(acquire("alice", "/x")));
        assert!(still_waits(granted.as_mut()).await);
        let mut refused = pin!(world.engine.acquire(acquire("bob", "/x")));
        assert!(still_waits(refused.as_mut()).await);
        world.gate.until_begun(2).await;
        // The next group, decided while this one is being written.
        let mut next = pin!(world.engine.acquire(acquire("carol", "/y")));
        assert!(still_waits(next.as_mut()).await);
        world.gate.release();
        world.gate.until_reopened(1).await;

        assert_eq!(failed(soon(granted).await), EngineError::StorageFailure, "{fault:?}");
        assert_eq!(failed(soon(refused).await), EngineError::StorageFailure, "{fault:?}");
        assert_eq!(failed(soon(next).await), EngineError::StorageFailure, "{fault:?}");
        assert_eq!(failed(soon(queued).await), EngineError::StorageFailure, "{fault:?}");

        let engine = &world.engine;
        assert!(!engine.is_serving());
        assert_eq!(failed(engine.acquire(acquire("bob", "/z")).await), EngineError::Unavailable);
        assert_eq!(failed(engine.renew(renew(&held, 1000)).await), EngineError::Unavailable);
        let unlocked = write("bob", "/z", &[]);
        assert_eq!(failed(engine.check(&unlocked).await), EngineError::Unavailable);
        assert_eq!(failed(engine.admit(&unlocked).await), EngineError::Unavailable);
        assert!(engine.inspect(&unlocked.resource).await.is_err());

        world.gate.let_reopen();
        world.until_serving().await;
        // What was durable is still there, what was told to nobody is not held against anybody.
        soon(engine.renew(renew(&held, 60_000))).await.unwrap();
        world.locked("carol", "/y").await;
        world.locked("dave", "/x").await;
        let events = world.end().await;
        let recovered = events.iter().any(|event| {
            matches!(event.body, EventBody::Recovered { cause: RecoveryCause::FailedCommit, .. })
        });
        assert!(recovered, "{fault:?}");
    }
}

#[tokio::test]
async fn nothing_is_answered_before_a_recovered_of_ours_is_durable() {
    let world = World::new();
    world.gate.hold();
    world.gate.fail_next(Fault::NotWritten);
    let mut granted = pin!(world.engine.acquire(acquire("alice", "/x")));
    assert!(still_waits(granted.as_mut()).await);
    world.gate.release();
    failed(soon(granted).await);
    world.until_serving().await;
    // Twice more, and this time `recovered` itself is held up, and fails in both ways.
    for fault in BOTH {
        world.gate.fail_next(Fault::NotWritten);
        let begun = world.gate.begun();
        world.gate.hold();
        let mut granted = pin!(world.engine.acquire(acquire("alice", "/x")));
        assert!(still_waits(granted.as_mut()).await);
        world.gate.fail_next(fault);
        world.gate.release();
        failed(soon(granted).await);
        world.gate.until_begun(begun + 3).await;
        world.until_serving().await;
    }
    let lock = world.locked("alice", "/x").await;
    assert_eq!(world.engine.stats().locks, 1);
    let write = write("alice", "/x", &[&lock]);
    drop(soon(world.engine.admit(&write)).await.unwrap());
    world.end().await;
}

#[tokio::test]
async fn the_log_is_tried_again_until_it_opens() {
    let world = World::new();
    world.gate.fail_next(Fault::Written);
    world.gate.fail_reopens(2);
    let command = acquire("alice", "/x").keyed("k");
    assert_eq!(failed(soon(world.engine.acquire(command)).await), EngineError::StorageFailure);
    world.gate.until_reopened(3).await;
    world.until_serving().await;
    assert_eq!(world.engine.stats().locks, 1);
}

#[tokio::test]
async fn a_checkpoint_that_fails_takes_back_nothing() {
    let world = World::new();
    let held = world.locked("alice", "/x").await;
    world.gate.hold();
    let mut granted = pin!(world.engine.acquire(acquire("bob", "/y")));
    assert!(still_waits(granted.as_mut()).await);
    world.gate.until_begun(2).await;
    let mut next = pin!(world.engine.acquire(acquire("carol", "/z")));
    assert!(still_waits(next.as_mut()).await);
    world.gate.checkpoint_next(true);
    world.gate.hold_reopen();
    world.gate.release();
    world.gate.until_reopened(1).await;
    // Nobody had come to answer it before the checkpoint failed.
    soon(granted).await.unwrap().delivery.delivered();
    assert_eq!(failed(soon(next).await), EngineError::StorageFailure);
    world.gate.let_reopen();
    world.until_serving().await;
    assert_eq!(world.engine.stats().locks, 2);
    soon(world.engine.renew(renew(&held, 60_000))).await.unwrap();
    assert_eq!(names(&world.end().await), ["acquired", "acquired", "renewed"]);
}

#[tokio::test]
async fn a_retry_with_its_key_learns_what_became_of_an_unknown_commit() {
    for fault in BOTH {
        let world = World::new();
        world.gate.fail_next(fault);
        let command = acquire("alice", "/x").keyed("k");
        let first = command.lock_id;
        assert_eq!(failed(soon(world.engine.acquire(command)).await), EngineError::StorageFailure);
        world.until_serving().await;
        // A while later: nobody has given the lock back.
        world.clock.advance(Duration::from_secs(20));
        let grant = soon(world.engine.acquire(acquire("alice", "/x").keyed("k"))).await.unwrap();
        assert_eq!(grant.granted.replayed, fault == Fault::Written);
        assert_eq!(grant.granted.lock.grant.lock_id == first, fault == Fault::Written);
        grant.delivery.delivered();
        assert_eq!(names(&world.end().await), ["acquired"], "{fault:?}");
    }
}

#[tokio::test]
async fn a_grant_that_nobody_can_ever_learn_of_is_given_back() {
    let world = World::new();
    world.gate.fail_next(Fault::Written);
    failed(soon(world.engine.acquire(acquire("alice", "/x"))).await);
    world.until_serving().await;
    world.locked("bob", "/x").await;
    assert_eq!(names(&world.end().await), ["acquired", "released", "acquired"]);
}

#[tokio::test]
async fn an_answer_that_was_lost_while_the_log_failed_is_made_up_for() {
    let world = World::new();
    let grant = soon(world.engine.acquire(acquire("alice", "/x"))).await.unwrap();
    world.gate.fail_next(Fault::NotWritten);
    world.gate.hold_reopen();
    failed(soon(world.engine.acquire(acquire("bob", "/y"))).await);
    // Durable, and its client goes while the log does not work.
    drop(grant.delivery);
    world.gate.let_reopen();
    world.until_serving().await;
    world.locked("bob", "/x").await;
    world.end().await;
}

#[tokio::test]
async fn writes_on_their_way_stay_pinned_through_a_failure() {
    for fault in BOTH {
        let world = World::new();
        let lock = world.locked("alice", "/locked").await;
        let under_lock = write("alice", "/locked", &[&lock]);
        let under_lock = soon(world.engine.admit(&under_lock)).await.unwrap();
        let unlocked = soon(world.engine.admit(&write("bob", "/free", &[]))).await.unwrap();
        world.gate.fail_next(fault);
        // The release is decided, and then nobody knows whether it happened.
        failed(soon(world.engine.release(release(&lock))).await);
        world.until_serving().await;
        assert_eq!(world.engine.stats().writes_in_flight, 2, "{fault:?}");
        assert!(world.asked.lock().unwrap().is_empty(), "their end is not guessed at");

        let mut free = pin!(world.engine.acquire(acquire("carol", "/free")));
        assert!(still_waits(free.as_mut()).await);
        let mut locked = pin!(world.engine.acquire(acquire("carol", "/locked").waiting(30_000)));
        assert!(still_waits(locked.as_mut()).await);
        unlocked.complete(WriteResult::Answered(204));
        soon(free).await.unwrap().delivery.delivered();
        under_lock.complete(WriteResult::Answered(204));
        if fault == Fault::NotWritten {
            assert!(still_waits(locked.as_mut()).await);
            soon(world.engine.release(release(&lock))).await.unwrap();
        }
        soon(locked).await.unwrap().delivery.delivered();
        let events = world.end().await;
        assert_eq!(results(&events), [WriteResult::Answered(204)], "{fault:?}");
    }
}

#[tokio::test]
async fn a_write_that_ends_while_the_log_is_brought_back_is_written_down_after() {
    for fault in BOTH {
        let world = World::new();
        let lock = world.locked("alice", "/x").await;
        let permit = soon(world.engine.admit(&write("alice", "/x", &[&lock]))).await.unwrap();
        world.gate.fail_next(fault);
        world.gate.hold_reopen();
        failed(soon(world.engine.acquire(acquire("bob", "/y"))).await);
        permit.complete(WriteResult::Answered(201));
        world.gate.let_reopen();
        world.until_serving().await;
        world.until(|engine| engine.stats().writes_in_flight == 0).await;
        let events = world.end().await;
        assert_eq!(results(&events), [WriteResult::Answered(201)], "{fault:?}");
    }
}

#[tokio::test]
async fn an_admission_whose_commit_failed_lets_nothing_through() {
    for fault in BOTH {
        let world = World::new();
        let lock = world.locked("alice", "/x").await;
        world.gate.fail_next(fault);
        let write = write("alice", "/x", &[&lock]);
        assert_eq!(failed(soon(world.engine.admit(&write)).await), EngineError::StorageFailure);
        world.until_serving().await;
        world.until(|engine| engine.stats().writes_in_flight == 0).await;
        let events = world.end().await;
        let expected: &[WriteResult] =
            if fault == Fault::Written { &[WriteResult::NotSent] } else { &[] };
        assert_eq!(results(&events), expected, "{fault:?}");
    }
}

#[tokio::test]
async fn an_end_that_was_never_written_down_is_asked_for() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let permit = soon(world.engine.admit(&write("alice", "/x", &[&lock]))).await.unwrap();
    let admission = permit.admission().unwrap();
    world.gate.hold();
    world.gate.fail_next(Fault::NotWritten);
    world.gate.hold_reopen();
    permit.complete(WriteResult::Answered(204));
    world.gate.release();
    world.until(|engine| !engine.is_serving()).await;
    world.gate.let_reopen();
    world.until_serving().await;
    assert_eq!(world.asked.lock().unwrap()[0].seq, admission);
    // Nothing before it may be forgotten until its end is durable.
    let (before, newest) = world.engine.closed_admissions();
    assert!(newest <= world.engine.stats().durable && admission < before);
    assert_eq!(results(&world.end().await), [WriteResult::Applied]);
}

#[tokio::test]
async fn positions_that_are_not_durable_do_not_count_as_closed() {
    let world = World::new();
    world.gate.hold();
    let mut granted = pin!(world.engine.acquire(acquire("alice", "/x")));
    assert!(still_waits(granted.as_mut()).await);
    let (before, newest) = world.engine.closed_admissions();
    let durable = world.engine.stats().durable;
    assert!(before <= durable.next() && durable < newest);
    world.gate.release();
    soon(granted).await.unwrap().delivery.delivered();
}

#[tokio::test]
async fn the_lease_clock_stands_still_while_the_log_does_not_work() {
    let world = World::new();
    let lock = world.granted(acquire("alice", "/x").ttl(10_000)).await;
    world.clock.advance(Duration::from_secs(4));
    world.gate.fail_next(Fault::NotWritten);
    world.gate.hold_reopen();
    failed(soon(world.engine.acquire(acquire("bob", "/y"))).await);
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(world.engine.remaining_ms(lock.deadline), 6000);
    world.gate.let_reopen();
    world.until_serving().await;
    assert_eq!(world.engine.remaining_ms(lock.deadline), 6000);
    world.clock.advance(Duration::from_millis(5999));
    let refused = soon(world.engine.acquire(acquire("bob", "/x"))).await.unwrap_err();
    assert!(matches!(refused, Refused::By(AcquireRefusal::Locked(_))), "{refused}");
    world.clock.advance(Duration::from_millis(1));
    world.locked("bob", "/x").await;
    world.end().await;
}

#[tokio::test]
async fn an_answer_of_before_the_failure_is_not_taken_for_durable_after_it() {
    // Decided before the failure, looked at only when other events have its position.
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let queued_for = world.locked("alice", "/q").await;
    world.gate.hold();
    world.gate.fail_next(Fault::NotWritten);
    world.gate.hold_reopen();
    let mut waiter = pin!(world.engine.acquire(acquire("dave", "/q").waiting(30_000)));
    assert!(step(waiter.as_mut()).is_pending());
    let mut handed_on = pin!(world.engine.release(release(&queued_for)));
    assert!(step(handed_on.as_mut()).is_pending());
    let mut released = pin!(world.engine.release(release(&lock)));
    assert!(step(released.as_mut()).is_pending());
    let unlocked = write("bob", "/x", &[]);
    let mut admitted = pin!(world.engine.admit(&unlocked));
    assert!(step(admitted.as_mut()).is_pending());
    let mut granted = pin!(world.engine.acquire(acquire("bob", "/z")));
    assert!(step(granted.as_mut()).is_pending());
    world.gate.release();
    world.until(|engine| !engine.is_serving()).await;
    world.gate.let_reopen();
    world.until_serving().await;
    for at in 0..10 {
        world.locked("carol", &format!("/many/{at}")).await;
    }
    // Granted by the release, and not looked at since.
    assert_eq!(failed(soon(waiter).await), EngineError::StorageFailure);
    assert_eq!(failed(soon(handed_on).await), EngineError::StorageFailure);
    assert_eq!(failed(soon(released).await), EngineError::StorageFailure);
    assert_eq!(failed(soon(admitted).await), EngineError::StorageFailure);
    assert_eq!(failed(soon(granted).await), EngineError::StorageFailure);
    // The release did not happen, so the write of a stranger must not have been let through.
    let refused = soon(world.engine.admit(&unlocked)).await.unwrap_err();
    assert!(matches!(refused, Refused::By(WriteRefusal::Locked(_))), "{refused}");
    assert_eq!(world.engine.stats().writes_in_flight, 0);
    world.end().await;
}

#[tokio::test]
async fn limits_that_change_while_the_log_is_brought_back_hold_after_it() {
    let world = World::new();
    world.gate.fail_next(Fault::NotWritten);
    world.gate.hold_reopen();
    failed(soon(world.engine.acquire(acquire("alice", "/x"))).await);
    let limits =
        leasehold_core::table::TableLimits { max_locks: 1, max_waiters: 10, ..Default::default() };
    world.engine.set_limits(limits);
    world.gate.let_reopen();
    world.until_serving().await;
    world.locked("alice", "/x").await;
    let refused = soon(world.engine.acquire(acquire("alice", "/y"))).await.unwrap_err();
    assert!(matches!(refused, Refused::By(AcquireRefusal::TooManyLocks { .. })), "{refused}");
}
