//! The inputs that fuzzing has kept are taken by every compiler, and a few that are made up.

// These are tests, but their helpers are functions of their own.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use leasehold_fuzz::{CHECKS, Check};

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name)
}

fn replay(name: &str, check: Check) {
    let inputs: Vec<_> = fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(inputs.len() >= 10, "the corpus of {name} has {} inputs", inputs.len());
    for input in inputs {
        let bytes = fs::read(input.path()).unwrap();
        check(&bytes);
        // What is cut off, doubled or turned over is an input as well.
        check(&bytes[..bytes.len() / 2]);
        check(&[bytes.as_slice(), bytes.as_slice()].concat());
        check(&bytes.iter().rev().copied().collect::<Vec<_>>());
    }
}

#[test]
fn every_kept_input_passes() {
    for (name, check) in CHECKS {
        replay(name, check);
    }
}

#[test]
fn every_target_has_a_check_and_every_check_a_target() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut files: Vec<_> = fs::read_dir(targets)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    let mut names: Vec<_> = CHECKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    assert_eq!(files, names);
}
