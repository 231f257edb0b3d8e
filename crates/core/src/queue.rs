//! Who waits for what, and who is next.
//!
//! A parked acquire watches one thing that stands in its way (one for each alternative of an
//! `any_of`), not all of them: when that goes, it looks again. What it watches by preference is
//! the newest of the earlier acquires that it conflicts with, so a queue is a chain and the end of
//! a lock wakes its head, not the whole queue.
//!
//! An acquire is *waiting* while something is in its way, and *claimed* when only writes on their
//! way are: then it has its place, and stands in everybody's way like a lock.

use std::sync::Arc;

use crate::command::{Acquire, Want};
use crate::ids::{LockId, PinId, Principal, WaiterId};
use crate::lock::{Depth, Idempotency};
use crate::obstacles::{Obstacle, Place, Reach};
use crate::refusal::{AcquireRefusal, COUNT_LIMIT, TokenIs, Waiting};
use crate::resource::Resource;
use crate::table::{LockTable, Woken};
use crate::time::{LeaseTime, Now};
use crate::tree::{NodeId, ParkedAt};

/// Something in the way of a parked acquire.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Blocker {
    Lock(LockId),
    Parked(WaiterId),
    Freeze(Resource),
}

#[derive(Debug)]
pub(crate) enum Phase {
    Waiting { watching: Vec<Blocker> },
    Claimed { alternative: usize, pins: Vec<PinId> },
}

#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) command: Acquire,
    /// The nodes of what it asks for, in the order of its resources.
    pub(crate) nodes: Vec<NodeId>,
    /// Which of them it is attached to.
    pub(crate) attached: Vec<bool>,
    pub(crate) holds: Vec<LockId>,
    pub(crate) since: LeaseTime,
    pub(crate) until: LeaseTime,
    pub(crate) phase: Phase,
}

/// A waiter whose time was up and who may come back to its place.
#[derive(Debug)]
pub(crate) struct Away {
    pub(crate) until: LeaseTime,
    pub(crate) principal: Principal,
    pub(crate) key: Arc<str>,
    pub(crate) digest: Arc<str>,
    pub(crate) resources: Arc<[Resource]>,
}

/// How long a waiter whose time is up keeps its place: 5 s.
pub const AWAY_MS: u64 = 5000;

impl Parked {
    /// The indices of what would be granted together, one list for each alternative.
    pub(crate) fn alternatives(&self) -> Vec<Vec<usize>> {
        alternatives(&self.command.want)
    }

    /// The places of what it still asks for.
    fn places(&self, table: &LockTable) -> Vec<Place> {
        let attached = self.nodes.iter().zip(&self.attached).filter(|(_, attached)| **attached);
        attached.map(|(&node, _)| table.place_of(node)).collect()
    }
}

/// The indices of the resources that would be granted together, one list for each alternative.
pub(crate) fn alternatives(want: &Want) -> Vec<Vec<usize>> {
    match want {
        Want::All(resources) => vec![(0..resources.len()).collect()],
        Want::AnyOf(resources) => (0..resources.len()).map(|at| vec![at]).collect(),
    }
}

impl LockTable {
    // ---- parking -----------------------------------------------------------------------------

    /// Puts an acquire into the queue and looks for its turn.
    pub(crate) fn park(
        &mut self,
        waiter: WaiterId,
        command: Acquire,
        holds: Vec<LockId>,
        now: Now,
    ) {
        let nodes: Vec<NodeId> =
            command.want.resources().iter().map(|each| self.state.tree.make(each)).collect();
        for &node in &nodes {
            let at = ParkedAt { waiter, mode: command.mode, depth: command.depth };
            self.state.tree.attach_parked(node, at);
        }
        let wait_ms =
            if command.wait_ms == 0 { command.limits.drain_wait_ms } else { command.wait_ms };
        let until = now.lease + wait_ms;
        if let Some(idempotency) = &command.idempotency {
            self.parked_keys
                .insert((command.caller.principal.clone(), idempotency.key.clone()), waiter);
        }
        for &held in &holds {
            self.held_by_parked.entry(held).or_default().push(waiter);
        }
        self.parked_timers.insert((until, waiter));
        let attached = vec![true; nodes.len()];
        self.count_waiter(&command.caller.principal);
        self.parked.insert(
            waiter,
            Parked {
                command,
                nodes,
                attached,
                holds,
                since: now.lease,
                until,
                phase: Phase::Waiting { watching: Vec::new() },
            },
        );
        self.reconsider(waiter, now);
    }

