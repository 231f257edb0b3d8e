//! Durable before said: an answer leaves only when every event it rests on is durable.

use std::pin::pin;

use leasehold_core::command::BreakLock;
use leasehold_core::event::Origin;
use leasehold_core::refusal::{AcquireRefusal, WriteRefusal};
use leasehold_engine::Refused;

use super::common::*;

#[tokio::test]
async fn a_grant_is_not_told_before_it_is_durable() {
    let world = World::new();
    world.gate.hold();
    let mut answer = pin!(world.engine.acquire(acquire("alice", "/x")));
    assert!(still_waits(answer.as_mut()).await);
    world.gate.until_begun(1).await;
    assert!(still_waits(answer.as_mut()).await);
    world.gate.release();
    soon(answer).await.unwrap().delivery.delivered();
    assert_eq!(names(&world.end().await), ["acquired"]);
}

#[tokio::test]
async fn a_refusal_is_not_told_before_the_grant_it_rests_on_is_durable() {
    let world = World::new();
    world.gate.hold();
    let mut grant = pin!(world.engine.acquire(acquire("alice", "/x")));
    assert!(still_waits(grant.as_mut()).await);
    let mut refusal = pin!(world.engine.acquire(acquire("bob", "/x")));
    assert!(still_waits(refusal.as_mut()).await);
    let bobs = write("bob", "/x", &[]);
    let mut write_refusal = pin!(world.engine.admit(&bobs));
    assert!(still_waits(write_refusal.as_mut()).await);
    let mut check_refusal = pin!(world.engine.check(&bobs));
    assert!(still_waits(check_refusal.as_mut()).await);
    let mut shown = pin!(world.engine.inspect(&bobs.resource));
    assert!(still_waits(shown.as_mut()).await);
    world.gate.release();
    let grant = soon(grant).await.unwrap();
    let refusal = soon(refusal).await.unwrap_err();
    assert!(matches!(refusal, Refused::By(AcquireRefusal::Locked(_))), "{refusal}");
    let refusal = soon(write_refusal).await.unwrap_err();
    assert!(matches!(refusal, Refused::By(WriteRefusal::Locked(_))), "{refusal}");
    assert!(soon(check_refusal).await.is_err());
    assert_eq!(soon(shown).await.unwrap().0.locks.len(), 1);
    grant.delivery.delivered();
}

#[tokio::test]
async fn every_commit_of_a_holder_is_durable_before_it_is_told() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    world.gate.hold();
    {
        let mut renewed = pin!(world.engine.renew(renew(&lock, 90_000)));
        assert!(still_waits(renewed.as_mut()).await);
        let mut released = pin!(world.engine.release(release(&lock)));
        assert!(still_waits(released.as_mut()).await);
        // How it ended is somebody else's event by then.
        let mut again = pin!(world.engine.renew(renew(&lock, 90_000)));
        assert!(still_waits(again.as_mut()).await);
        world.gate.release();
        soon(renewed).await.unwrap();
        soon(released).await.unwrap();
        soon(again).await.unwrap_err();
    }
    assert_eq!(names(&world.end().await), ["acquired", "renewed", "released"]);
}

#[tokio::test]
async fn a_write_where_nobody_was_does_not_wait_for_somebody_elses_commit() {
    let world = World::new();
    let elsewhere = world.locked("alice", "/elsewhere/x").await;
    world.gate.hold();
    let mut grant = pin!(world.engine.acquire(acquire("alice", "/other")));
    assert!(still_waits(grant.as_mut()).await);
    let mut released = pin!(world.engine.release(release(&elsewhere)));
    assert!(still_waits(released.as_mut()).await);
    world.gate.until_begun(2).await;
    let write = write("bob", "/x", &[]);
    // Both steps that an unlocked write takes.
    soon(world.engine.check(&write)).await.unwrap();
    let permit = soon(world.engine.admit(&write)).await.unwrap();
    assert_eq!(permit.admission(), None);
    drop(permit);
    world.gate.release();
    soon(grant).await.unwrap().delivery.delivered();
    soon(released).await.unwrap();
}

