//! Deadlines: never early, not late, and in bounded chunks.

use std::pin::pin;
use std::time::{Duration, Instant};

use leasehold_core::refusal::AcquireRefusal;
use leasehold_core::time::WallTime;
use leasehold_engine::{EngineError, EngineOptions, Refused};

use super::common::*;

#[tokio::test]
async fn a_lock_ends_at_its_deadline_and_its_waiter_is_served_without_a_nudge() {
    let world = World::new();
    let lock = world.granted(acquire("alice", "/x").ttl(10_000)).await;
    let mut waiter = pin!(world.engine.acquire(acquire("bob", "/x").waiting(30_000)));
    assert!(still_waits(waiter.as_mut()).await);
    world.clock.advance(Duration::from_millis(9999));
    assert!(still_waits(waiter.as_mut()).await);
    assert_eq!(world.engine.remaining_ms(lock.deadline), 1);
    world.clock.advance(Duration::from_millis(1));
    let grant = soon(waiter).await.unwrap();
    assert_eq!(grant.granted.lock.grant.waited_ms, 10_000);
    grant.delivery.delivered();
    assert_eq!(names(&world.end().await), ["acquired", "expired", "acquired"]);
}

#[tokio::test]
async fn what_was_promised_is_kept_to_the_part_of_a_millisecond() {
    let world = World::new();
    world.clock.advance(Duration::from_micros(700));
    let lock = world.granted(acquire("alice", "/x").ttl(1000)).await;
    world.clock.advance(Duration::from_micros(1));
    let promised = Duration::from_millis(world.engine.remaining_ms(lock.deadline));
    // Counted from when it was told, to the nanosecond before it is over.
    world.clock.advance(promised.checked_sub(Duration::from_nanos(1)).unwrap());
    let refused = soon(world.engine.acquire(acquire("bob", "/x"))).await.unwrap_err();
    assert!(matches!(refused, Refused::By(AcquireRefusal::Locked(_))), "{refused}");
    world.end().await;
}

#[tokio::test]
async fn an_earlier_deadline_that_comes_later_is_kept() {
    let world = World::new();
    let late = world.granted(acquire("alice", "/late").ttl(60_000)).await;
    let mut first = pin!(world.engine.acquire(acquire("bob", "/late").waiting(20_000)));
    assert!(still_waits(first.as_mut()).await);
    // Later, earlier, gone, and earlier again: the timer follows.
    let mut second = Box::pin(world.engine.acquire(acquire("carol", "/late").waiting(500)));
    assert!(still_waits(second.as_mut()).await);
    drop(second);
    let mut third = pin!(world.engine.acquire(acquire("carol", "/late").waiting(700)));
    assert!(still_waits(third.as_mut()).await);
    world.clock.advance(Duration::from_millis(500));
    assert!(still_waits(third.as_mut()).await);
    world.clock.advance(Duration::from_millis(200));
    let refused = soon(third).await.unwrap_err();
    let Refused::By(AcquireRefusal::Locked(found)) = refused else { panic!("{refused}") };
    assert_eq!(found.waited_ms, 700);
    soon(world.engine.renew(renew(&late, 1000))).await.unwrap();
    world.clock.advance(Duration::from_millis(1000));
    soon(first).await.unwrap().delivery.delivered();
    world.end().await;
}

#[tokio::test]
async fn by_the_systems_clock_a_short_wait_ends_in_time() {
    use leasehold_engine::start::Loading;
    let folder = tempfile::tempdir().unwrap();
    let data = leasehold_journal::folder::DataFolder::open(folder.path()).unwrap();
    let clock = std::sync::Arc::new(leasehold_engine::SystemClock::new());
    let classify = |_: &_| leasehold_core::event::WriteResult::Unknown;
    let running = Loading::open(data, EngineOptions::default())
        .unwrap()
        .start(clock, std::sync::Arc::new(()), std::sync::Arc::new(classify))
        .unwrap();
    let engine = running.engine().clone();
    let settler = tokio::spawn(engine.clone().run());
    soon(engine.acquire(acquire("alice", "/x"))).await.unwrap().delivery.delivered();
    // The timer sleeps for longer than this by now.
    let began = Instant::now();
    soon(engine.acquire(acquire("bob", "/x").waiting(50))).await.unwrap_err();
    let took = began.elapsed();
    // The lease clock counts whole milliseconds: the wait began at the last whole one.
    assert!(Duration::from_millis(49) <= took, "{took:?}");
    assert!(took < Duration::from_millis(600), "{took:?}");
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    soon(settler).await.unwrap();
}

