//! What is in the way of a request: freezes, parked acquires, locks, and writes on their way.
//!
//! Everything here only looks. A visit costs what is on the request's path, and what is of the
//! kind looked for below it; never what is elsewhere.

use crate::caller::Caller;
use crate::ids::{LockId, PinId, WaiterId};
use crate::lock::{Depth, Mode};
use crate::queue::{Parked, Phase};
use crate::refusal::{COUNT_LIMIT, InTheWay, Pending};
use crate::resource::Resource;
use crate::sabotage::{self, Mistake};
use crate::table::LockTable;
use crate::time::Now;
use crate::tree::{LockIdx, NodeId, ParkedAt, PinAt, PinKind};

/// down, and whether the last is the resource's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) path: Vec<NodeId>,
    pub(crate) exact: bool,
}

/// What a request is compared by.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) mode: Mode,
    pub(crate) depth: Depth,
    /// Its place in the order; none for one that has just come.
    pub(crate) ticket: Option<WaiterId>,
    /// The locks whose tokens it presented.
    pub(crate) holds: &'a [LockId],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Obstacle {
    Freeze(NodeId),
    Parked(WaiterId),
    Lock(LockIdx),
}

fn modes_conflict(a: Mode, b: Mode) -> bool {
    !(a == Mode::Shared && b == Mode::Shared)
}

impl LockTable {
    pub(crate) fn place(&self, resource: &Resource) -> Place {
        let mut place = Place::default();
        place.exact = self.state.tree.path(resource, &mut place.path);
        place
    }

