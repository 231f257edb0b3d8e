//! A lock table inside a service, from its start to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use leasehold_engine::start::Running;
use leasehold_engine::{Engine, Stats};
use leasehold_guard::rules::Rule;
use tokio::task::JoinHandle;

use crate::builder::Builder;
use crate::gate::Gate;
use crate::layer::LeaseholdLayer;
use crate::rules::BadRule;

/// A lock table inside a service, with its log in a data folder as `leasehold serve` has it.
///
/// One process has the folder at a time. `leasehold audit` and `leasehold backup` read it while it is
/// in use; a new secret of `leasehold token-key rotate` counts from the next start.
///
/// It ends with [`close`](Self::close). Dropped, it commits what it has to, which blocks; the
/// writes that are on their way are then left to the next start, which cannot know of them.
pub struct Leasehold {
    running: Running,
    gate: Arc<Gate>,
    settler: JoinHandle<()>,
}

/// Begins the end of a [`Leasehold`], from wherever the signal to stop arrives.
#[derive(Clone)]
pub struct Stopping {
    engine: Engine,
}

/// Writes had not ended when the time to stop was over.
///
/// The lock table is closed all the same. Its next start says of them that it does not know whether
/// they landed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("writes were still on their way after {:?}", .within)]
pub struct Unfinished {
    /// How long they were waited for.
    pub within: Duration,
}

impl Leasehold {
    /// A lock table with its log in the folder `data`, to be set up first.
    pub fn builder(data: impl Into<PathBuf>) -> Builder {
        Builder::new(data.into())
    }

    pub(crate) fn new(running: Running, gate: Arc<Gate>) -> Self {
        let settler = tokio::spawn(running.engine().clone().run());
        Self { running, gate, settler }
    }

    /// The layer. All of them, and their clones, are about the same locks.
    #[must_use]
    pub fn layer(&self) -> LeaseholdLayer {
        LeaseholdLayer::embedded(self.gate.clone())
    }

    /// Goes by other rules from now on. Locks that live stay as they are.
    ///
    /// # Errors
    /// For rules that cannot hold together; then the old ones stay.
    pub fn set_rules(&self, rules: Vec<Rule>) -> Result<(), BadRule> {
        self.gate.set_rules(rules)
    }

    /// How many locks, waiters and writes under way there are, and whether commands are taken: for
    /// the service's own metrics and readiness.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.running.engine().stats()
    }

    /// What begins the stop, for the signal of a graceful shutdown.
    #[must_use]
    pub fn stopping(&self) -> Stopping {
        Stopping { engine: self.running.engine().clone() }
    }

    /// Waits until every write that was let through has ended, its answer included. For after
    /// [`Stopping::begin`]: until then more may come.
    pub async fn drained(&self) {
        self.gate.drained().await;
    }

    /// Ends it: nothing more is let through, writes on their way have this long to end, and what
    /// there is to say of them is written down. For after the server has stopped.
    ///
    /// # Errors
    /// When some had not ended by then.
    pub async fn close(self, within: Duration) -> Result<(), Unfinished> {
        self.stopping().begin();
        let drained = tokio::time::timeout(within, self.drained()).await;
        let Self { running, gate: _, settler } = self;
        if tokio::task::spawn_blocking(move || running.stop()).await.is_err() {
            tracing::error!("the stop of the lock table has panicked");
        }
        // It ends with the engine, and gives nothing back.
        let _ = settler.await;
        drained.map_err(|_| Unfinished { within })
    }
}

impl Stopping {
    /// From now on writes and commands are refused (`503`), and whoever waits for a lock is told
    /// so. Writes on their way go on, and reads pass.
    pub fn begin(&self) {
        self.engine.refuse_new();
    }
}

impl std::fmt::Debug for Leasehold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leasehold").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Stopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopping").finish_non_exhaustive()
    }
}