#[tokio::test]
async fn a_grant_whose_deadline_passed_before_it_could_be_told_is_no_grant() {
    let world = World::new();
    world.gate.hold();
    let mut slow = pin!(world.engine.acquire(acquire("alice", "/x").ttl(1000)));
    assert!(still_waits(slow.as_mut()).await);
    world.clock.advance(Duration::from_secs(1));
    world.gate.release();
    let refused = soon(slow).await.unwrap_err();
    assert!(matches!(refused, Refused::Engine(EngineError::ExpiredBeforeTold)), "{refused}");
    world.locked("bob", "/x").await;
    assert_eq!(names(&world.end().await), ["acquired", "expired", "acquired"]);
}

#[tokio::test]
async fn a_handed_over_lock_that_has_ended_before_it_could_be_told_is_no_grant() {
    let world = World::new();
    let lock = world.granted(acquire("alice", "/x").ttl(1000)).await;
    world.gate.hold();
    let mut slow = pin!(world.engine.transfer(transfer(&lock, "bob", 0)));
    assert!(still_waits(slow.as_mut()).await);
    world.clock.advance(Duration::from_secs(1));
    world.gate.release();
    let refused = soon(slow).await.unwrap_err();
    assert!(matches!(refused, Refused::Engine(EngineError::ExpiredBeforeTold)), "{refused}");
}

#[tokio::test]
async fn a_freeze_ends_when_its_wall_time_has_come_also_if_somebody_sets_the_clock() {
    let world = World::new();
    let until = WallTime(1_795_176_000_000 + 3_600_000);
    soon(world.engine.freeze(freeze("/x", until, 0))).await.unwrap();
    let mut waiter = pin!(world.engine.acquire(acquire("bob", "/x")));
    let refused = soon(waiter.as_mut()).await.unwrap_err();
    assert!(matches!(refused, Refused::By(AcquireRefusal::Frozen(_))), "{refused}");
    world.clock.set_wall(until);
    // The timer looks at the wall clock at least once a second.
    world.clock.advance(Duration::from_secs(1));
    let mut seen = world.engine.durable();
    let before = *seen.borrow();
    soon(seen.wait_for(|durable| before < *durable)).await.unwrap();
    world.locked("bob", "/x").await;
    assert_eq!(names(&world.end().await), ["frozen", "unfrozen", "acquired"]);
}

#[tokio::test]
async fn many_locks_that_end_at_once_let_commands_in_between() {
    let world = World::new();
    for set in 0..20 {
        world.gate.hold();
        let mut grants: Vec<_> = (0..1000)
            .map(|at| Box::pin(world.engine.acquire(acquire("alice", &format!("/{set}/{at}")))))
            .collect();
        // All are decided before the first is waited for, so few commits do.
        grants.iter_mut().for_each(|grant| assert!(step(grant.as_mut()).is_pending()));
        world.gate.release();
        for grant in grants {
            soon(grant).await.unwrap().delivery.delivered();
        }
    }
    assert_eq!(world.engine.stats().locks, 20_000);
    world.clock.advance(Duration::from_secs(60));
    let (mut between, mut slowest) = (0, Duration::ZERO);
    let mut left = 20_000;
    while 0 < left {
        // A due lock is in nobody's way, whether its end is written down yet or not.
        let began = Instant::now();
        let write = write("bob", &format!("/19/{}", between % 1000), &[]);
        let mut answer = Box::pin(world.engine.admit(&write));
        if let std::task::Poll::Ready(answer) = step(answer.as_mut()) {
            drop(answer.unwrap());
        }
        slowest = slowest.max(began.elapsed());
        between += 1;
        tokio::task::yield_now().await;
        let now = world.engine.stats().locks;
        assert!(left - now <= 3500, "{left} {now}");
        left = now;
    }
    assert!(6 < between, "{between}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}
