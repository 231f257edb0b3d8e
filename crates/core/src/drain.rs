//! What waits for writes to end, without standing in a queue: a freeze's answer, and a transfer.

use crate::command::{SetFreeze, Transfer};
use crate::event::{EventBody, Origin};
use crate::ids::{PinId, WaiterId};
use crate::lock::{Depth, Freeze, Mode};
use crate::obstacles::Place;
use crate::refusal::HolderRefusal;
use crate::resource::Resource;
use crate::table::{LockTable, Woken};
use crate::time::{LeaseTime, Now};
use crate::tree::LockIdx;

#[derive(Debug)]
pub(crate) struct Drain {
    pub(crate) pins: Vec<PinId>,
    pub(crate) until: LeaseTime,
    pub(crate) what: Drained,
}

#[derive(Debug)]
pub(crate) enum Drained {
    Freeze,
    Transfer { command: Box<Transfer> },
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
        let waiter = WaiterId(self.next_id);
        let pins =
            self.await_pins_at(&[&place], Mode::Exclusive, Depth::Infinity, true, waiter, now);
        if pins.is_empty() {
            return (freeze, None);
        }
        self.fresh_id();
        let until = now.lease + command.drain_wait_ms;
        self.add_drain(waiter, Drain { pins, until, what: Drained::Freeze });
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

    pub(crate) fn remove_drain(&mut self, waiter: WaiterId) -> Option<Drain> {
        let drain = self.drains.remove(&waiter)?;
        self.parked_timers.remove(&(drain.until, waiter));
        self.forget_awaiting(&drain.pins, waiter);
        Some(drain)
    }

    /// Has `waiter` told when each of these writes ends.
    fn await_pins(&mut self, pins: Vec<PinId>, waiter: WaiterId) -> Vec<PinId> {
        for pin in &pins {
            if let Some(pin) = self.pins.get_mut(pin) {
                pin.awaited_by.push(waiter);
            }
        }
        pins
    }

    /// The same for every write that conflicts with a request for all of `places`.
    pub(crate) fn await_pins_at(
        &mut self,
        places: &[&Place],
        mode: Mode,
        depth: Depth,
        may_wait: bool,
        waiter: WaiterId,
        now: Now,
    ) -> Vec<PinId> {
        let pins = self.pins_at(places.iter().copied(), mode, depth, may_wait, now);
        self.await_pins(pins, waiter)
    }

    /// `waiter` has gone: nothing is to be told to it.
    pub(crate) fn forget_awaiting(&mut self, pins: &[PinId], waiter: WaiterId) {
        for pin in pins {
            if let Some(pin) = self.pins.get_mut(pin) {
                pin.awaited_by.retain(|each| *each != waiter);
            }
        }
    }

    /// Every write under a lock that is on its way.
    pub(crate) fn pins_under(&self, idx: LockIdx, now: Now) -> Vec<PinId> {
        let slot = self.state.slot(idx);
        let mut pins = Vec::new();
        // A write under a lock changes something that the lock covers.
        for &node in slot.nodes() {
            let place = self.place_of(node);
            self.visit_pins(&place, Mode::Exclusive, slot.depth, now, &mut |at| {
                if self.pins.get(&at.pin).is_some_and(|pin| pin.is_under(slot.lock_id)) {
                    pins.push(at.pin);
                }
            });
        }
        pins.sort_unstable();
        pins.dedup();
        pins
    }

    /// Has `waiter` told when each write under a lock ends.
    pub(crate) fn await_pins_of(&mut self, idx: LockIdx, waiter: WaiterId, now: Now) -> Vec<PinId> {
        let pins = self.pins_under(idx, now);
        self.await_pins(pins, waiter)
    }

    /// A write that a drain waited for has ended.
    pub(crate) fn drain_pin_left(&mut self, waiter: WaiterId, pin: PinId, now: Now) {
        let Some(drain) = self.drains.get_mut(&waiter) else { return };
        drain.pins.retain(|each| *each != pin);
        if !drain.pins.is_empty() {
            return;
        }
        let Some(drain) = self.remove_drain(waiter) else { return };
        match drain.what {
            Drained::Freeze => {
                self.wakes.push((waiter, Woken::Frozen { writes_in_flight: 0 }));
            }
            Drained::Transfer { command } => {
                self.finish_transfer(waiter, drain.until, *command, now);
            }
        }
    }

    fn finish_transfer(&mut self, waiter: WaiterId, until: LeaseTime, command: Transfer, now: Now) {
        let idx = match self.addressed(&command.caller, &command.address, &command.tokens, now) {
            Ok(idx) => idx,
            Err(refusal) => {
                // The same transfer, sent twice, may have waited twice.
                let woken = match self.transferred_already(refusal, &command.to, now) {
                    Ok(granted) => Woken::Transferred(granted),
                    Err(refusal) => Woken::NotTransferred(Box::new(refusal)),
                };
                self.wakes.push((waiter, woken));
                return;
            }
        };
        if self.state.slot(idx).breaking().is_some() {
            let lock = Box::new(self.state.slot(idx).lock());
            let refusal = HolderRefusal::Closing(lock);
            self.wakes.push((waiter, Woken::NotTransferred(Box::new(refusal))));
            return;
        }
        // The holder may have sent another write meanwhile.
        let pins = self.await_pins_of(idx, waiter, now);
        if !pins.is_empty() {
            let what = Drained::Transfer { command: Box::new(command) };
            self.add_drain(waiter, Drain { pins, until, what });
            return;
        }
        let granted = self.hand_over(idx, &command, now);
        self.wakes.push((waiter, Woken::Transferred(granted)));
    }

    pub(crate) fn drain_time_up(&mut self, waiter: WaiterId) {
        let Some(drain) = self.remove_drain(waiter) else { return };
        let writes = drain.pins.len();
        let woken = match drain.what {
            Drained::Freeze => Woken::Frozen { writes_in_flight: writes },
            Drained::Transfer { .. } => {
                Woken::NotTransferred(Box::new(HolderRefusal::WritesInFlight { writes }))
            }
        };
        self.wakes.push((waiter, woken));
    }
}
