//! The same seed gives the same history. Everything else that a seed tells rests on it.
//!
//! A program of its own, with one test: SQLite draws the salts of its write-ahead files from one
//! generator of the process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use leasehold_sim::run::{Outcome, run};
use leasehold_sim::world::Options;

fn digest(seed: u64) -> String {
    match run(Options::new(seed), 1500, false).unwrap() {
        Outcome::Held { digest, events } => {
            assert!(events > 20, "seed {seed} has only {events} events");
            digest
        }
        Outcome::Broken { step, violation, .. } => {
            panic!("seed {seed}, step {step}: {violation}")
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_history_log_and_disk() {
    let first: Vec<String> = (1..=4).map(digest).collect();
    let second: Vec<String> = (1..=4).map(digest).collect();
    assert_eq!(first, second);
    assert_ne!(first[0], first[1]);
}
