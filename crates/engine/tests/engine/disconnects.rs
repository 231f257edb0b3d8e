//! Clients that go: the future of a command is dropped wherever it waits.

use std::pin::pin;
use std::time::Duration;

use leasehold_core::event::{EventBody, WriteResult};
use leasehold_core::refusal::AcquireRefusal;
use leasehold_engine::Refused;

use super::common::*;

#[tokio::test]
async fn a_waiter_whose_client_goes_leaves_at_once() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    begin_and_drop(world.engine.acquire(acquire("bob", "/x").waiting(10_000))).await;
    assert_eq!(world.engine.stats().waiters, 0);
    let mut carol = pin!(world.engine.acquire(acquire("carol", "/x").waiting(10_000)));
    assert!(still_waits(carol.as_mut()).await);
    soon(world.engine.release(release(&lock))).await.unwrap();
    soon(carol).await.unwrap().delivery.delivered();
    assert_eq!(names(&world.end().await), ["acquired", "released", "acquired"]);
}

#[tokio::test]
async fn a_waiter_who_leaves_lets_the_one_behind_him_go_on() {
    let world = World::new();
    world.locked("alice", "/x/y").await;
    let mut bob = Box::pin(world.engine.acquire(acquire("bob", "/x").waiting(10_000)));
    assert!(still_waits(bob.as_mut()).await);
    // Only bob, who is before him, is in carol's way.
    let mut carol = pin!(world.engine.acquire(acquire("carol", "/x/z").waiting(10_000)));
    assert!(still_waits(carol.as_mut()).await);
    drop(bob);
    soon(carol).await.unwrap().delivery.delivered();
}

#[tokio::test]
async fn a_grant_whose_client_goes_before_it_is_durable_is_given_back() {
    let world = World::new();
    world.gate.hold();
    begin_and_drop(world.engine.acquire(acquire("alice", "/x"))).await;
    assert_eq!(world.engine.stats().locks, 0);
    world.gate.release();
    world.locked("bob", "/x").await;
    let events = world.end().await;
    assert_eq!(names(&events), ["acquired", "released", "acquired"]);
    assert!(matches!(events[2].body, EventBody::Released { undelivered: true, .. }));
}

#[tokio::test]
async fn a_waiter_granted_in_the_moment_its_client_goes_gives_the_grant_back() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let mut bob = Box::pin(world.engine.acquire(acquire("bob", "/x").waiting(10_000)));
    assert!(step(bob.as_mut()).is_pending());
    let mut carol = pin!(world.engine.acquire(acquire("carol", "/x").waiting(10_000)));
    assert!(step(carol.as_mut()).is_pending());
    soon(world.engine.release(release(&lock))).await.unwrap();
    // Granted, and not looked at since.
    drop(bob);
    let grant = soon(carol).await.unwrap();
    assert!(grant.granted.lock.grant.holder.as_str() == "carol");
    grant.delivery.delivered();
    let names = names(&world.end().await);
    assert_eq!(names, ["acquired", "released", "acquired", "released", "acquired"]);
}

#[tokio::test]
async fn a_grant_that_is_dropped_before_delivery_is_given_back_and_one_after_it_is_not() {
    let world = World::new();
    drop(soon(world.engine.acquire(acquire("alice", "/x"))).await.unwrap());
    assert_eq!(world.engine.stats().locks, 0);
    soon(world.engine.acquire(acquire("alice", "/x"))).await.unwrap().delivery.delivered();
    assert_eq!(world.engine.stats().locks, 1);
    world.clock.advance(Duration::from_secs(11));
    soon(world.engine.acquire(acquire("bob", "/x"))).await.unwrap_err();
}

#[tokio::test]
async fn a_grant_with_a_key_waits_ten_seconds_for_the_retry() {
    let world = World::new();
    let asked = || world.engine.acquire(acquire("alice", "/x").keyed("k"));
    drop(soon(asked()).await.unwrap());
    world.clock.advance(Duration::from_millis(9999));
    let grant = soon(asked()).await.unwrap();
    assert!(grant.granted.replayed);
    grant.delivery.delivered();
    // Collected: it lives as long as was promised.
    world.clock.advance(Duration::from_secs(30));
    soon(world.engine.acquire(acquire("bob", "/x"))).await.unwrap_err();
    world.end().await;

    let world = World::new();
    drop(soon(world.engine.acquire(acquire("alice", "/x").keyed("k"))).await.unwrap());
    world.clock.advance(Duration::from_millis(10_000));
    world.locked("bob", "/x").await;
    let gone = soon(world.engine.acquire(acquire("alice", "/x").keyed("k"))).await.unwrap_err();
    assert!(matches!(gone, Refused::By(AcquireRefusal::Gone(_))), "{gone}");
    world.end().await;
}

#[tokio::test]
async fn a_retry_that_was_told_keeps_the_lock_when_the_first_answer_is_lost_later() {
    let world = World::new();
    let asked = || world.engine.acquire(acquire("alice", "/x").keyed("k"));
    let first = soon(asked()).await.unwrap();
    let retry = soon(asked()).await.unwrap();
    assert!(retry.granted.replayed);
    retry.delivery.delivered();
    // Only now the server learns that the first connection has gone.
    drop(first.delivery);
    world.clock.advance(Duration::from_secs(11));
    soon(world.engine.acquire(acquire("bob", "/x"))).await.unwrap_err();
    assert_eq!(names(&world.end().await), ["acquired"]);
}

