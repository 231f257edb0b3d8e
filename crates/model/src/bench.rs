//! The table and the naive one side by side.
//!
//! What all steps have in common is here: both tables are given the same command, and the naive one
//! follows what happened (`following`). Commands are made from a step (`commands`), with who and
//! what it means (`picking`), and compared with what the naive table says: an acquire (`acquires`),
//! what a holder asks for (`holders`), a write (`writes`).

mod acquires;
mod commands;
mod following;
mod holders;
mod picking;
mod unknown;
mod writes;

use std::fmt::Debug;

use leasehold_core::command::Acquire;
use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::{Fence, LockId, WaiterId};
use leasehold_core::state::State;
use leasehold_core::table::{LockTable, TableLimits, Woken};
use leasehold_core::time::{LeaseTime, Now, WallTime};

use crate::fold;
use crate::naive::Naive;
use crate::steps::Step;

const SEED: u64 = 11;
const DRAIN_WAIT_MS: u64 = 5000;

/// The tables, the naive one, and what has happened.
pub struct Bench {
    /// Two, so that each shows that the other does nothing by chance.
    tables: [LockTable; 2],
    naive: Naive,
    trail: Vec<Event>,
    grants: Vec<(LockId, Fence)>,
    /// Every acquire with a key.
    keyed: Vec<Acquire>,
    durable: u64,
    next_id: u128,
}

/// What a command brought about.
struct Done<T> {
    outcome: T,
    events: Vec<Event>,
    wakes: Vec<(WaiterId, Woken)>,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        let table = || LockTable::new(State::new(SEED), TableLimits::default(), SEED);
        Self {
            tables: [table(), table()],
            naive: Naive::default(),
            trail: Vec::new(),
            grants: Vec::new(),
            keyed: Vec::new(),
            durable: 0,
            next_id: 0,
        }
    }

    /// Takes one step in all of them, and panics where they differ.
    pub fn step(&mut self, step: &Step) {
        let now = &mut self.naive.now;
        *now = Now {
            lease: now.lease + step.passes_ms,
            wall: WallTime(now.wall.0 + i64::try_from(step.passes_ms).unwrap()),
        };
        if step.settles {
            let newest = self.tables[0].state().seq();
            self.durable = newest.0;
            self.tables.iter_mut().for_each(|table| table.settled(newest));
        }
        if let Some(budget) = step.budget {
            self.tick(budget);
        }
        self.command(&step.what);
        self.naive.leaving.clear();
    }

    /// Gives both tables the same command.
    fn both<T: Debug>(&mut self, act: impl Fn(&mut LockTable, Now) -> T) -> Done<T> {
        let now = self.naive.now;
        let [mut first, second] = self.tables.each_mut().map(|table| {
            let outcome = act(table, now);
            Done { outcome, events: table.take_events(), wakes: table.take_wakes() }
        });
        assert_eq!(format!("{:?}", first.outcome), format!("{:?}", second.outcome));
        assert_eq!(first.events, second.events, "the same commands give the same events");
        assert_eq!(format!("{:?}", first.wakes), format!("{:?}", second.wakes));
        for event in &first.events {
            fold::assert_round_trip(event);
            if let EventBody::Acquired(grant) | EventBody::Transferred { to: grant, .. } =
                &event.body
            {
                self.grants.push((grant.lock_id, grant.fence));
            }
        }
        self.trail.extend(first.events.iter().cloned());
        self.tables[0].assert_invariants(now);
        first.wakes.shrink_to_fit();
        first
    }

    fn tick(&mut self, budget: usize) {
        let done = self.both(|table, now| table.tick(now, budget));
        self.naive.end_recovery();
        self.naive.leaving = done
            .wakes
            .iter()
            .filter(|(_, woken)| matches!(woken, Woken::Refused(_)))
            .map(|(waiter, _)| *waiter)
            .collect();
        self.follow(&done.events);
        self.woken(&done.wakes);
        self.observe_end();
        let now = self.naive.now;
        if !done.outcome {
            self.naive.away.retain(|away| now.lease < away.until);
            let naive = &self.naive;
            assert!(naive.locks.iter().all(|lock| naive.is_live(lock)), "not late");
            assert!(naive.waiters.iter().all(|waiter| now.lease < waiter.until), "not late");
            assert!(naive.drains.iter().all(|drain| now.lease < drain.until), "not late");
            assert!(naive.freezes.iter().all(|freeze| now.wall < freeze.until), "not late");
            assert!(
                naive
                    .locks
                    .iter()
                    .all(|lock| { lock.used || lock.uncollected.is_none_or(|at| now.lease < at) })
            );
            let next = self.tables[0].next_deadline();
            assert!(next.is_none_or(|at| now.lease < at), "a table that is done has nothing due");
        }
        self.naive.leaving.clear();
    }

    /// Judges the whole history: whatever way the state is rebuilt from it, it is the same.
    pub fn finish(self) {
        // A different cut for each history, and the same for the same.
        let cut = usize::try_from(self.next_id).unwrap() * 7919 % (self.trail.len() + 1);
        fold::assert_fold(&self.trail, self.tables[0].state(), self.next_id, cut);
        assert!(self.naive.now.lease < LeaseTime(24 * 3_600_000), "the case is too long");
    }
}
