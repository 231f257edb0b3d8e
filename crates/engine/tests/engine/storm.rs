//! Many clients at once on few resources, with and without a log that fails: nobody sees what he
//! must not see, everything ends, and nothing is left over.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::event::WriteResult;
use leasehold_core::lock::Lock;
use leasehold_engine::{Engine, EngineError, Refused};

use super::common::*;

const KEYS: u64 = 3;
const CLIENTS: u32 = 16;
const ROUNDS: u32 = 30;
/// How many commits fail. Bringing the log back takes its time.
const FAULTS: u32 = 20;

/// Numbers that are the same at each run, for each client others.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What clients know of one resource.
#[derive(Default)]
struct Seen {
    /// The client that has the lock, from its answer until it asks to release; 0: none.
    holder: AtomicU32,
    /// The greatest fence that somebody was told.
    fence: AtomicU64,
}

struct Client {
    id: u32,
    name: String,
    engine: Engine,
    seen: Arc<Vec<Seen>>,
    dice: Dice,
    grants: u32,
}

impl Client {
    async fn run(mut self) -> u32 {
        for round in 0..ROUNDS {
            let key = self.dice.roll(KEYS);
            match self.dice.roll(4) {
                0 => self.write_unlocked(key).await,
                1 => self.give_up(key).await,
                _ => self.hold(key, round).await,
            }
        }
        self.grants
    }

    fn seen(&self, key: u64) -> &Seen {
        &self.seen[usize::try_from(key).unwrap()]
    }

    /// Without a lock: nobody has one while this is on its way.
    async fn write_unlocked(&mut self, key: u64) {
        let write = write(&self.name, &format!("/{key}"), &[]);
        let Ok(mut permit) = self.engine.admit(&write).await else { return };
        permit.sending();
        for _ in 0..self.dice.roll(4) {
            assert_eq!(self.seen(key).holder.load(Ordering::SeqCst), 0, "a write under a lock");
            tokio::task::yield_now().await;
        }
        assert_eq!(self.seen(key).holder.load(Ordering::SeqCst), 0, "a write under a lock");
        permit.complete(WriteResult::Answered(204));
    }

