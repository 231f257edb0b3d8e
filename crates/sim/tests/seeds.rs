//! Some histories, and those that have failed once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use std::path::Path;

use leasehold_sim::run::{Outcome, run};
use leasehold_sim::seeds;
use leasehold_sim::world::Options;

fn check(seeds: impl IntoIterator<Item = (u64, u64)>) {
    for (seed, steps) in seeds {
        if let Outcome::Broken { step, violation, lines } =
            run(Options::new(seed), steps, false).unwrap()
        {
            let lines = lines.join("\n");
            panic!(
                "{lines}\n\nseed {seed}, step {step}: {violation}\nagain: cargo run -p \
                 leasehold-sim --release -- --seed {seed} --steps {step}"
            );
        }
    }
}

#[test]
fn every_invariant_holds_in_the_histories_that_broke_one_before() {
    check(seeds::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")).unwrap());
}

#[test]
fn every_invariant_holds_in_some_histories() {
    check((1..=100).map(|seed| (seed, 2000)));
}

#[test]
fn every_invariant_holds_where_nothing_fails() {
    for seed in 1..=20 {
        let options = Options { disk_fails: false, crashes: false, ..Options::new(seed) };
        let outcome = run(options, 2000, false).unwrap();
        assert!(matches!(outcome, Outcome::Held { .. }), "seed {seed}: {outcome:?}");
    }
}
