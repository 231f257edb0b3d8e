//! `leasehold completions` and `leasehold man`: from the same definitions as the command line.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::args::Cli;
use crate::outcome::Failure;
use crate::output::{say, stdout};

/// Prints the completions of a shell.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "leasehold", &mut text);
    print(&text)
}

/// Prints the manual page of the program, or writes those of all commands into a folder.
pub(crate) fn man(folder: Option<&Path>) -> Result<(), Failure> {
    let Some(folder) = folder else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text)?;
        return print(&text);
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|error| {
            Failure::failed(format!("cannot write manual pages to {}: {error}", folder.display()))
        })?;
    say(&format!("Wrote the manual pages to {}.", folder.display()));
    Ok(())
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = stdout();
    out.write_all(text)?;
    Ok(out.flush()?)
}