    /// Looks whether a waiting acquire's turn has come.
    pub(crate) fn reconsider(&mut self, waiter: WaiterId, now: Now) {
        let Some(parked) = self.parked.get_mut(&waiter) else { return };
        let Phase::Waiting { watching } = &mut parked.phase else { return };
        let watched = std::mem::take(watching);
        for blocker in watched {
            self.unwatch(&blocker, waiter);
        }
        let Some(parked) = self.parked.get(&waiter) else { return };
        let (mode, depth) = (parked.command.mode, parked.command.depth);
        let may_wait = parked.command.wait_ms > 0;
        let holds = parked.holds.clone();
        let nodes = parked.nodes.clone();
        let mut watch = Vec::new();
        let mut free = None;
        for (alternative, members) in parked.alternatives().into_iter().enumerate() {
            let places: Vec<Place> = members.iter().map(|&at| self.place_of(nodes[at])).collect();
            let reach = Reach { mode, depth, ticket: Some(waiter), holds: &holds };
            match self.first_obstacle(places.iter(), reach, now) {
                Some(Obstacle::Lock(idx)) => {
                    watch.push(Blocker::Lock(self.state.slot(idx).lock_id));
                }
                Some(Obstacle::Parked(other)) => watch.push(Blocker::Parked(other)),
                Some(Obstacle::Freeze(node)) => {
                    if let Some(freeze) = self.state.tree.freeze(node) {
                        watch.push(Blocker::Freeze(freeze.resource.clone()));
                    }
                }
                None => {
                    let quite_free = !self.has_pins(places.iter(), mode, depth, may_wait, now);
                    if quite_free || free.is_none() {
                        free = Some((alternative, members, places));
                    }
                    if quite_free {
                        break;
                    }
                }
            }
        }
        if let Some((alternative, members, places)) = free {
            self.claim(waiter, alternative, &members, &places, now);
            return;
        }
        for blocker in &watch {
            self.watchers.entry(blocker.clone()).or_default().push(waiter);
        }
        if let Some(parked) = self.parked.get_mut(&waiter) {
            parked.phase = Phase::Waiting { watching: watch };
        }
    }

    /// Nothing but writes on their way is before it: it has its place, and is granted when they
    /// have ended.
    fn claim(
        &mut self,
        waiter: WaiterId,
        alternative: usize,
        members: &[usize],
        places: &[Place],
        now: Now,
    ) {
        let Some(parked) = self.parked.get_mut(&waiter) else { return };
        let (mode, depth) = (parked.command.mode, parked.command.depth);
        let may_wait = parked.command.wait_ms > 0;
        for at in 0..parked.nodes.len() {
            if !members.contains(&at) && std::mem::take(&mut parked.attached[at]) {
                self.state.tree.detach_parked(parked.nodes[at], waiter);
            }
        }
        self.claimed += 1;
        let places: Vec<&Place> = places.iter().collect();
        let pins = self.await_pins_at(&places, mode, depth, may_wait, waiter, now);
        let has_to_wait = !pins.is_empty();
        if let Some(parked) = self.parked.get_mut(&waiter) {
            parked.phase = Phase::Claimed { alternative, pins };
        }
        if has_to_wait {
            // Whoever watched it for its order may be before something else now.
            self.wake(Blocker::Parked(waiter), now);
        } else {
            self.grant_parked(waiter, now);
        }
    }

    /// A write that a claimed acquire waited for has ended.
    pub(crate) fn pin_left(&mut self, waiter: WaiterId, pin: PinId, now: Now) {
        let Some(parked) = self.parked.get_mut(&waiter) else { return };
        let Phase::Claimed { pins, .. } = &mut parked.phase else { return };
        pins.retain(|each| *each != pin);
        if !pins.is_empty() {
            return;
        }
        // A sharer's write that did not count is a stranger's once that sharer's lock has ended.
        let Some(parked) = self.parked.get(&waiter) else { return };
        let (mode, depth) = (parked.command.mode, parked.command.depth);
        let may_wait = parked.command.wait_ms > 0;
        let places: Vec<Place> = parked.places(self);
        let places: Vec<&Place> = places.iter().collect();
        let left = self.await_pins_at(&places, mode, depth, may_wait, waiter, now);
        if left.is_empty() {
            self.grant_parked(waiter, now);
        } else if let Some(parked) = self.parked.get_mut(&waiter)
            && let Phase::Claimed { pins, .. } = &mut parked.phase
        {
            *pins = left;
        }
    }

