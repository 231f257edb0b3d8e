//! What waits for writes to end, without standing in a queue: a freeze's answer, and a transfer.

use crate::command::{SetFreeze, Transfer};
use crate::event::{EventBody, Origin};
use crate::ids::{LockId, PinId, WaiterId};
use crate::lock::{Depth, Freeze, Mode};
use crate::refusal::HolderRefusal;
use crate::resource::Resource;
use crate::table::{LockTable, Woken};
use crate::time::{LeaseTime, Now};

#[derive(Debug)]
pub(crate) struct Drain {
    pub(crate) pins_left: usize,
    pub(crate) until: LeaseTime,
    pub(crate) what: Drained,
}

#[derive(Debug)]
pub(crate) enum Drained {
    Freeze,
    Transfer { lock_id: LockId, command: Box<Transfer> },
}

impl LockTable {
    /// `PUT {resource}/lock/freeze`. From now on nobody writes there; the freeze, and the waiter
    /// that is woken when the writes under way have ended, if there are any.
    pub fn freeze(&mut self, command: &SetFreeze, now: Now) -> (Freeze, Option<WaiterId>) {
        let freeze = Freeze {
            resource: command.resource.clone(),
            by: command.caller.principal.clone(),
            reason: command.reason.clone(),
            since: now.wall,
            until: command.until,
        };
        self.emit(EventBody::Frozen(freeze.clone()), command.origin.clone(), now);
        // Who waited for the freeze before it watches a name that stands again.
        let place = self.place(&command.resource);
        let mut pins = Vec::new();
        self.visit_pins(&place, Mode::Exclusive, Depth::Infinity, &mut |pin| pins.push(pin.pin));
        let waiter = WaiterId(self.next_id);
        let writes = self.await_pins(pins, waiter);
        if writes == 0 {
            return (freeze, None);
        }
        self.fresh_id();
        let until = now.lease + command.drain_wait_ms;
        self.add_drain(waiter, Drain { pins_left: writes, until, what: Drained::Freeze });
        (freeze, Some(waiter))
    }

    /// `DELETE {resource}/lock/freeze`. Whether there was one.
    pub fn unfreeze(&mut self, resource: &Resource, origin: Origin, now: Now) -> bool {
        if self.state.freeze_of(resource).is_none() {
            return false;
        }
        let body = EventBody::Unfrozen { resource: resource.clone(), passed: false };
        self.emit(body, origin, now);
        self.wake_freeze(resource, now);
        true
    }

    pub(crate) fn add_drain(&mut self, waiter: WaiterId, drain: Drain) {
        self.parked_timers.insert((drain.until, waiter));
        self.drains.insert(waiter, drain);
    }

    /// Has `waiter` told when each of these writes ends; how many they are.
    pub(crate) fn await_pins(&mut self, mut pins: Vec<PinId>, waiter: WaiterId) -> usize {
        pins.sort_unstable();
        pins.dedup();
        for pin in &pins {
            if let Some(pin) = self.pins.get_mut(pin) {
                pin.awaited_by.push(waiter);
            }
        }
        pins.len()
    }

    /// The same for every write under a lock.
    pub(crate) fn await_pins_of(&mut self, lock_id: LockId, waiter: WaiterId) -> usize {
        let pins = self
            .pins
            .iter()
            .filter(|(_, pin)| pin.is_under(lock_id))
            .map(|(&id, _)| id)
            .collect();
        self.await_pins(pins, waiter)
    }

    /// A write that a drain waited for has ended.
    pub(crate) fn drain_pin_left(&mut self, waiter: WaiterId, now: Now) {
        let Some(drain) = self.drains.get_mut(&waiter) else { return };
        drain.pins_left = drain.pins_left.saturating_sub(1);
        if drain.pins_left > 0 {
            return;
        }
        let Some(drain) = self.drains.remove(&waiter) else { return };
        self.parked_timers.remove(&(drain.until, waiter));
        match drain.what {
            Drained::Freeze => {
                self.wakes.push((waiter, Woken::Frozen { writes_in_flight: 0 }));
            }
            Drained::Transfer { lock_id, command } => {
                self.finish_transfer(waiter, lock_id, drain.until, *command, now);
            }
        }
    }

    fn finish_transfer(
        &mut self,
        waiter: WaiterId,
        lock_id: LockId,
        until: LeaseTime,
        command: Transfer,
        now: Now,
    ) {
        let idx = match self.addressed(&command.caller, &command.address, &command.tokens, now) {
            Ok(idx) => idx,
            Err(refusal) => {
                self.wakes.push((waiter, Woken::NotTransferred(Box::new(refusal))));
                return;
            }
        };
        if self.state.slot(idx).lock.breaking.is_some() {
            let lock = Box::new(self.state.slot(idx).lock.clone());
            let refusal = HolderRefusal::Closing(lock);
            self.wakes.push((waiter, Woken::NotTransferred(Box::new(refusal))));
            return;
        }
        // The holder may have sent another write meanwhile.
        let writes = self.await_pins_of(lock_id, waiter);
        if writes > 0 {
            let what = Drained::Transfer { lock_id, command: Box::new(command) };
            self.add_drain(waiter, Drain { pins_left: writes, until, what });
            return;
        }
        let granted = self.hand_over(idx, &command, now);
        self.wakes.push((waiter, Woken::Transferred(granted)));
    }

    pub(crate) fn drain_time_up(&mut self, waiter: WaiterId, _now: Now) {
        let Some(drain) = self.drains.remove(&waiter) else { return };
        let woken = match drain.what {
            Drained::Freeze => Woken::Frozen { writes_in_flight: drain.pins_left },
            Drained::Transfer { .. } => Woken::NotTransferred(Box::new(
                HolderRefusal::WritesInFlight { writes: drain.pins_left },
            )),
        };
        self.wakes.push((waiter, woken));
    }
}
