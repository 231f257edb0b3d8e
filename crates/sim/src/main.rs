//! Runs histories until an invariant breaks, and says how to see it again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use leasehold_sim::run::{Outcome, run};
use leasehold_sim::seeds;
use leasehold_sim::world::Options;

/// Simulates Leasehold's engine, journal and guard on a disk that fails.
///
/// Seeds that once failed are run first. The exit code is 1 when an invariant does not hold.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// The steps of each history.
    #[arg(long, default_value_t = 2000)]
    steps: u64,
    /// Run so many minutes, however many seeds that takes.
    #[arg(long, conflicts_with = "seed")]
    minutes: Option<u64>,
    /// Run until something breaks.
    #[arg(long, conflicts_with_all = ["seed", "minutes"])]
    forever: bool,
    /// The file of seeds that have failed; a new one is added to it.
    #[arg(long, default_value_os_t = kept())]
    kept: PathBuf,
    /// Print each line of the history.
    #[arg(long)]
    print: bool,
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

#[allow(clippy::print_stdout, reason = "the program's output")]
fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let until = arguments.minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
    let first = arguments.seed.unwrap_or(arguments.from);
    if !repeats(first, arguments.steps)? {
        println!("seed {first}: another history the second time");
        return Ok(ExitCode::FAILURE);
    }
    let mut events = 0;
    let mut count: u64 = 0;
    for (seed, steps) in plan(&arguments)? {
        if until.is_some_and(|until| until <= Instant::now()) {
            break;
        }
        let outcome = run(Options::new(seed), steps, arguments.print)?;
        count += 1;
        match outcome {
            Outcome::Held { digest, events: more } => {
                events += more;
                if arguments.seed.is_some() {
                    println!("seed {seed}: {steps} steps, {more} events, digest {digest}");
                }
            }
            Outcome::Broken { step, violation, lines } => {
                lines.iter().for_each(|line| println!("{line}"));
                println!("\nseed {seed}, step {step}: {violation}");
                println!(
                    "again: cargo run -p leasehold-sim --release -- --seed {seed} --steps {step}"
                );
                seeds::keep(&arguments.kept, seed, step)?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let took = began.elapsed().as_secs_f32();
    println!("{count} histories, {events} events, {took:.1} s: every invariant held");
    Ok(ExitCode::SUCCESS)
}

/// Whether a history comes out the same a second time: whatever else a seed tells rests on it.
fn repeats(seed: u64, steps: u64) -> anyhow::Result<bool> {
    let digest = || {
        Ok::<_, anyhow::Error>(match run(Options::new(seed), steps, false)? {
            Outcome::Held { digest, .. } => digest,
            Outcome::Broken { step, violation, .. } => format!("{step}: {violation}"),
        })
    };
    Ok(digest()? == digest()?)
}

/// Which seeds, each with its steps.
fn plan(arguments: &Arguments) -> anyhow::Result<Box<dyn Iterator<Item = (u64, u64)>>> {
    let steps = arguments.steps;
    if let Some(seed) = arguments.seed {
        return Ok(Box::new(std::iter::once((seed, steps))));
    }
    let kept = seeds::read(&arguments.kept)?;
    let endless = arguments.forever || arguments.minutes.is_some();
    let count = if endless { u64::MAX } else { arguments.seeds };
    let fresh = (arguments.from..).take(usize::try_from(count).unwrap_or(usize::MAX));
    Ok(Box::new(kept.into_iter().chain(fresh.map(move |seed| (seed, steps)))))
}
