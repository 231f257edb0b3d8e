//! What is measured, one module a scenario.
//!
//! Each scenario brings its loads; what they have in common is here: servers in turn, each a
//! process of its own on an empty folder, several times, so that the drift of the machine meets
//! all alike; and the ratios to the floor, made run by run.

pub(crate) mod all;
pub(crate) mod audit;
pub(crate) mod contended;
pub(crate) mod cycles;
pub(crate) mod documents;
pub(crate) mod expiry;
pub(crate) mod gateway;
pub(crate) mod handover;
pub(crate) mod many;
pub(crate) mod mix;

use std::path::PathBuf;

use crate::cores::Bound;
use crate::figures::Figures;
use crate::load::CPU;
use crate::report::Row;
use crate::target::{Kind, Scratch, Target};

/// What all scenarios are told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// The server program.
    #[arg(long, global = true, default_value = "target/release/leasehold")]
    pub(crate) server: PathBuf,
    /// Below which folder the servers keep their data: on the disk that is meant.
    #[arg(long, global = true, default_value = "target")]
    pub(crate) data: PathBuf,
    /// Seconds of each load.
    #[arg(long, global = true, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// How often each load is run; tables show the median.
    #[arg(long, global = true, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Measures Redis with `appendfsync always` beside, where it has the same operation.
    #[arg(long, global = true, value_name = "PROGRAM", num_args = 0..=1, default_missing_value = "redis-server")]
    pub(crate) redis: Option<PathBuf>,
    /// Keeps the load on the last core, and of each server the first thread on the first, where
    /// servers are measured beside the floor: the kernel puts them on one as often as not. The first
    /// thread is the one that serves, in Leasehold on up to three cores.
    #[arg(long, global = true)]
    pub(crate) bound: bool,
}

impl Plan {
    /// Starts a server on an empty folder, which goes with the first value: behind the server, for
    /// what is bound last is dropped first.
    pub(crate) fn start(&self, kind: Kind) -> anyhow::Result<(Scratch, Target)> {
        let scratch = Scratch::new(&self.data, kind.name())?;
        let target = match kind {
            Kind::Floor => Target::floor()?,
            Kind::Gateway | Kind::Proxy(_) => {
                anyhow::bail!("{} stands before another server", kind.name())
            }
            Kind::Leasehold => Target::leasehold(&self.server, scratch.path())?,
            Kind::Redis => {
                let program = self.redis.clone().unwrap_or_else(|| PathBuf::from("redis-server"));
                Target::redis(&program, scratch.path())?
            }
        };
        Ok((scratch, target))
    }

    /// How often and how long, for the text above a table.
    pub(crate) fn told(&self) -> String {
        let runs = if self.runs == 1 { "run" } else { "runs" };
        format!("{} {runs} of {} s", self.runs, self.seconds)
    }

    /// The same for servers [in turn](Self::in_turn), and on which cores.
    pub(crate) fn told_in_turn(&self) -> String {
        let bound = if self.bound { ", servers and load on a core each" } else { "" };
        format!("{}{bound}", self.told())
    }

    /// The floor and the server.
    pub(crate) fn pair(&self) -> Vec<Kind> {
        vec![Kind::Floor, Kind::Leasehold]
    }

    /// The same and Redis, if it was asked for.
    pub(crate) fn peers(&self) -> Vec<Kind> {
        let mut kinds = self.pair();
        kinds.extend(self.redis.as_ref().map(|_| Kind::Redis));
        kinds
    }

    /// Measures servers in turn, several times, and gives a row for each. `measure` gives the
    /// rate first; the rows end with its ratio, and that of the CPU, to the floor of the same run.
    pub(crate) async fn in_turn(
        &self,
        kinds: &[Kind],
        case: &str,
        measure: impl AsyncFn(&Target) -> anyhow::Result<Figures>,
    ) -> anyhow::Result<Vec<Row>> {
        let mut runs = vec![Vec::new(); kinds.len()];
        for number in 1..=self.runs.max(1) {
            tell(&format!("{case}: run {number}"));
            let mut floor = None;
            for (kind, runs) in kinds.iter().zip(&mut runs) {
                let (_scratch, target) = self.start(*kind)?;
                let bound = self.bound.then(|| Bound::new(&target)).transpose()?;
                let mut figures = measure(&target).await?;
                drop(bound);
                target.stop()?;
                if *kind == Kind::Floor {
                    floor = Some(figures.clone());
                } else if let Some(floor) = &floor {
                    compare(&mut figures, floor);
                }
                runs.push(figures);
            }
        }
        let rows = kinds.iter().zip(&runs);
        Ok(rows.map(|(kind, runs)| Row::of_runs(kind.name(), case, runs)).collect())
    }
}

/// The name of the figure for the rate beside the floor's.
pub(crate) const OF_FLOOR: &str = "of floor %";
/// The name of the figure for how many times the floor's CPU an operation costs.
pub(crate) const CPU_OF_FLOOR: &str = "CPU ×";

fn compare(figures: &mut Figures, floor: &Figures) {
    let cpu =
        |figures: &Figures| figures.iter().find(|(name, _)| name == CPU).map(|(_, value)| *value);
    let rate = figures.first().zip(floor.first()).map(|((_, ours), (_, floors))| ours / floors);
    let cpu = cpu(figures).zip(cpu(floor)).map(|(ours, floors)| ours / floors);
    figures.extend(rate.map(|ratio| (OF_FLOOR.to_owned(), 100.0 * ratio)));
    // A load too short for the kernel's clock leaves the floor without any.
    let cpu = cpu.filter(|ratio| ratio.is_finite());
    figures.extend(cpu.map(|ratio| (CPU_OF_FLOOR.to_owned(), ratio)));
}

/// Says what is being done, for whoever watches.
#[expect(clippy::print_stderr, reason = "the report is on the standard output")]
pub(crate) fn tell(what: &str) {
    eprintln!("… {what}");
}
