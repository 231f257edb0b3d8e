//! Who commits: the journal's thread, or for a lone client the task that settles answers.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::event::{EventBody, RecoveryCause};
use leasehold_engine::{EngineError, Refused};

use super::common::*;

/// How many fast commits in a row it takes.
const FAST_IN_A_ROW: usize = 64;

/// Makes a commit, and says whether the settler did it, a task of the thread that asks.
async fn commits_here(world: &World) -> bool {
    let path = format!("/{}", fresh_id());
    world.locked("alice", &path).await;
    world.gate.was_appended_here()
}

async fn be_fast_for_a_while(world: &World) {
    for commit in 0..FAST_IN_A_ROW {
        assert!(!commits_here(world).await, "after {commit} fast commits");
    }
}

/// Makes commits until the settler makes one. The journal's thread may still be about to go to
/// sleep after the last of its own.
async fn until_commits_are_here(world: &World) {
    soon(async { while !commits_here(world).await {} }).await;
}

/// A world in which one client is alone, and commits have been fast for a while.
async fn lone() -> World {
    let world = World::new();
    world.alone.0.store(true, Ordering::Relaxed);
    be_fast_for_a_while(&world).await;
    until_commits_are_here(&world).await;
    world
}

#[tokio::test]
async fn a_lone_client_s_changes_are_committed_without_a_change_of_threads() {
    let world = lone().await;
    for _ in 0..10 {
        assert!(commits_here(&world).await);
    }
    world.end().await;
}

#[tokio::test]
async fn nobody_else_has_to_stand_still_for_a_commit() {
    let world = lone().await;
    world.alone.0.store(false, Ordering::Relaxed);
    assert!(!commits_here(&world).await);
    world.alone.0.store(true, Ordering::Relaxed);
    until_commits_are_here(&world).await;
    // Somebody comes after the change has been left to the settler, and before it commits.
    let mut grant = pin!(world.engine.acquire(acquire("bob", "/x")));
    assert!(step(grant.as_mut()).is_pending());
    world.alone.0.store(false, Ordering::Relaxed);
    soon(grant).await.unwrap().delivery.delivered();
    assert!(!world.gate.was_appended_here());
    world.end().await;
}

#[tokio::test]
async fn a_slow_commit_leaves_those_after_it_to_the_journal_s_thread() {
    let world = lone().await;
    world.gate.slow_down(Duration::from_millis(2));
    assert!(commits_here(&world).await, "nobody knew that it would be slow");
    assert!(!commits_here(&world).await);
    world.gate.slow_down(Duration::from_millis(1));
    be_fast_for_a_while(&world).await;
    until_commits_are_here(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_checkpoint_is_done_by_the_journal_s_thread_whoever_commits() {
    let world = lone().await;
    world.gate.checkpoint_next(false);
    assert!(commits_here(&world).await);
    assert!(!world.gate.until_checkpoints(1).await);
    until_commits_are_here(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_commit_of_the_settler_that_fails_is_unknown_and_the_log_is_brought_back() {
    for fault in [Fault::NotWritten, Fault::Written] {
        let world = lone().await;
        world.gate.fail_next(fault);
        let answer = soon(world.engine.acquire(acquire("alice", "/x"))).await;
        assert!(matches!(answer, Err(Refused::Engine(EngineError::StorageFailure))), "{fault:?}");
        assert!(world.gate.was_appended_here());
        world.until_serving().await;
        world.locked("bob", "/x").await;
        let events = world.end().await;
        let recovered = events.iter().any(|event| {
            matches!(event.body, EventBody::Recovered { cause: RecoveryCause::FailedCommit, .. })
        });
        assert!(recovered, "{fault:?}");
    }
}

#[tokio::test]
async fn a_stop_ends_it_with_everything_committed() {
    let world = lone().await;
    let locks = world.engine.stats().locks;
    let mut grant = pin!(world.engine.acquire(acquire("alice", "/x")));
    assert!(step(grant.as_mut()).is_pending());
    let events = world.end().await;
    assert_eq!(names(&events).len(), locks + 1);
    soon(grant).await.unwrap().delivery.delivered();
}