    /// The places of several resources, in their order.
    pub(crate) fn places<'r>(
        &self,
        resources: impl ExactSizeIterator<Item = &'r Resource>,
    ) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::with_capacity(resources.len());
        let mut before: Option<&Resource> = None;
        for resource in resources {
            // What a write changes above its resource is on the way there.
            let place = match (before, places.last()) {
                (Some(before), Some(place)) if resource.covers(before) => {
                    let depth = resource.depth();
                    let exact = depth < place.path.len();
                    Place { path: place.path.iter().take(depth + 1).copied().collect(), exact }
                }
                _ => self.place(resource),
            };
            places.push(place);
            before = Some(resource);
        }
        places
    }

    pub(crate) fn place_of(&self, node: NodeId) -> Place {
        let mut path = vec![node];
        let mut at = node;
        while let Some(parent) = self.state.tree.parent(at) {
            path.push(parent);
            at = parent;
        }
        path.reverse();
        Place { path, exact: true }
    }

    /// Shows `visit` everything in the way of a request, until it says stop: a freeze first, then
    /// what is parked here and above (the newest first), then locks, then what is parked below.
    ///
    /// A queue is a chain because its own node comes before the locks; what is parked below comes
    /// last because looking for it may pass many who came later.
    pub(crate) fn visit_obstacles(
        &self,
        place: &Place,
        reach: Reach<'_>,
        now: Now,
        visit: &mut dyn FnMut(Obstacle) -> bool,
    ) {
        for &node in &place.path {
            if let Some(freeze) = self.state.tree.freeze(node)
                && now.wall < freeze.until
                && !visit(Obstacle::Freeze(node))
            {
                return;
            }
        }
        let _ = self.visit_parked_here(place, reach, now, visit)
            && self.visit_locks(place, reach.mode, reach.depth, now, visit)
            && self.visit_parked_below(place, reach, now, visit);
    }

    pub(crate) fn visit_parked(
        &self,
        place: &Place,
        reach: Reach<'_>,
        now: Now,
        visit: &mut dyn FnMut(Obstacle) -> bool,
    ) -> bool {
        self.visit_parked_here(place, reach, now, visit)
            && self.visit_parked_below(place, reach, now, visit)
    }

    fn visit_parked_here(
        &self,
        place: &Place,
        reach: Reach<'_>,
        now: Now,
        visit: &mut dyn FnMut(Obstacle) -> bool,
    ) -> bool {
        let last = place.path.len() - 1;
        for (at, &node) in place.path.iter().enumerate().rev() {
            let own = place.exact && at == last;
            for parked in self.state.tree.parked(node).iter().rev() {
                let meets = own || parked.depth == Depth::Infinity;
                if meets
                    && self.stands_before(parked, reach, now)
                    && !visit(Obstacle::Parked(parked.waiter))
                {
                    return false;
                }
            }
        }
        true
    }

    fn visit_parked_below(
        &self,
        place: &Place,
        reach: Reach<'_>,
        now: Now,
        visit: &mut dyn FnMut(Obstacle) -> bool,
    ) -> bool {
        match place.path.last() {
            Some(&node) if place.exact && reach.depth == Depth::Infinity => {
                self.visit_parked_under(node, reach, now, visit)
            }
            _ => true,
        }
    }

    fn visit_parked_under(
        &self,
        node: NodeId,
        reach: Reach<'_>,
        now: Now,
        visit: &mut dyn FnMut(Obstacle) -> bool,
    ) -> bool {
        if self.state.tree.below(node).parked == 0 {
            return true;
        }
        for child in self.state.tree.busy(node) {
            for parked in self.state.tree.parked(child).iter().rev() {
                if self.stands_before(parked, reach, now) && !visit(Obstacle::Parked(parked.waiter))
                {
                    return false;
                }
            }
            if !self.visit_parked_under(child, reach, now, visit) {
                return false;
            }
        }
        true
    }

    /// Whether a parked acquire that meets the request goes before it.
    fn stands_before(&self, other: &ParkedAt, reach: Reach<'_>, now: Now) -> bool {
        if reach.ticket == Some(other.waiter) || !modes_conflict(other.mode, reach.mode) {
            return false;
        }
        let is_later = reach.ticket.is_some_and(|ticket| ticket < other.waiter);
        // Nearly always nobody is claimed, and those who came later need no second look.
        if is_later && self.claimed == 0 {
            return false;
        }
        let Some(parked) = self.parked.get(&other.waiter) else { return false };
        if matches!(parked.phase, Phase::Claimed { .. }) {
            return true;
        }
        if is_later || sabotage::is(Mistake::Overtake) {
            return false;
        }
        // Whoever holds what an earlier waiter needs goes before it: else order makes a circle.
        !reach.holds.iter().any(|&held| self.needs(parked, held, now))
    }

    /// Whether a parked acquire conflicts with a live lock.
    fn needs(&self, parked: &Parked, held: LockId, now: Now) -> bool {
        let Some(idx) = self.state.idx(held) else { return false };
        let lock = self.state.slot(idx);
        if !lock.is_live(now.lease) {
            return false;
        }
        let command = &parked.command;
        command.want.resources().iter().any(|resource| {
            lock.resources().iter().any(|held| {
                crate::table::requests_conflict(
                    (resource, command.mode, command.depth),
                    (held, lock.mode, lock.depth),
                )
            })
        })
    }

    pub(crate) fn visit_locks(
        &self,
        place: &Place,
        mode: Mode,
        depth: Depth,
        now: Now,
        visit: &mut dyn FnMut(Obstacle) -> bool,
    ) -> bool {
        let last = place.path.len() - 1;
        let conflicts = |idx: LockIdx, other: Mode| {
            modes_conflict(other, mode) && self.state.slot(idx).is_live(now.lease)
        };
        for (at, &node) in place.path.iter().enumerate() {
            let own = place.exact && at == last;
            for lock in self.state.tree.locks(node) {
                if (own || lock.depth == Depth::Infinity)
                    && conflicts(lock.lock, lock.mode)
                    && !visit(Obstacle::Lock(lock.lock))
                {
                    return false;
                }
            }
        }
        if !(place.exact && depth == Depth::Infinity) || sabotage::is(Mistake::IgnoreLocksBelow) {
            return true;
        }
        self.visit_locks_below(place.path[last], mode, &mut |table, idx| {
            let lock = &table.state.slot(idx);
            !conflicts(idx, lock.mode) || visit(Obstacle::Lock(idx))
        })
    }

    /// The first thing in the way of all of `places`.
    pub(crate) fn first_obstacle<'p>(
        &self,
        places: impl Iterator<Item = &'p Place>,
        reach: Reach<'_>,
        now: Now,
    ) -> Option<Obstacle> {
        let mut first = None;
        for place in places {
            self.visit_obstacles(place, reach, now, &mut |obstacle| {
                first = Some(obstacle);
                false
            });
            if first.is_some() {
                break;
            }
        }
        first
    }

    /// Everything in the way of all of `places`, as a refusal tells it.
    pub(crate) fn in_the_way<'p>(
        &self,
        caller: &Caller,
        places: impl Iterator<Item = &'p Place>,
        reach: Reach<'_>,
        now: Now,
    ) -> InTheWay {
        let mut found = InTheWay::default();
        let mut locks: Vec<LockIdx> = Vec::new();
        let mut parked: Vec<WaiterId> = Vec::new();
        for place in places {
            self.visit_obstacles(place, reach, now, &mut |obstacle| {
                match obstacle {
                    Obstacle::Lock(idx) => locks.push(idx),
                    Obstacle::Parked(waiter) => parked.push(waiter),
                    Obstacle::Freeze(_) => {}
                }
                locks.len() < COUNT_LIMIT && parked.len() < COUNT_LIMIT
            });
        }
        parked.sort_unstable();
        parked.dedup();
        for waiter in parked {
            let Some(other) = self.parked.get(&waiter) else { continue };
            match &other.phase {
                Phase::Waiting { .. } => found.queue_ahead += 1,
                Phase::Claimed { alternative, pins } => {
                    found.writes_in_flight += pins.len();
                    found.pending = self.pending(other, *alternative);
                }
            }
        }
        self.tell_locks(caller, &mut locks, reach.holds, &mut found);
        found
    }

    pub(crate) fn pending(&self, parked: &Parked, alternative: usize) -> Option<Pending> {
        let first = parked.alternatives().get(alternative)?.first().copied()?;
        Some(Pending {
            holder: parked.command.caller.principal.clone(),
            resource: parked.command.want.resources().get(first)?.clone(),
        })
    }

    /// Counts these locks, and shows the one that ends last.
    pub(crate) fn tell_locks(
        &self,
        caller: &Caller,
        locks: &mut Vec<LockIdx>,
        holds: &[LockId],
        found: &mut InTheWay,
    ) {
        locks.sort_unstable();
        locks.dedup();
        found.locks = locks.len();
        let mut last: Option<LockIdx> = None;
        for &idx in &*locks {
            let lock = self.state.slot(idx);
            found.held_by_you |= if caller.anonymous {
                holds.contains(&lock.lock_id)
            } else {
                lock.holder == caller.principal
            };
            if last.is_none_or(|last| self.state.slot(last).deadline < lock.deadline) {
                last = Some(idx);
            }
        }
        found.lock = last.map(|idx| Box::new(self.state.slot(idx).lock()));
    }

    // ---- writes on their way -----------------------------------------------------------------

    /// Shows `visit` every write on its way that a request conflicts with.
    pub(crate) fn visit_pins(
        &self,
        place: &Place,
        mode: Mode,
        depth: Depth,
        now: Now,
        visit: &mut dyn FnMut(&PinAt),
    ) {
        if self.pins.is_empty() {
            return;
        }
        let last = place.path.len() - 1;
        let conflicts = |pin: &PinAt| !(mode == Mode::Shared && self.is_of_sharer(pin, now));
        for (at, &node) in place.path.iter().enumerate() {
            let own = place.exact && at == last;
            for pin in self.state.tree.pins(node) {
                if (own || pin.kind == PinKind::Subtree) && conflicts(pin) {
                    visit(pin);
                }
            }
        }
        if place.exact && depth == Depth::Infinity {
            self.visit_pins_below(place.path[last], &mut |pin| {
                if conflicts(pin) {
                    visit(pin);
                }
            });
        }
    }

    /// Whether a write on its way conflicts with a request for all of `places`. The recovery pin
    /// does with those that may wait.
    pub(crate) fn has_pins<'p>(
        &self,
        mut places: impl Iterator<Item = &'p Place>,
        mode: Mode,
        depth: Depth,
        may_wait: bool,
        now: Now,
    ) -> bool {
        let passed_over = self.passed_over(may_wait);
        places.any(|place| {
            let mut any = false;
            self.visit_pins(place, mode, depth, now, &mut |at| {
                any |= passed_over != Some(at.pin);
            });
            any
        })
    }

    /// Every write on its way that a request for all of `places` conflicts with, each once.
    pub(crate) fn pins_at<'p>(
        &self,
        places: impl Iterator<Item = &'p Place>,
        mode: Mode,
        depth: Depth,
        may_wait: bool,
        now: Now,
    ) -> Vec<PinId> {
        let passed_over = self.passed_over(may_wait);
        let mut pins = Vec::new();
        for place in places {
            self.visit_pins(place, mode, depth, now, &mut |at| {
                if passed_over != Some(at.pin) {
                    pins.push(at.pin);
                }
            });
        }
        pins.sort_unstable();
        pins.dedup();
        pins
    }

    /// The pin that is in nobody's way who cannot wait for it.
    pub(crate) fn passed_over(&self, may_wait: bool) -> Option<PinId> {
        self.unknown.recovery_pin().filter(|_| !may_wait)
    }

    fn visit_pins_below(&self, node: NodeId, visit: &mut dyn FnMut(&PinAt)) {
        if self.state.tree.below(node).pins == 0 {
            return;
        }
        for child in self.state.tree.busy(node) {
            for pin in self.state.tree.pins(child) {
                visit(pin);
            }
            self.visit_pins_below(child, visit);
        }
    }
}