    fn grant_parked(&mut self, waiter: WaiterId, now: Now) {
        let Some(parked) = self.parked.get(&waiter) else { return };
        let Phase::Claimed { alternative, .. } = parked.phase else { return };
        let members = parked.alternatives().swap_remove(alternative);
        let waited_ms = now.lease.since(parked.since);
        let command = parked.command.clone();
        let outcome = match self.room_for(&command) {
            Ok(()) => {
                let resources = members
                    .iter()
                    .map(|&at| command.want.resources()[at].clone())
                    .collect::<Vec<_>>();
                Woken::Granted(self.grant(&command, resources.into(), waited_ms, now))
            }
            Err(refusal) => Woken::Refused(Box::new(refusal)),
        };
        self.unpark(waiter, now);
        self.wakes.push((waiter, outcome));
    }

    /// Takes a parked acquire out, and lets whoever it was in the way of look again.
    pub(crate) fn unpark(&mut self, waiter: WaiterId, now: Now) -> Option<Parked> {
        let parked = self.parked.remove(&waiter)?;
        self.uncount_waiter(&parked.command.caller.principal);
        for (&node, &attached) in parked.nodes.iter().zip(&parked.attached) {
            if attached {
                self.state.tree.detach_parked(node, waiter);
            }
        }
        self.parked_timers.remove(&(parked.until, waiter));
        if let Some(idempotency) = &parked.command.idempotency {
            let key = (parked.command.caller.principal.clone(), idempotency.key.clone());
            if self.parked_keys.get(&key) == Some(&waiter) {
                self.parked_keys.remove(&key);
            }
        }
        match &parked.phase {
            Phase::Waiting { watching } => {
                for blocker in watching {
                    self.unwatch(blocker, waiter);
                }
            }
            Phase::Claimed { pins, .. } => {
                self.claimed -= 1;
                self.forget_awaiting(pins, waiter);
            }
        }
        for held in &parked.holds {
            if let Some(waiters) = self.held_by_parked.get_mut(held) {
                waiters.retain(|each| *each != waiter);
                if waiters.is_empty() {
                    self.held_by_parked.remove(held);
                }
            }
        }
        self.wake(Blocker::Parked(waiter), now);
        Some(parked)
    }

    fn unwatch(&mut self, blocker: &Blocker, waiter: WaiterId) {
        if let Some(waiters) = self.watchers.get_mut(blocker) {
            waiters.retain(|each| *each != waiter);
            if waiters.is_empty() {
                self.watchers.remove(blocker);
            }
        }
    }

    /// What was in the way has gone: those who watched it look again, the earliest first.
    pub(crate) fn wake(&mut self, blocker: Blocker, now: Now) {
        self.to_wake.push_back(blocker);
        if std::mem::replace(&mut self.waking, true) {
            return;
        }
        while let Some(blocker) = self.to_wake.pop_front() {
            let Some(mut waiters) = self.watchers.remove(&blocker) else { continue };
            waiters.sort_unstable();
            for waiter in waiters {
                self.reconsider(waiter, now);
            }
        }
        self.waking = false;
    }

    /// The client of a parked command has gone: it leaves at once.
    pub fn leave(&mut self, waiter: WaiterId, now: Now) {
        if self.unpark(waiter, now).is_none() {
            self.remove_drain(waiter);
        }
    }

