//! Writes of which nobody can say whether they landed: what the next grant is told of them.
//!
//! Two kinds. One that was followed until nothing of it could land any more, and whose answer was
//! never seen: the next exclusive grant of what it changes is told, and then it is forgotten. And
//! those that a process before this one had on their way to somebody who does not say what became
//! of them: a recovery pin stands for all of them until they must have landed. A command that may
//! wait waits for it as for any write; any other goes ahead, and is told.
//!
//! A grant that was told and that a failed commit then takes back has told nobody: what it was told
//! is kept until it is durable.
//!
//! Deliberately absent: the embedded documents have neither, for they always learn how a write
//! ended.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::event::{Origin, WriteResult};
use crate::ids::{PinId, Seq, WaiterId};
use crate::lock::{Depth, Mode};
use crate::queue::Phase;
use crate::resource::Resource;
use crate::sabotage::{self, Mistake};
use crate::table::LockTable;
use crate::target::Target;
use crate::time::{LeaseTime, Now};
use crate::writes::Pin;

/// The most resources that are remembered until a grant is told; beyond, no more are.
const MOST: usize = 1 << 16;

/// How a resource was written to.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// Itself.
    own: bool,
    /// It, and everything below it.
    below: bool,
}

/// What is not known of writes.
#[derive(Debug, Default)]
pub(crate) struct Unknown {
    /// What the next grant is told of.
    written: BTreeMap<Resource, Written>,
    /// What grants that are not durable yet have been told, with the position of each.
    told: Vec<(Seq, Resource, Written)>,
    recovery: Option<(PinId, LeaseTime)>,
}

impl Unknown {
    /// The pin that stands for the writes of a process before this one.
    pub(crate) fn recovery_pin(&self) -> Option<PinId> {
        self.recovery.map(|(pin, _)| pin)
    }

    /// When they must have landed.
    pub(crate) fn recovery_ends(&self) -> Option<LeaseTime> {
        self.recovery.map(|(_, until)| until)
    }

    /// Grants up to `durable` stand, and so does what they were told.
    pub(crate) fn settled(&mut self, durable: Seq) {
        self.told.retain(|(grant, ..)| durable < *grant);
    }

    /// Grants after `durable` never were: what they were told is told to others.
    pub(crate) fn lost_after(&mut self, durable: Seq) {
        self.settled(durable);
        for (_, resource, written) in std::mem::take(&mut self.told) {
            self.remember(resource, written);
        }
    }

    fn remember(&mut self, resource: Resource, written: Written) {
        if self.written.len() < MOST || self.written.contains_key(&resource) {
            let known = self.written.entry(resource).or_default();
            known.own |= written.own;
            known.below |= written.below;
        }
    }

    /// What a lock on `locked` has to do with. What is above it matters by what was written below.
    fn met_by(&self, locked: &Resource, depth: Depth) -> Vec<Resource> {
        let mut met = Vec::new();
        if self.written.contains_key(locked) {
            met.push(locked.clone());
        }
        let mut above = locked.parent();
        while let Some(at) = above {
            above = at.parent();
            if self.written.get(&at).is_some_and(|written| written.below) {
                met.push(at);
            }
        }
        if depth == Depth::Infinity {
            // All that is below a path stands together, from its slash on.
            let slash = if locked.is_root() { "/".to_owned() } else { format!("{locked}/") };
            let after = self.written.range::<str, _>((Bound::Excluded(&*slash), Bound::Unbounded));
            let below = after.take_while(|(written, _)| locked.covers(written));
            met.extend(below.map(|(written, _)| written.clone()));
        }
        met
    }

    /// A grant of `locked` at `grant` is told of `met`: of what is above it, only what was written
    /// below that.
    fn tell(&mut self, grant: Seq, locked: &Resource, met: Resource) {
        let Some(mut told) = self.written.remove(&met) else { return };
        if told.own && !locked.covers(&met) {
            told.own = false;
            self.written.insert(met.clone(), Written { own: true, below: false });
        }
        self.told.push((grant, met, told));
    }
}

impl LockTable {
    /// Writes of a process before this one may land for so long: anywhere, and unseen.
    pub fn await_recovery(&mut self, for_ms: u64, now: Now) {
        if sabotage::is(Mistake::ForgetRecovery) {
            return;
        }
        let pin = PinId(self.fresh_id());
        let targets = vec![Target::Subtree(Resource::root())];
        let nodes = self.attach_pins(pin, &targets);
        self.pins.insert(
            pin,
            Pin {
                method: Arc::from(""),
                resource: Resource::root(),
                origin: Origin::default(),
                targets,
                nodes,
                rests_on: Seq(0),
                locks: Vec::new(),
                awaited_by: Vec::new(),
            },
        );
        self.unknown.recovery = Some((pin, now.lease + for_ms));
    }

    /// Ends the recovery pin once its time is over.
    pub(crate) fn end_recovery(&mut self, now: Now) {
        let Some((pin, until)) = self.unknown.recovery else { return };
        if until <= now.lease {
            self.unknown.recovery = None;
            // It stands for no write of its own, so nothing is written down.
            self.complete(pin, WriteResult::NotSent, now);
        }
    }

    /// Whether a command whose time is up waits for the recovery pin alone, and so may go ahead.
    pub(crate) fn awaits_only_recovery(&self, waiter: WaiterId, now: Now) -> bool {
        let Some(recovery) = self.unknown.recovery_pin() else { return false };
        let Some(parked) = self.parked.get(&waiter) else { return false };
        let Phase::Claimed { pins, .. } = &parked.phase else { return false };
        // A sharer's write that did not count is a stranger's once that sharer's lock has ended.
        pins.iter().all(|pin| *pin == recovery)
            && self.pins_before(parked, now).iter().all(|pin| *pin == recovery)
    }

    /// Nobody will say how a write to these ended.
    pub(crate) fn remember_unknown(&mut self, targets: &[Target]) {
        for target in targets {
            let below = matches!(target, Target::Subtree(_));
            let written = Written { own: !below, below };
            self.unknown.remember(target.resource().clone(), written);
        }
    }

    /// Whether a grant, the next event, goes ahead without knowing of the writes before it. An
    /// exclusive one has been told, so the next one is not.
    pub(crate) fn is_unknown_to(
        &mut self,
        resources: &[Resource],
        mode: Mode,
        depth: Depth,
        now: Now,
    ) -> bool {
        let recovers = self.unknown.recovery_ends().is_some_and(|until| now.lease < until);
        if self.unknown.written.is_empty() {
            return recovers;
        }
        let mut is_met = false;
        for locked in resources {
            for met in self.unknown.met_by(locked, depth) {
                is_met = true;
                if mode == Mode::Exclusive {
                    self.unknown.tell(self.state.seq.next(), locked, met);
                }
            }
        }
        recovers || is_met
    }
}
