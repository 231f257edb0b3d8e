//! One history from beginning to end.

use leasehold_core::sabotage::{self, Mistake};

use crate::judge::Violation;
use crate::world::{Options, World};

/// What came of a history.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every invariant held.
    Held {
        /// A digest of history, log and disk.
        digest: String,
        /// How many events the log has.
        events: usize,
    },
    /// One did not.
    Broken {
        /// In which step.
        step: u64,
        /// Which, and what was seen.
        violation: Violation,
        /// The newest lines of the history.
        lines: Vec<String>,
    },
}

/// Runs so many steps, or until an invariant does not hold.
///
/// # Errors
/// When the world cannot be made.
pub fn run(options: Options, steps: u64, print: bool) -> anyhow::Result<Outcome> {
    let _mistake = Making::new(options.mistake);
    let mut world = World::new(options)?;
    if print {
        world.history.print();
    }
    let run = (1..=steps)
        .try_for_each(|step| world.step().map_err(|violation| (step, violation)))
        .and_then(|()| world.verify().map_err(|violation| (steps, violation)));
    if let Err((step, violation)) = run {
        let lines = world.history.lines().map(str::to_owned).collect();
        return Ok(Outcome::Broken { step, violation, lines });
    }
    Ok(Outcome::Held { digest: world.digest(), events: world.events() })
}

/// As long as this lives, the product makes a mistake on this thread.
struct Making;

impl Making {
    fn new(mistake: Option<Mistake>) -> Self {
        sabotage::make(mistake);
        Self
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        sabotage::make(None);
    }
}
