//! Writes of which nobody can say whether they landed: what the next grant is told of them.
//!
//! Two kinds. One that was followed until nothing of it could land any more, and whose answer was
//! never seen: the next exclusive grant of what it changes is told, and then it is forgotten. Where
//! it changed everything below a resource, each part is told of once, until a grant of the whole.
//! And those that a process before this one had on their way to somebody who does not say what
//! became of them: a recovery pin stands for all of them until they must have landed. A command
//! that may wait waits for it as for any write; any other goes ahead, and is told.
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

/// The most resources that are remembered until a grant is told. Beyond, it counts as unknown what
/// was written to anywhere.
const MOST: usize = 1 << 16;

/// How a resource was written to.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// Itself.
    own: bool,
    /// It, and everything below it.
    below: bool,
}

/// What a grant was told.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// All of this, which is forgotten.
    Whole(Written),
    /// A part of what was written to further up.
    Part,
}

/// What is not known of writes.
#[derive(Debug, Default)]
pub(crate) struct Unknown {
    /// What the next grant is told of.
    written: BTreeMap<Resource, Written>,
    /// Below what was written to with everything below it: what grants were told already, of
    /// themselves or with everything below. At most [`MOST`]; who is not among them is told again.
    parts: BTreeMap<Resource, Depth>,
    /// What grants that are not durable yet have been told, with the position of each.
    told: Vec<(Seq, Resource, Told)>,
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
        for (_, resource, told) in std::mem::take(&mut self.told) {
            match told {
                Told::Whole(written) => self.remember(resource, written),
                Told::Part => drop(self.parts.remove(&resource)),
            }
        }
    }

    fn remember(&mut self, resource: Resource, written: Written) {
        let is_full = MOST <= self.written.len() && !self.written.contains_key(&resource);
        let (resource, written) = match is_full {
            true => (Resource::root(), Written { own: false, below: true }),
            false => (resource, written),
        };
        if written.below {
            // Whoever was told of something there is told again.
            self.parts.remove(&resource);
            self.forget_parts_below(&resource);
        }
        let known = self.written.entry(resource).or_default();
        known.own |= written.own;
        known.below |= written.below;
    }

    fn forget_parts_below(&mut self, resource: &Resource) {
        for part in all_below(&self.parts, resource) {
            self.parts.remove(&part);
        }
    }

    /// What a lock on `locked` has to do with, and has not been told of. What is above it matters by
    /// what was written below.
    fn met_by(&self, locked: &Resource, depth: Depth) -> Vec<Resource> {
        let mut met = Vec::new();
        let mut is_told = self.parts.get(locked).is_some_and(|told| covers(*told, depth));
        if let Some(written) = self.written.get(locked)
            && (written.own || depth == Depth::Infinity || !is_told)
        {
            met.push(locked.clone());
        }
        let mut above = locked.parent();
        while let Some(at) = above {
            above = at.parent();
            is_told |= self.parts.get(&at) == Some(&Depth::Infinity);
            if !is_told && self.written.get(&at).is_some_and(|written| written.below) {
                met.push(at);
            }
        }
        if depth == Depth::Infinity {
            met.extend(all_below(&self.written, locked));
        }
        met
    }

    /// A grant of `locked` at `grant` is told of `met`.
    fn tell(&mut self, grant: Seq, locked: &Resource, depth: Depth, met: Vec<Resource>) {
        let mut is_part = false;
        for at in met {
            let Some(written) = self.written.remove(&at) else { continue };
            let told = match (locked.covers(&at), depth) {
                (true, Depth::Infinity) => written,
                // Then it is the same resource.
                (true, Depth::Zero) => Written { own: written.own, below: false },
                (false, _) => Written::default(),
            };
            let left =
                Written { own: written.own && !told.own, below: written.below && !told.below };
            is_part |= left.below;
            if left.own || left.below {
                self.written.insert(at.clone(), left);
            }
            if told.own || told.below {
                self.told.push((grant, at, Told::Whole(told)));
            }
        }
        if depth == Depth::Infinity {
            // What is told of the whole need not be known of its parts.
            self.forget_parts_below(locked);
        }
        if is_part && self.parts.len() < MOST {
            self.parts.insert(locked.clone(), depth);
            self.told.push((grant, locked.clone(), Told::Part));
        }
    }
}

/// Whether who was told of a resource by a grant of one depth has been told all that one of another
/// depth would be.
fn covers(told: Depth, depth: Depth) -> bool {
    told == Depth::Infinity || depth == Depth::Zero
}

/// What is strictly below a resource.
fn all_below<T>(map: &BTreeMap<Resource, T>, resource: &Resource) -> Vec<Resource> {
    if map.is_empty() {
        return Vec::new();
    }
    // All that is below a path stands together, from its slash on.
    let slash = if resource.is_root() { "/".to_owned() } else { format!("{resource}/") };
    let after = map.range::<str, _>((Bound::Excluded(&*slash), Bound::Unbounded));
    let below = after.take_while(|(other, _)| resource.covers(other));
    below.map(|(other, _)| other.clone()).collect()
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
    /// exclusive one has been told, so the next one of the same is not.
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
            let met = self.unknown.met_by(locked, depth);
            is_met |= !met.is_empty();
            if mode == Mode::Exclusive && !met.is_empty() {
                self.unknown.tell(self.state.seq.next(), locked, depth, met);
            }
        }
        recovers || is_met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_what_is_remembered_everything_counts_as_unknown() {
        let resource = |at: usize| Resource::parse(&format!("/a/{at}")).unwrap();
        let own = Written { own: true, below: false };
        let mut unknown = Unknown::default();
        for at in 0..MOST {
            unknown.remember(resource(at), own);
        }
        let elsewhere = Resource::parse("/b").unwrap();
        assert!(unknown.met_by(&elsewhere, Depth::Zero).is_empty());
        unknown.remember(resource(MOST), own);
        unknown.remember(resource(MOST + 1), own);
        assert_eq!(unknown.written.len(), MOST + 1);
        // Each is told of it, and once, as far as there is room for that.
        for (grant, locked) in (1..).zip([&resource(MOST), &resource(7), &elsewhere]) {
            for is_met in [true, false] {
                let met = unknown.met_by(locked, Depth::Infinity);
                assert_eq!(!met.is_empty(), is_met, "{locked}");
                unknown.tell(Seq(grant), locked, Depth::Infinity, met);
            }
        }
    }
}
