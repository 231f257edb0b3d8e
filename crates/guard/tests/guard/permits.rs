//! The pin of a write: taken when it is let through, given back when nothing of it can land.

use std::pin::pin;

use http::StatusCode;
use leasehold_core::event::WriteResult;
use leasehold_core::target::Target;
use leasehold_problems::Name;

use super::bench::*;
use super::common::*;

const ANSWERED: WriteResult = WriteResult::Answered(204);

#[tokio::test]
async fn a_write_is_pinned_until_it_is_answered() {
    let bench = Bench::new();
    bench.acts([Act::AnswerLater(204)]);
    let mut put = pin!(bench.put("/x", &[]));
    assert!(still_waits(put.as_mut()).await);
    bench.until_executed(1).await;
    assert_eq!(bench.pins(), 1);
    let mut acquired = pin!(bench.world.engine.acquire(acquire("bob", "/x")));
    assert!(still_waits(acquired.as_mut()).await);
    bench.upstream.go.add_permits(1);
    let (put, acquired) = tokio::join!(soon(put), soon(acquired));
    assert_eq!(put, Ok(StatusCode::NO_CONTENT));
    acquired.unwrap().delivery.delivered();
    assert_eq!(bench.pins(), 0);
}

#[tokio::test]
async fn a_slow_body_holds_no_pin() {
    let bench = Bench::new();
    let (body, send, touched) = slow_body();
    let request = request("PUT", "/x", &[]).map(|_| body);
    let caller = call("alice");
    {
        let mut put = pin!(bench.guard.handle(request, resource("/x"), &caller));
        assert!(still_waits(put.as_mut()).await);
        assert!(touched());
        assert_eq!(bench.pins(), 0);
        // Whoever comes first has the lock, and the write is judged when it is there.
        bench.world.locked("bob", "/x").await;
        send.send("{}".into()).unwrap();
        drop(send);
        assert_eq!(told(soon(put).await), Err(Name::Locked));
    }
    assert_eq!((bench.executed(), bench.pins()), (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_while_its_body_is_read_leaves_nothing() {
    let bench = Bench::new();
    let (body, _send, touched) = slow_body();
    let request = request("PUT", "/x", &[]).map(|_| body);
    begin_and_drop(bench.guard.handle(request, resource("/x"), &call("alice"))).await;
    assert!(touched());
    assert_eq!((bench.executed(), bench.pins()), (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_before_its_refusal_can_be_told_leaves_nothing() {
    let bench = Bench::new();
    bench.world.gate.hold();
    let mut granted = pin!(bench.world.engine.acquire(acquire("bob", "/x")));
    assert!(still_waits(granted.as_mut()).await);
    begin_and_drop(bench.put("/x", &[])).await;
    assert_eq!((bench.executed(), bench.pins()), (0, 0));
    bench.world.gate.release();
    soon(granted).await.unwrap().delivery.delivered();
}

#[tokio::test]
async fn a_client_that_goes_before_its_admission_is_durable_has_sent_nothing() {
    let bench = Bench::new();
    let lock = bench.world.locked("alice", "/x").await;
    let token = bench.token(&lock);
    bench.world.gate.hold();
    begin_and_drop(bench.put("/x", &[("x-lock-token", &token)])).await;
    assert_eq!((bench.executed(), bench.pins()), (0, 0));
    bench.world.gate.release();
    assert_eq!(results(&bench.world.end().await), [WriteResult::NotSent]);
    assert_eq!(bench.executed(), 0);
}

#[tokio::test]
async fn a_client_that_goes_while_its_write_is_carried_out_cancels_nothing() {
    let bench = Bench::new();
    let lock = bench.world.locked("alice", "/x").await;
    let token = bench.token(&lock);
    bench.acts([Act::AnswerLater(204)]);
    let fields = [("x-lock-token", token.as_str())];
    let mut put = Box::pin(bench.put("/x", &fields));
    while bench.executed() == 0 {
        assert!(step(put.as_mut()).is_pending());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    drop(put);
    soon(bench.world.engine.release(release(&lock))).await.unwrap();
    let mut acquired = pin!(bench.world.engine.acquire(acquire("bob", "/x")));
    assert!(still_waits(acquired.as_mut()).await);
    assert_eq!(bench.pins(), 1);
    bench.upstream.go.add_permits(1);
    soon(acquired).await.unwrap().delivery.delivered();
    let events = bench.world.end().await;
    assert_eq!(results(&events), [ANSWERED]);
    let names = names(&events);
    let at = |name| names.iter().rposition(|each| *each == name);
    assert!(at("write_completed") < at("acquired"), "{names:?}");
}

#[tokio::test]
async fn a_write_that_panics_stays_pinned_until_its_outcome_is_known() {
    for act in [Act::Panic, Act::PanicLater] {
        for outcome in [WriteResult::Applied, WriteResult::NotApplied] {
            let bench = Bench::new();
            let lock = bench.world.locked("alice", "/x").await;
            let token = bench.token(&lock);
            bench.upstream.go.add_permits(1);
            bench.upstream.script.lock().unwrap().outcome = Some(outcome);
            bench.acts([match act {
                Act::Panic => Act::Panic,
                _ => Act::PanicLater,
            }]);
            // The client need not wait for that.
            let answer = bench.put("/x", &[("x-lock-token", &token)]).await;
            assert_eq!(answer, Err(Name::StorageFailure));
            soon(bench.world.engine.release(release(&lock))).await.unwrap();
            let mut acquired = pin!(bench.world.engine.acquire(acquire("bob", "/x")));
            assert!(still_waits(acquired.as_mut()).await);
            assert_eq!(bench.pins(), 1);
            let asked = bench.upstream.script.lock().unwrap().outcomes_asked.clone();
            assert!(matches!(asked.as_slice(), [Some(_)]), "{asked:?}");
            bench.upstream.know.add_permits(1);
            soon(acquired).await.unwrap().delivery.delivered();
            assert_eq!(results(&bench.world.end().await), [outcome]);
        }
    }
}

#[tokio::test]
async fn an_unlocked_write_that_panics_stays_pinned_as_well() {
    let bench = Bench::new();
    bench.acts([Act::Panic]);
    assert_eq!(bench.put("/x", &[]).await, Err(Name::StorageFailure));
    let mut acquired = pin!(bench.world.engine.acquire(acquire("bob", "/x")));
    assert!(still_waits(acquired.as_mut()).await);
    bench.upstream.know.add_permits(1);
    soon(acquired).await.unwrap().delivery.delivered();
    // The next write is carried out as if nothing had been.
    assert_eq!(bench.put("/y", &[]).await, Ok(StatusCode::NO_CONTENT));
}

#[tokio::test]
async fn a_write_whose_commit_failed_stays_pinned_until_its_outcome_is_known() {
    let bench = Bench::new();
    let lock = bench.world.locked("alice", "/x").await;
    let token = bench.token(&lock);
    bench.acts([Act::StorageFailure]);
    let answer = bench.put("/x", &[("x-lock-token", &token)]).await;
    assert_eq!(answer, Err(Name::StorageFailure));
    bench.world.until(|engine| engine.stats().writes_in_flight == 1).await;
    bench.upstream.know.add_permits(1);
    bench.until_unpinned().await;
    assert_eq!(results(&bench.world.end().await), [WriteResult::Applied]);
}

#[tokio::test]
async fn a_stop_waits_for_writes_on_their_way() {
    let bench = Bench::new();
    let lock = bench.world.locked("alice", "/x").await;
    let token = bench.token(&lock);
    bench.acts([Act::AnswerLater(204)]);
    {
        let fields = [("x-lock-token", token.as_str())];
        let mut put = pin!(bench.put("/x", &fields));
        while bench.executed() == 0 {
            assert!(step(put.as_mut()).is_pending());
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        bench.world.engine.refuse_new();
        let mut drained = pin!(bench.guard.drained());
        assert!(still_waits(drained.as_mut()).await);
        assert_eq!(bench.put("/y", &[]).await, Err(Name::Unavailable));
        bench.upstream.go.add_permits(1);
        let (put, ()) = tokio::join!(soon(put), soon(drained));
        assert_eq!(put, Ok(StatusCode::NO_CONTENT));
    }
    assert_eq!(results(&bench.world.end().await), [ANSWERED]);
}

#[tokio::test]
async fn a_write_that_a_stop_cuts_off_is_left_to_the_next_start() {
    // As a server whose time to stop is over does it: the runtime takes the task along.
    let bench = Bench::new();
    let lock = bench.world.locked("alice", "/x").await;
    let token = bench.token(&lock);
    bench.acts([Act::Panic]);
    bench.put("/x", &[("x-lock-token", &token)]).await.unwrap_err();
    bench.world.engine.refuse_new();
    // It still asks how the write ended; nobody answers, and nobody waits for that.
    soon(bench.guard.drained()).await;
    assert_eq!(results(&bench.world.end().await), []);
}

#[tokio::test]
async fn a_write_that_turns_out_to_change_something_else_is_admitted_anew() {
    let bench = Bench::new();
    let lock = bench.world.locked("alice", "/x").await;
    let token = bench.token(&lock);
    let wider = vec![Target::Content(resource("/x")), Target::Members(resource("/"))];
    bench.acts([Act::Retarget(wider.clone()), Act::Retarget(wider)]);
    let answer = bench.put("/x", &[("x-lock-token", &token)]).await;
    assert_eq!(answer, Ok(StatusCode::NO_CONTENT));
    let executed = bench.upstream.script.lock().unwrap().executed.clone();
    assert_eq!(executed.len(), 3);
    assert!(executed.is_sorted_by(|a, b| a < b), "each has an admission of its own: {executed:?}");
    let events = bench.world.end().await;
    assert_eq!(results(&events), [WriteResult::NotSent, WriteResult::NotSent, ANSWERED]);
}

#[tokio::test]
async fn a_write_that_turns_out_to_change_something_locked_is_refused() {
    let bench = Bench::new();
    bench.world.locked("bob", "/y").await;
    let both = vec![Target::Content(resource("/x")), Target::Content(resource("/y"))];
    bench.acts([Act::Retarget(both)]);
    assert_eq!(bench.put("/x", &[]).await, Err(Name::Locked));
    assert_eq!((bench.executed(), bench.pins()), (1, 0));
}

#[tokio::test]
async fn a_write_that_never_settles_is_given_up() {
    let bench = Bench::new();
    bench.acts((0..100).map(|_| Act::Retarget(vec![Target::Content(resource("/x"))])));
    assert_eq!(bench.put("/x", &[]).await, Err(Name::Unavailable));
    assert_eq!((bench.executed(), bench.pins()), (16, 0));
}