    /// An acquire whose client goes at some moment.
    async fn give_up(&mut self, key: u64) {
        let command = acquire(&self.name, &format!("/{key}")).waiting(30_000);
        let mut asked = pin!(self.engine.acquire(command));
        for _ in 0..self.dice.roll(30) {
            if step(asked.as_mut()).is_ready() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn hold(&mut self, key: u64, round: u32) {
        let path = format!("/{key}");
        let mut command = acquire(&self.name, &path);
        let is_keyed = self.dice.roll(3) == 0;
        let is_left = self.dice.roll(16) == 0;
        if self.dice.roll(4) > 0 {
            command = command.waiting(30_000);
        }
        if is_left {
            command = command.ttl(1000);
        }
        if is_keyed {
            command = command.keyed(&format!("{}-{round}", self.name));
        }
        let Some(lock) = self.ask(command, is_keyed).await else { return };
        self.grants += 1;
        let seen = self.seen(key);
        let fence = lock.grant.fence.0;
        assert!(seen.fence.fetch_max(fence, Ordering::SeqCst) < fence, "fences grow");
        let before = seen.holder.swap(self.id, Ordering::SeqCst);
        assert_eq!(before, 0, "{} and {before} have the same lock", self.id);
        if !is_left {
            self.use_it(&lock, &path).await;
        }
        let mine = self.seen(key).holder.swap(0, Ordering::SeqCst);
        assert_eq!(mine, self.id);
        if !is_left {
            self.release(&lock).await;
        }
    }

    /// The lock, unless it was refused. Who has a key asks until that is known.
    async fn ask(
        &mut self,
        command: leasehold_core::command::Acquire,
        is_keyed: bool,
    ) -> Option<Lock> {
        loop {
            let mut command = command.clone();
            command.lock_id = fresh_id();
            match self.engine.acquire(command).await {
                Ok(grant) if is_keyed && !grant.granted.replayed && self.dice.roll(2) == 0 => {
                    // The answer is lost, and the client asks again.
                    drop(grant);
                }
                Ok(grant) => {
                    grant.delivery.delivered();
                    return Some(*grant.granted.lock);
                }
                Err(Refused::Engine(EngineError::StorageFailure | EngineError::Unavailable))
                    if is_keyed =>
                {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(_) => return None,
            }
        }
    }

    async fn use_it(&mut self, lock: &Lock, path: &str) {
        for _ in 0..self.dice.roll(3) {
            if self.dice.roll(2) == 0 {
                let _ = self.engine.renew(renew(lock, 60_000)).await;
                continue;
            }
            let write = write(&self.name, path, &[lock]);
            let Ok(mut permit) = self.engine.admit(&write).await else { continue };
            match self.dice.roll(3) {
                0 => {}
                1 => permit.sending(),
                _ => {
                    permit.sending();
                    permit.complete(WriteResult::Answered(204));
                }
            }
        }
    }

    async fn release(&self, lock: &Lock) {
        // Durable, so it is there whatever has failed since: it can be released until it is.
        loop {
            match self.engine.release(release(lock)).await {
                Ok(_) => return,
                Err(Refused::Engine(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(Refused::By(refusal)) => panic!("a lock was lost: {refusal}"),
            }
        }
    }
}

async fn storm(fails: bool) {
    let world = World::new();
    let seen: Arc<Vec<Seen>> = Arc::new((0..KEYS).map(|_| Seen::default()).collect());
    let over = Arc::new(AtomicBool::new(false));
    let (clock, gate, stop) = (world.clock.clone(), world.gate.clone(), over.clone());
    let engine = world.engine.clone();
    let weather = tokio::spawn(async move {
        let mut dice = Dice(7);
        let mut faults = if fails { FAULTS } else { 0 };
        while !stop.load(Ordering::SeqCst) {
            clock.advance(Duration::from_millis(5));
            if 0 < faults && dice.roll(20) == 0 && engine.is_serving() && !gate.has_faults() {
                faults -= 1;
                let written = dice.roll(2) == 0;
                gate.fail_next(if written { Fault::Written } else { Fault::NotWritten });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|id| {
            let (engine, seen) = (world.engine.clone(), seen.clone());
            let dice = Dice(u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let name = format!("client-{id}");
            tokio::spawn(Client { id, name, engine, seen, dice, grants: 0 }.run())
        })
        .collect();
    let mut grants = 0;
    for client in clients {
        grants += soon(client).await.unwrap();
    }
    assert!(CLIENTS * 2 < grants, "{grants}");
    // What was left behind ends by itself, and then nothing is there.
    world
        .until(|engine| {
            let stats = engine.stats();
            stats.serving && (stats.locks, stats.waiters, stats.writes_in_flight) == (0, 0, 0)
        })
        .await;
    over.store(true, Ordering::SeqCst);
    soon(weather).await.unwrap();
    let events = world.end().await;
    assert!(usize::try_from(grants).unwrap() <= events.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_at_once_keep_every_promise() {
    storm(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_at_once_keep_every_promise_while_commits_fail() {
    storm(true).await;
}

#[tokio::test]
async fn waiters_are_served_in_the_order_they_came_whoever_leaves() {
    let world = World::new();
    let mut dice = Dice(3);
    let first = world.locked("alice", "/x").await;
    let mut waiters: Vec<_> = (0..200)
        .map(|at| {
            let command = acquire(&format!("client-{at}"), "/x").waiting(30_000);
            (at, Box::pin(world.engine.acquire(command)))
        })
        .collect();
    for (_, waiter) in &mut waiters {
        assert!(step(waiter.as_mut()).is_pending());
    }
    waiters.retain(|_| dice.roll(3) > 0);
    assert_eq!(world.engine.stats().waiters, waiters.len());
    soon(world.engine.release(release(&first))).await.unwrap();
    let mut served = Vec::new();
    let expected: Vec<i32> = waiters.iter().map(|(at, _)| *at).collect();
    for (at, waiter) in waiters {
        let grant = soon(waiter).await.unwrap();
        served.push((at, grant.granted.lock.grant.fence));
        let lock = grant.granted.lock.clone();
        grant.delivery.delivered();
        soon(world.engine.release(release(&lock))).await.unwrap();
    }
    assert!(served.is_sorted_by(|a, b| a.1 < b.1), "{served:?}");
    assert_eq!(served.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
    world.end().await;
}