    /// A parked command's time is up.
    pub(crate) fn time_up(&mut self, waiter: WaiterId, now: Now) {
        if self.away.contains_key(&waiter) {
            self.forget_away(waiter);
            return;
        }
        if self.drains.contains_key(&waiter) {
            self.drain_time_up(waiter);
            return;
        }
        if self.awaits_only_recovery(waiter, now) {
            self.grant_parked(waiter, now);
            return;
        }
        let Some(parked) = self.parked.get(&waiter) else { return };
        let reach = Reach {
            mode: parked.command.mode,
            depth: parked.command.depth,
            ticket: Some(waiter),
            holds: &parked.holds,
        };
        let places = parked.places(self);
        let refusal = match self.refuse_frozen(&parked.command.want, &places, now) {
            Err(frozen) if matches!(parked.phase, Phase::Waiting { .. }) => frozen,
            _ => {
                let caller = &parked.command.caller;
                let mut found = self.in_the_way(caller, places.iter(), reach, now);
                if let Phase::Claimed { .. } = &parked.phase {
                    found.writes_in_flight += self.pins_before(parked, now).len();
                }
                found.waited_ms = now.lease.since(parked.since);
                found.presented =
                    parked.holds.iter().map(|&id| TokenIs::LiveElsewhere(id)).collect();
                AcquireRefusal::Locked(Box::new(found))
            }
        };
        let may_return = parked.command.wait_ms > 0;
        let Some(parked) = self.unpark(waiter, now) else { return };
        if may_return {
            self.go_away(waiter, parked.command, now);
        }
        self.wakes.push((waiter, Woken::Refused(Box::new(refusal))));
    }

    /// The writes on their way that a claimed acquire conflicts with now.
    pub(crate) fn pins_before(&self, parked: &Parked, now: Now) -> Vec<PinId> {
        let (mode, depth) = (parked.command.mode, parked.command.depth);
        let may_wait = parked.command.wait_ms > 0;
        self.pins_at(parked.places(self).iter(), mode, depth, may_wait, now)
    }

    /// Keeps the place of a waiter with a key for a while.
    fn go_away(&mut self, waiter: WaiterId, command: Acquire, now: Now) {
        let Some(idempotency) = command.idempotency else { return };
        let principal = command.caller.principal;
        let resources = command.want.resources().clone();
        let until = now.lease + AWAY_MS;
        self.parked_keys.insert((principal.clone(), idempotency.key.clone()), waiter);
        self.parked_timers.insert((until, waiter));
        for resource in resources.iter() {
            *self.away_at.entry(resource.clone()).or_default() += 1;
        }
        let Idempotency { key, digest } = idempotency;
        self.count_waiter(&principal);
        self.away.insert(waiter, Away { until, principal, key, digest, resources });
    }

    /// A waiter comes back, or has been away for too long.
    pub(crate) fn forget_away(&mut self, waiter: WaiterId) {
        let Some(away) = self.away.remove(&waiter) else { return };
        self.uncount_waiter(&away.principal);
        self.parked_timers.remove(&(away.until, waiter));
        self.parked_keys.remove(&(away.principal, away.key));
        for resource in away.resources.iter() {
            if let Some(count) = self.away_at.get_mut(resource) {
                *count -= 1;
                if *count == 0 {
                    self.away_at.remove(resource);
                }
            }
        }
    }

    fn count_waiter(&mut self, principal: &Principal) {
        *self.waiters_of.entry(principal.clone()).or_default() += 1;
    }

    fn uncount_waiter(&mut self, principal: &Principal) {
        if let Some(count) = self.waiters_of.get_mut(principal) {
            *count -= 1;
            if *count == 0 {
                self.waiters_of.remove(principal);
            }
        }
    }

    // ---- looking -----------------------------------------------------------------------------

    /// Every parked acquire whose request meets one of this depth at `place`, in order.
    pub(crate) fn queue_at(&self, place: &Place, depth: Depth) -> Vec<Waiting> {
        let mut waiters = Vec::new();
        let last = place.path.len() - 1;
        for (at, &node) in place.path.iter().enumerate() {
            let own = place.exact && at == last;
            for parked in self.state.tree.parked(node) {
                if own || parked.depth == Depth::Infinity {
                    waiters.push(parked.waiter);
                }
            }
        }
        if place.exact && depth == Depth::Infinity {
            self.visit_all_parked_below(place.path[last], &mut waiters);
        }
        waiters.sort_unstable();
        waiters.dedup();
        waiters
            .into_iter()
            .filter_map(|waiter| {
                let parked = self.parked.get(&waiter)?;
                Some(Waiting {
                    waiter,
                    holder: parked.command.caller.principal.clone(),
                    since: parked.since,
                    until: parked.until,
                    granted: matches!(parked.phase, Phase::Claimed { .. }),
                })
            })
            .collect()
    }

