//! Stopping: everybody is told, everything is written down, and the end is marked as clean.

use std::pin::pin;

use leasehold_core::event::{EventBody, RecoveryCause, WriteResult};
use leasehold_engine::{EngineError, EngineOptions, Refused};

use super::common::*;

fn cause(folder: &std::path::Path) -> Option<RecoveryCause> {
    trail(folder).iter().rev().find_map(|event| match event.body {
        EventBody::Recovered { cause, .. } => Some(cause),
        _ => None,
    })
}

#[tokio::test]
async fn waiters_are_told_and_nobody_is_granted_anything_any_more() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let permit = soon(world.engine.admit(&write("alice", "/x", &[&lock]))).await.unwrap();
    let unlocked = soon(world.engine.admit(&write("alice", "/y", &[]))).await.unwrap();
    let mut waiters = Vec::new();
    for who in ["bob", "carol"] {
        let mut waiter = Box::pin(world.engine.acquire(acquire(who, "/x").waiting(10_000)));
        assert!(still_waits(waiter.as_mut()).await);
        waiters.push(waiter);
    }
    // This one waits for nothing but a write.
    let mut claimed = Box::pin(world.engine.acquire(acquire("dave", "/y").waiting(10_000)));
    assert!(still_waits(claimed.as_mut()).await);
    waiters.push(claimed);

    world.engine.refuse_new();
    for waiter in waiters {
        let refused = soon(waiter).await.unwrap_err();
        assert!(matches!(refused, Refused::Engine(EngineError::ShuttingDown)), "{refused}");
    }
    let refused = soon(world.engine.release(release(&lock))).await.unwrap_err();
    assert!(matches!(refused, Refused::Engine(EngineError::ShuttingDown)), "{refused}");
    assert_eq!(world.engine.stats().waiters, 0);
    // Writes on their way still end, and what they were waited for by has gone.
    unlocked.complete(WriteResult::Answered(204));
    permit.complete(WriteResult::Answered(204));
    let events = world.end().await;
    assert_eq!(names(&events), ["acquired", "write_admitted", "write_completed"]);
}

#[tokio::test]
async fn what_has_gathered_is_committed_and_its_answers_arrive() {
    let world = World::new();
    world.gate.hold();
    let engine = world.engine.clone();
    let mut first = pin!(engine.acquire(acquire("alice", "/x")));
    assert!(still_waits(first.as_mut()).await);
    world.gate.until_begun(1).await;
    let mut second = pin!(engine.acquire(acquire("bob", "/y")));
    assert!(still_waits(second.as_mut()).await);
    world.engine.count_refusal(Some(resource("/x")), None, "locked");
    let world = std::sync::Arc::new(world);
    let stopping = world.clone();
    let stopped = tokio::spawn(async move { stopping.stop().await });
    // Both are decided; neither is durable before the engine has begun to stop.
    soon(first).await.unwrap().delivery.delivered();
    soon(second).await.unwrap().delivery.delivered();
    let folder = soon(stopped).await.unwrap();
    assert_eq!(names(&trail(folder.path())), ["acquired", "acquired", "refused"]);
    let world = World::over(folder, EngineOptions::default());
    assert_eq!(world.engine.stats().locks, 2);
    assert_eq!(cause(world.folder.path()), Some(RecoveryCause::CleanStart));
    world.end().await;
}

#[tokio::test]
async fn a_grant_that_is_lost_while_the_engine_stops_is_given_back() {
    let world = World::new();
    let grant = soon(world.engine.acquire(acquire("alice", "/x"))).await.unwrap();
    let lock = world.locked("alice", "/z").await;
    let mut waiter = Box::pin(world.engine.acquire(acquire("bob", "/z").waiting(10_000)));
    assert!(step(waiter.as_mut()).is_pending());
    soon(world.engine.release(release(&lock))).await.unwrap();
    world.engine.refuse_new();
    drop(grant);
    drop(waiter);
    let folder = world.stop().await;
    let world = World::over(folder, EngineOptions::default());
    assert_eq!(world.engine.stats().locks, 0);
    world.end().await;
}

#[tokio::test]
async fn a_write_that_outlives_the_engine_is_left_to_the_next_start() {
    let world = World::new();
    let lock = world.locked("alice", "/x").await;
    let mut permit = soon(world.engine.admit(&write("alice", "/x", &[&lock]))).await.unwrap();
    permit.sending();
    world.engine.refuse_new();
    // Whoever carried it out was ended with the runtime.
    drop(permit);
    let folder = world.stop().await;
    assert_eq!(results(&trail(folder.path())), []);
    let world = World::over(folder, EngineOptions::default());
    assert_eq!(world.asked.lock().unwrap().len(), 1);
    assert_eq!(results(&world.end().await), [WriteResult::Applied]);
}

#[tokio::test]
async fn an_engine_that_stops_while_its_log_does_not_work_stops_all_the_same() {
    let world = World::new();
    world.gate.fail_next(Fault::NotWritten);
    world.gate.fail_reopens(usize::MAX);
    soon(world.engine.acquire(acquire("alice", "/x"))).await.unwrap_err();
    world.gate.until_reopened(1).await;
    world.engine.refuse_new();
    let folder = world.stop().await;
    let world = World::over(folder, EngineOptions::default());
    assert_eq!(cause(world.folder.path()), Some(RecoveryCause::Crash));
    world.end().await;
}

#[tokio::test]
async fn an_engine_that_was_told_to_stop_while_its_log_failed_does_not_serve_again() {
    let world = World::new();
    world.gate.fail_next(Fault::NotWritten);
    world.gate.hold_reopen();
    soon(world.engine.acquire(acquire("alice", "/x"))).await.unwrap_err();
    world.gate.until_reopened(1).await;
    world.engine.refuse_new();
    let before = world.gate.begun();
    world.gate.let_reopen();
    world.gate.until_begun(before + 1).await;
    let mut durable = world.engine.durable();
    soon(durable.wait_for(|durable| durable.0 == 2)).await.unwrap();
    assert!(!world.engine.is_serving());
    soon(world.engine.acquire(acquire("alice", "/x"))).await.unwrap_err();
    let folder = world.stop().await;
    let world = World::over(folder, EngineOptions::default());
    assert_eq!(cause(world.folder.path()), Some(RecoveryCause::CleanStart));
    world.end().await;
}
