//! The permit of a write that was let through.

use leasehold_core::event::{Subject, WriteResult};
use leasehold_core::ids::{Fence, LockId, PinId, Seq};
use leasehold_core::lock::LetGo;
use leasehold_core::writes::AdmittedWrite;

use crate::engine::Engine;

/// The right to carry one write out, and the duty to say how it ended.
///
/// Dropped before [`Permit::sending`], it unpins at once (`not_sent`). Dropped after, it reports
/// `unknown`: nobody will say how the write ended. Only [`Permit::complete`] says it, so whoever
/// sends the write keeps the permit until nothing of it can land any more. Dropped after while
/// the engine stops, it leaves the write to the next start, which finds out. Drop never waits.
#[must_use]
pub struct Permit {
    engine: Engine,
    admitted: AdmittedWrite,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    NotSent,
    Sent,
    Ended,
}

impl Permit {
    pub(crate) fn new(engine: Engine, admitted: AdmittedWrite) -> Self {
        Self { engine, admitted, stage: Stage::NotSent }
    }

    /// The position of the write's (first) `write_admitted`; none for a write without a lock.
    #[must_use]
    pub fn admission(&self) -> Option<Seq> {
        self.admitted.admission
    }

    /// The newest request to let go of a lock it was let through under.
    #[must_use]
    pub fn requested(&self) -> Option<&LetGo> {
        self.admitted.requested.as_ref()
    }

    /// The locks it was let through under.
    #[must_use]
    pub fn locks(&self) -> &[(LockId, Fence)] {
        &self.admitted.locks
    }

    /// The one of them that is nearest to the resource, with the fence to be passed on.
    #[must_use]
    pub fn nearest(&self) -> Option<&Subject> {
        self.admitted.nearest.as_ref()
    }

    /// Its pin, for what watches pins.
    #[must_use]
    pub fn pin(&self) -> PinId {
        self.admitted.pin
    }

    /// The write is being handed to what stands behind the guard: from here on only an answer
    /// says that it did not land.
    pub fn sending(&mut self) {
        self.stage = Stage::Sent;
    }

    /// The write has ended like this: it is unpinned.
    pub fn complete(mut self, result: WriteResult) {
        self.stage = Stage::Ended;
        self.engine.unpin(self.admitted.pin, result);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.stage {
            Stage::NotSent => self.engine.unpin(self.admitted.pin, WriteResult::NotSent),
            Stage::Sent => self.engine.unpin_unknown(self.admitted.pin),
            Stage::Ended => {}
        }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit")
            .field("pin", &self.admitted.pin)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
