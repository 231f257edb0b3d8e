//! Writes of which nobody can say whether they landed.

use leasehold_core::command::Acquire;
use leasehold_core::ids::PinId;
use leasehold_core::lock::Mode;
use leasehold_core::target::Target;

use super::{Claim, Naive};

/// What stands, among the writes that a freeze waits for, for those of a process before this one.
const BEFORE: PinId = PinId(0);

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
    /// the resource for itself uses that up.
    pub(crate) fn is_unknown_to(&mut self, claim: &Claim) -> bool {
        let meets = |target: &Target| claim.guards(target);
        let is_met = self.unknown.iter().any(meets);
        if claim.mode == Mode::Exclusive {
            self.unknown.retain(|target| !meets(target));
        }
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
