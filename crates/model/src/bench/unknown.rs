//! Writes of which nobody will say how they ended: one that vanishes, and all that a process had on
//! their way when it ended.

use leasehold_core::event::WriteResult;
use leasehold_core::state::State;
use leasehold_core::table::{LockTable, TableLimits};

use super::{Bench, SEED};

impl Bench {
    /// The process ends, and another begins with what is in the log. What was on its way may land
    /// for so long, and nobody sees it.
    pub(super) fn crash(&mut self, recovers_ms: u64) {
        let trail = self.trail.clone();
        let done = self.both(|table, now| {
            let mut state = State::new(SEED);
            trail.iter().for_each(|event| state.apply(event));
            *table = LockTable::new(state, TableLimits::default(), SEED);
            for open in table.orphaned_admissions() {
                table.close_open(&open, WriteResult::Unknown, now);
            }
            table.await_recovery(recovers_ms, now);
        });
        let newest = self.tables[0].state().seq();
        self.durable = newest.0;
        self.tables.iter_mut().for_each(|table| table.settled(newest));
        let naive = &mut self.naive;
        naive.waiters.clear();
        naive.away.clear();
        naive.drains.clear();
        naive.pins.clear();
        naive.unknown.clear();
        naive.recovery = Some(naive.now.lease + recovers_ms);
        naive.locks.iter_mut().for_each(|lock| lock.uncollected = None);
        self.finish_step(&done.events, &done.wakes);
    }
}