#[tokio::test]
async fn a_retry_whose_answer_is_lost_as_well_does_not_keep_the_lock() {
    let world = World::new();
    let asked = || world.engine.acquire(acquire("alice", "/x").keyed("k"));
    drop(soon(asked()).await.unwrap());
    world.clock.advance(Duration::from_secs(5));
    drop(soon(asked()).await.unwrap());
    world.clock.advance(Duration::from_secs(9));
    assert_eq!(world.engine.stats().locks, 1);
    world.clock.advance(Duration::from_secs(1));
    world.locked("bob", "/x").await;

    // Two answers at once, and both are lost.
    let world = World::new();
    let asked = || world.engine.acquire(acquire("alice", "/x").keyed("k"));
    let (first, retry) = (soon(asked()).await.unwrap(), soon(asked()).await.unwrap());
    drop(retry);
    world.clock.advance(Duration::from_secs(20));
    soon(world.engine.acquire(acquire("bob", "/x"))).await.unwrap_err();
    drop(first);
    world.clock.advance(Duration::from_secs(10));
    world.locked("bob", "/x").await;
}

#[tokio::test]
async fn a_retry_that_is_lost_takes_nothing_from_who_was_told() {
    let world = World::new();
    let asked = || world.engine.acquire(acquire("alice", "/x").keyed("k"));
    soon(asked()).await.unwrap().delivery.delivered();
    drop(soon(asked()).await.unwrap());
    world.clock.advance(Duration::from_secs(11));
    soon(world.engine.acquire(acquire("bob", "/x"))).await.unwrap_err();
}

#[tokio::test]
async fn an_admission_whose_client_goes_while_it_waits_unpins() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    world.gate.hold();
    begin_and_drop(world.engine.admit(&write("alice", "/x", &[&lock]))).await;
    assert_eq!(world.engine.stats().writes_in_flight, 0);
    world.gate.release();
    assert_eq!(results(&world.end().await), [WriteResult::NotSent]);
}

#[tokio::test]
async fn a_permit_that_is_dropped_says_what_it_knows() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let write = write("alice", "/x", &[&lock]);
    drop(soon(world.engine.admit(&write)).await.unwrap());
    let mut permit = soon(world.engine.admit(&write)).await.unwrap();
    permit.sending();
    drop(permit);
    let mut permit = soon(world.engine.admit(&write)).await.unwrap();
    permit.sending();
    permit.complete(WriteResult::Answered(204));
    assert_eq!(world.engine.stats().writes_in_flight, 0);
    let expected = [WriteResult::NotSent, WriteResult::Unknown, WriteResult::Answered(204)];
    assert_eq!(results(&world.end().await), expected);
}

#[tokio::test]
async fn what_a_panic_drops_does_not_take_the_process_with_it() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let mut permit = soon(world.engine.admit(&write("alice", "/x", &[&lock]))).await.unwrap();
    permit.sending();
    let grant = soon(world.engine.acquire(acquire("bob", "/y"))).await.unwrap();
    let engine = world.engine.clone();
    let task = tokio::spawn(async move {
        let _held = (permit, grant);
        let mut waiter = pin!(engine.acquire(acquire("carol", "/x").waiting(10_000)));
        assert!(step(waiter.as_mut()).is_pending());
        panic!("a test");
    });
    assert!(soon(task).await.unwrap_err().is_panic());
    let stats = world.engine.stats();
    assert_eq!((stats.locks, stats.waiters, stats.writes_in_flight), (1, 0, 0));
    world.end().await;
}

#[tokio::test]
async fn a_transfer_that_nobody_waits_for_any_more_does_not_happen() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let permit = soon(world.engine.admit(&write("alice", "/x", &[&lock]))).await.unwrap();
    begin_and_drop(world.engine.transfer(transfer(&lock, "bob", 10_000))).await;
    permit.complete(WriteResult::Answered(204));
    soon(world.engine.renew(renew(&lock, 60_000))).await.unwrap();
    // One that was carried out while nobody looked is told to whoever repeats it.
    world.gate.hold();
    begin_and_drop(world.engine.transfer(transfer(&lock, "bob", 10_000))).await;
    world.gate.release();
    let again = soon(world.engine.transfer(transfer(&lock, "bob", 10_000))).await.unwrap();
    assert_eq!(again.lock.grant.holder.as_str(), "bob");
    world.end().await;
}

#[tokio::test]
async fn a_freeze_holds_although_nobody_waits_for_its_answer() {
    for held_up in [false, true] {
        let world = World::new();
        let permit = soon(world.engine.admit(&write("alice", "/x", &[]))).await.unwrap();
        let until = leasehold_core::time::WallTime(i64::MAX);
        if held_up {
            world.gate.hold();
        }
        begin_and_drop(world.engine.freeze(freeze("/x", until, 10_000))).await;
        world.gate.release();
        permit.complete(WriteResult::Answered(204));
        let refused = soon(world.engine.admit(&write("alice", "/x", &[]))).await.unwrap_err();
        assert!(matches!(refused, Refused::By(_)), "{refused}");
        world.end().await;
    }
}
