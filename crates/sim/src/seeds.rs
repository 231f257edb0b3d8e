//! The seeds that have failed once: kept in a file, and always run first.
//!
//! One a line: the seed, the steps, and, after `#`, what it found.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

/// The seeds of a file, each with its steps; none if there is no such file.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read(path: &Path) -> anyhow::Result<Vec<(u64, u64)>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (seed, steps) = line.split_once(' ').context("a seed and its steps")?;
            Ok((seed.trim().parse()?, steps.trim().parse()?))
        })
        .collect::<anyhow::Result<_>>()
        .with_context(|| path.display().to_string())
}

/// Adds a seed to the file, unless it is there.
///
/// # Errors
/// When it cannot be read or written.
pub fn keep(path: &Path, seed: u64, steps: u64) -> anyhow::Result<()> {
    if read(path)?.iter().any(|(other, _)| *other == seed) {
        return Ok(());
    }
    let mut file = std::fs::File::options().append(true).create(true).open(path)?;
    writeln!(file, "{seed} {steps}")?;
    Ok(())
}
