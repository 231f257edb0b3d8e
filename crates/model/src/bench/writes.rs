//! Writes, from the check to the end of the pin.

use std::sync::Arc;

use leasehold_core::command::{Presented, Write};
use leasehold_core::event::{Event, EventBody, WriteResult};
use leasehold_core::ids::LockId;
use leasehold_core::refusal::WriteRefusal;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;

use super::Bench;
use super::picking::{caller, origin, resource};
use crate::naive::{Draining, Pin, Writing};
use crate::steps::What;

impl Bench {
    pub(super) fn write(&mut self, what: &What) {
        let What::Write { who, targets, tokens, at_lock } = what else { return };
        let tokens: Vec<Presented> = tokens.iter().map(|&pick| self.token(pick)).collect();
        let who = self.who(*who, tokens.first().copied());
        let mut targets: Vec<(Resource, u8)> =
            targets.iter().map(|&(at, part)| (resource(at), part)).collect();
        if *at_lock && let Some(at) = tokens.first().and_then(|&token| self.resource_of(token)) {
            targets.truncate(1);
            targets[0].0 = at;
        }
        let targets: Vec<Target> = targets
            .into_iter()
            .map(|(at, part)| match part {
                0 => Target::Content(at),
                1 => Target::Members(at),
                _ => Target::Subtree(at),
            })
            .collect();
        let write = Write {
            caller: caller(&who),
            origin: origin(&who),
            method: Arc::from("PUT"),
            resource: targets[0].resource().clone(),
            targets: targets.clone(),
            tokens,
            conditions: Vec::new(),
            lacks_precondition: false,
        };
        let checked = self.both(|table, now| table.check(&write, now));
        self.finish_step(&checked.events, &checked.wakes);
        let done = self.both(|table, now| table.admit(&write, now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::WriteAdmitted { .. }));
        assert_eq!(checked.outcome.is_ok(), done.outcome.is_ok());
        match (&done.outcome, self.naive.write(&write)) {
            (Ok(admitted), Writing::Admitted { used }) => {
                let mut locks: Vec<LockId> = admitted.locks.iter().map(|(id, _)| *id).collect();
                locks.sort_unstable();
                assert_eq!(locks, used);
                assert_eq!(rest.len(), used.len());
                assert_eq!(admitted.admission, rest.first().map(|event| event.seq));
                // Durable before said.
                if let Some(last) = rest.last() {
                    assert_eq!(admitted.rests_on, last.seq);
                }
                let newest = self.naive.newest_change(&targets);
                assert!(
                    newest <= self.durable || newest <= admitted.rests_on.0,
                    "it rests on event {newest}: {admitted:?}"
                );
                assert!(admitted.rests_on <= self.tables[0].state().seq());
                self.naive.pins.push(Pin { id: admitted.pin, targets, locks: used });
            }
            (Err(WriteRefusal::Locked(found)), Writing::Locked { locks, is_pending }) => {
                assert_eq!((found.locks, found.pending.is_some()), (locks, is_pending));
            }
            (Err(WriteRefusal::Frozen(_)), Writing::Frozen)
            | (Err(WriteRefusal::LockLost(..)), Writing::LockLost)
            | (Err(WriteRefusal::LockMismatch(_)), Writing::LockMismatch)
            | (Err(WriteRefusal::NotTheHolder), Writing::NotTheHolder)
            | (Err(WriteRefusal::InvalidToken), Writing::InvalidToken) => {}
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    pub(super) fn complete(&mut self, pick: usize, result: WriteResult) {
        if self.naive.pins.is_empty() {
            return;
        }
        let pin = self.naive.pins.remove(pick % self.naive.pins.len());
        for drain in &mut self.naive.drains {
            drain.pins.retain(|other| *other != pin.id);
        }
        if result == WriteResult::Unknown {
            let targets = pin.targets.iter().cloned();
            self.naive.unknown.extend(targets.map(|target| (target, Vec::new())));
        }
        let done = self.both(|table, now| table.complete(pin.id, result, now));
        let completed = |event: &&Event| matches!(event.body, EventBody::WriteCompleted { .. });
        assert_eq!(done.events.iter().filter(completed).count(), pin.locks.len());
        self.follow(&done.events);
        self.woken(&done.wakes);
        // The holder may have sent another write meanwhile: then a transfer waits for that.
        for at in 0..self.naive.drains.len() {
            let drain = &self.naive.drains[at];
            if let Draining::Transfer { lock } = drain.what
                && drain.pins.is_empty()
            {
                self.naive.drains[at].pins = self.naive.pins_under(lock);
            }
        }
        self.observe_end();
    }
}
