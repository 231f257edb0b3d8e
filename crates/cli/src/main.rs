//! The leasehold program: the server, and what its operators do beside it.
//!
//! Modules in reading order: the command line ([`args`]), how a command ends ([`outcome`]), what
//! it prints ([`output`]), and one module for each group of commands: those that work on a data
//! folder, those that talk to a server ([`remote`]), and [`run`].

mod args;
mod audit;
mod copies;
mod explain;
mod keys;
mod manual;
mod outcome;
mod output;
mod remote;
mod rules;
mod run;
mod serve;
mod token_key;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::outcome::Failure;
use crate::remote::{documents, locks};

/// Requests are many small allocations that end on the thread they began on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(helper) = run::Helper::named_by(std::env::args_os()) {
        return match helper.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => Failure::report(&failure),
        };
    }
    // clap itself ends a command line that is none with 2.
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Key(command) => keys::run(command),
        Command::TokenKey(command) => token_key::run(command),
        Command::Audit(command) => audit::run(command),
        Command::Rules(command) => rules::run(command),
        Command::Backup(args) => copies::backup(&args),
        Command::Restore(args) => copies::restore(&args),
        Command::Explain { what } => explain::run(&what),
        Command::Lock(args) => locks::lock(&args),
        Command::Renew(args) => locks::renew(&args),
        Command::Unlock(args) => locks::unlock(&args),
        Command::Run(args) => run::run(&args),
        Command::Show(args) => locks::show(&args),
        Command::Ls(args) => locks::ls(&args),
        Command::Break(args) => locks::end(&args),
        Command::Transfer(args) => locks::transfer(&args),
        Command::Request(args) => locks::request(&args),
        Command::Freeze(args) => locks::freeze(&args),
        Command::Unfreeze(args) => locks::unfreeze(&args),
        Command::Get(args) => documents::get(&args),
        Command::Put(args) => documents::put(&args),
        Command::Patch(args) => documents::patch(&args),
        Command::Delete(args) => documents::delete(&args),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::man(folder.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => Failure::report(&failure),
    }
}
