//! Writes of which nobody can say whether they landed.

use leasehold_core::command::Acquire;
use leasehold_core::ids::PinId;
use leasehold_core::lock::{Depth, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;

use super::{Claim, Naive};

/// What stands, among the writes that a freeze waits for, for those of a process before this one.
const BEFORE: PinId = PinId(0);

/// Whether `told`, of one resource, has all that `part`, of one resource as well, has of a target.
fn covers_all_of(told: &Claim, part: &Claim, target: &Target) -> bool {
    let whole = part.depth == Depth::Zero || told.depth == Depth::Infinity;
    !part.guards_all(target) && told.covers(&part.resources[0]) && whole
}

impl Naive {
    /// Whether an acquire has to wait until the writes of a process before this one have landed.
    pub(crate) fn awaits_recovery(&self, command: &Acquire) -> bool {
        self.recovery.is_some() && command.wait_ms > 0
    }

    /// The writes that a freeze waits for.
    pub(crate) fn writes_before(&self, claim: &Claim) -> Vec<PinId> {
        let before = self.recovery.map(|_| BEFORE);
        self.pins_against(claim).into_iter().chain(before).collect()
    }

    /// Whether a grant has to say that it does not know of the writes before it. Only one that has
    /// the resource for itself uses that up, for the part that it has.
    pub(crate) fn is_unknown_to(&mut self, claim: &Claim) -> bool {
        let each =
            |resource: &Resource| Claim { resources: vec![resource.clone()], ..claim.clone() };
        let parts: Vec<Claim> = claim.resources.iter().map(each).collect();
        let mut is_met = false;
        self.unknown.retain_mut(|(target, told)| {
            let mut is_left = true;
            for part in parts.iter().filter(|part| part.guards(target)) {
                if told.iter().any(|told| covers_all_of(told, part, target)) {
                    continue;
                }
                is_met = true;
                if claim.mode == Mode::Exclusive {
                    told.push(part.clone());
                    is_left &= !part.guards_all(target);
                }
            }
            is_left
        });
        is_met || self.recovery.is_some_and(|until| self.now.lease < until)
    }

    /// The table looks at the clock: whatever a process before this one has sent has landed.
    pub(crate) fn end_recovery(&mut self) {
        if self.recovery.is_some_and(|until| until <= self.now.lease) {
            self.recovery = None;
            for drain in &mut self.drains {
                drain.pins.retain(|pin| *pin != BEFORE);
            }
        }
    }
}
