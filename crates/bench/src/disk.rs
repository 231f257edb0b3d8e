//! What the disk itself takes to make a write durable: the least that a durable answer can take.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::figures::{Figures, Samples};

/// As much as a commit of one event writes into the write-ahead file: a page and its header.
const BYTES: [u8; 4096 + 24] = [0x5a; 4096 + 24];
/// How many writes are measured.
const WRITES: usize = 500;
/// The name of the figure for one write at the end of a file, and its `fdatasync`.
pub(crate) const APPEND: &str = "append + fdatasync p50 µs";

/// Times `fdatasync` after a write, at the end of a file and over what is there.
pub(crate) fn measure(folder: &Path) -> anyhow::Result<Figures> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("bench-{}-disk", std::process::id()));
    let figures = measure_in(&path);
    // Not there if it could not be made.
    let _ = std::fs::remove_file(&path);
    figures
}

fn measure_in(path: &Path) -> anyhow::Result<Figures> {
    let mut file = File::create(path)?;
    let mut appends = Samples::default();
    for _ in 0..WRITES {
        let began = Instant::now();
        file.write_all(&BYTES)?;
        file.sync_data()?;
        appends.push(began.elapsed());
    }
    let mut overwrites = Samples::default();
    for number in 0..WRITES {
        let began = Instant::now();
        file.write_all_at(&BYTES, (number * BYTES.len()) as u64)?;
        file.sync_data()?;
        overwrites.push(began.elapsed());
    }
    let ([append, append_p99], [overwrite]) = (appends.at([0.5, 0.99]), overwrites.at([0.5]));
    Ok(vec![
        (APPEND.to_owned(), append),
        ("append + fdatasync p99 µs".to_owned(), append_p99),
        ("overwrite + fdatasync p50 µs".to_owned(), overwrite),
    ])
}
