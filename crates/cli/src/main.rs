//! The leasehold program: the server, and what its operators do beside it.
//!
//! Modules in reading order: the command line ([`args`]), how a command ends ([`outcome`]), what
//! it prints ([`output`]), and one module for each group of commands.

mod args;
mod audit;
mod copies;
mod explain;
mod keys;
mod outcome;
mod output;
mod serve;
mod token_key;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::outcome::Failure;

/// Requests are many small allocations that end on the thread they began on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // clap itself ends a command line that is none with 2.
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Key(command) => keys::run(command),
        Command::TokenKey(command) => token_key::run(command),
        Command::Audit(command) => audit::run(command),
        Command::Backup(args) => copies::backup(&args),
        Command::Restore(args) => copies::restore(&args),
        Command::Explain { what } => explain::run(&what),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => Failure::report(&failure),
    }
}