    fn visit_all_parked_below(&self, node: NodeId, waiters: &mut Vec<WaiterId>) {
        if self.state.tree.below(node).parked == 0 || waiters.len() > COUNT_LIMIT {
            return;
        }
        for child in self.state.tree.busy(node) {
            for parked in self.state.tree.parked(child) {
                waiters.push(parked.waiter);
            }
            self.visit_all_parked_below(child, waiters);
        }
    }

    /// Checks the queue: whoever waits has something in its way and watches something that is
    /// there; whoever is claimed has nothing before it, and a write on its way.
    pub(crate) fn assert_queue(&self, now: Now) {
        let is_claimed = |parked: &&Parked| matches!(parked.phase, Phase::Claimed { .. });
        assert_eq!(self.claimed, self.parked.values().filter(is_claimed).count());
        let counted: u64 = self.waiters_of.values().sum();
        assert_eq!(counted, (self.parked.len() + self.away.len()) as u64);
        for (&waiter, parked) in &self.parked {
            assert!(self.parked_timers.contains(&(parked.until, waiter)), "{waiter:?} has no end");
            let watching = match &parked.phase {
                Phase::Waiting { watching } => watching,
                Phase::Claimed { pins, .. } => {
                    self.assert_claimed(waiter, parked, pins, now);
                    continue;
                }
            };
            let reach = Reach {
                mode: parked.command.mode,
                depth: parked.command.depth,
                ticket: Some(waiter),
                holds: &parked.holds,
            };
            for members in parked.alternatives() {
                let places: Vec<Place> =
                    members.iter().map(|&at| self.place_of(parked.nodes[at])).collect();
                // A lock that is due and not yet written down is in nobody's way any more; those
                // who wait for it are served when it is.
                let is_due = |blocker: &Blocker| match blocker {
                    Blocker::Lock(id) => self
                        .state
                        .idx(*id)
                        .is_some_and(|idx| !self.state.slot(idx).is_live(now.lease)),
                    Blocker::Freeze(resource) => {
                        self.state.freeze_of(resource).is_some_and(|it| it.until <= now.wall)
                    }
                    Blocker::Parked(_) => false,
                };
                assert!(
                    self.first_obstacle(places.iter(), reach, now).is_some()
                        || watching.iter().any(is_due),
                    "starvation: {waiter:?} waits and nothing is in its way"
                );
            }
            assert!(!watching.is_empty(), "{waiter:?} watches nothing");
            for blocker in watching {
                let there = match blocker {
                    Blocker::Lock(id) => self.state.idx(*id).is_some(),
                    Blocker::Parked(other) => self.parked.contains_key(other),
                    Blocker::Freeze(resource) => self.state.freeze_of(resource).is_some(),
                };
                assert!(there, "{waiter:?} watches {blocker:?}, which is gone");
                assert!(
                    self.watchers.get(blocker).is_some_and(|all| all.contains(&waiter)),
                    "{waiter:?} is not among the watchers of {blocker:?}"
                );
            }
        }
    }

    /// Whether a waiter waits for the end of a write.
    pub(crate) fn awaits(&self, waiter: WaiterId, pin: PinId) -> bool {
        let claimed = self.parked.get(&waiter).is_some_and(|parked| match &parked.phase {
            Phase::Claimed { pins, .. } => pins.contains(&pin),
            Phase::Waiting { .. } => false,
        });
        claimed || self.drains.get(&waiter).is_some_and(|drain| drain.pins.contains(&pin))
    }

    fn assert_claimed(&self, waiter: WaiterId, parked: &Parked, pins: &[PinId], now: Now) {
        let (mode, depth) = (parked.command.mode, parked.command.depth);
        assert!(!pins.is_empty(), "{waiter:?} is claimed and waits for nothing");
        for pin in pins {
            let awaited = self.pins.get(pin).is_some_and(|pin| pin.awaited_by.contains(&waiter));
            assert!(awaited, "{waiter:?} waits for {pin:?}, which will not tell it");
        }
        let mut in_the_way = Vec::new();
        for place in parked.places(self) {
            self.visit_locks(&place, mode, depth, now, &mut |obstacle| {
                in_the_way.push(obstacle);
                true
            });
        }
        assert!(in_the_way.is_empty(), "{waiter:?} is claimed with {in_the_way:?} in its way");
    }
}