#[tokio::test]
async fn a_write_that_a_release_let_through_waits_for_the_release() {
    for (locked, written) in [("/x", "/x"), ("/x", "/x/below"), ("/x/y", "/x/y")] {
        let world = World::new();
        let lock = world.locked("alice", locked).await;
        world.gate.hold();
        let mut released = pin!(world.engine.release(release(&lock)));
        assert!(still_waits(released.as_mut()).await);
        let write = write("bob", written, &[]);
        let mut admitted = pin!(world.engine.admit(&write));
        assert!(still_waits(admitted.as_mut()).await, "{locked} {written}");
        world.gate.until_begun(2).await;
        assert!(still_waits(admitted.as_mut()).await, "{locked} {written}");
        assert_eq!(world.engine.stats().writes_in_flight, 1);
        world.gate.release();
        soon(released).await.unwrap();
        drop(soon(admitted).await.unwrap());
        // Once the release is durable nobody waits for it.
        world.gate.hold();
        let mut other = pin!(world.engine.acquire(acquire("carol", "/other")));
        assert!(still_waits(other.as_mut()).await);
        drop(soon(world.engine.admit(&write)).await.unwrap());
        world.gate.release();
        soon(other).await.unwrap().delivery.delivered();
    }
}

#[tokio::test]
async fn a_write_that_an_expiry_let_through_waits_for_the_expiry() {
    let world = World::new();
    world.granted(acquire("alice", "/x").ttl(1000)).await;
    world.gate.hold();
    world.clock.advance(std::time::Duration::from_secs(1));
    let write = write("bob", "/x", &[]);
    let mut admitted = pin!(world.engine.admit(&write));
    assert!(still_waits(admitted.as_mut()).await);
    world.gate.release();
    drop(soon(admitted).await.unwrap());
}

#[tokio::test]
async fn a_write_under_a_lock_waits_for_its_own_admission() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    world.gate.hold();
    let write = write("alice", "/x", &[&lock]);
    let mut admitted = pin!(world.engine.admit(&write));
    assert!(still_waits(admitted.as_mut()).await);
    world.gate.until_begun(2).await;
    assert!(still_waits(admitted.as_mut()).await);
    world.gate.release();
    let permit = soon(admitted).await.unwrap();
    assert!(permit.admission().is_some_and(|seq| seq <= world.engine.stats().durable));
}

#[tokio::test]
async fn a_handed_over_place_waits_for_the_release_and_the_grant() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let mut waiter = pin!(world.engine.acquire(acquire("bob", "/x").waiting(10_000)));
    assert!(still_waits(waiter.as_mut()).await);
    world.gate.hold();
    let mut released = pin!(world.engine.release(release(&lock)));
    assert!(still_waits(released.as_mut()).await);
    assert!(still_waits(waiter.as_mut()).await);
    world.gate.release();
    soon(released).await.unwrap();
    soon(waiter).await.unwrap().delivery.delivered();
}

#[tokio::test]
async fn a_broken_lock_and_the_answer_to_its_holder_wait_for_the_break() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    world.gate.hold();
    let command = BreakLock {
        caller: caller("admin"),
        origin: Origin::default(),
        address: leasehold_core::command::Address::Id(lock.grant.lock_id),
        lock_id: None,
        reason: "a test".into(),
        grace_ms: 0,
    };
    let mut broken = pin!(world.engine.break_lock(command));
    assert!(still_waits(broken.as_mut()).await);
    let write = write("alice", "/x", &[&lock]);
    let mut lost = pin!(world.engine.admit(&write));
    assert!(still_waits(lost.as_mut()).await);
    world.gate.release();
    soon(broken).await.unwrap();
    let lost = soon(lost).await.unwrap_err();
    assert!(matches!(lost, Refused::By(WriteRefusal::LockLost(..))), "{lost}");
}

#[tokio::test]
async fn what_gathers_during_a_commit_is_one_commit() {
    let world = World::new();
    world.gate.hold();
    let mut first = pin!(world.engine.acquire(acquire("alice", "/first")));
    assert!(still_waits(first.as_mut()).await);
    world.gate.until_begun(1).await;
    let tasks: Vec<_> = (0..50)
        .map(|at| {
            let engine = world.engine.clone();
            let command = acquire("bob", &format!("/others/{at}"));
            tokio::spawn(async move { engine.acquire(command).await.unwrap().delivery.delivered() })
        })
        .collect();
    world.until(|engine| engine.stats().locks == 51).await;
    world.gate.release();
    soon(first).await.unwrap().delivery.delivered();
    for task in tasks {
        soon(task).await.unwrap();
    }
    assert_eq!(world.gate.begun(), 2);
}
