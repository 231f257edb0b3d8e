//! Measures durable acquire→release cycles beside a server that does nothing.
//!
//! `leasehold-bench cycles --server PATH` starts the floor (hyper, one thread, answers without
//! doing anything) and the program at PATH in turn, each several times, and prints cycles per
//! second, the server's own CPU per 100,000 cycles, and latencies. Quote ratios of one run: the
//! absolute figures are the machine's.
#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

mod cycles;
mod floor;
mod target;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "leasehold-bench", about = "Measures the server beside a no-op floor")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Serves answers that rest on nothing, for comparison.
    Floor {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: std::net::SocketAddr,
    },
    /// Acquire→release cycles, durable on the server's side, beside the floor.
    Cycles {
        /// The server program.
        #[arg(long, default_value = "target/release/leasehold")]
        server: PathBuf,
        /// How many clients, one run for each.
        #[arg(long, value_delimiter = ',', default_value = "1,64")]
        clients: Vec<usize>,
        /// Seconds of each run.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Runs of each; the median is printed.
        #[arg(long, default_value_t = 3)]
        runs: usize,
    },
    /// The same cycles against a server that runs already, for profilers: its cycles per second.
    Load {
        /// Its address, HOST:PORT.
        address: String,
        /// How many clients.
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// For how many seconds.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match Args::parse().what {
        What::Floor { listen } => runtime.block_on(floor::serve(listen)),
        What::Cycles { server, clients, seconds, runs } => {
            runtime.block_on(cycles::compare(&server, &clients, seconds, runs))
        }
        What::Load { address, clients, seconds } => {
            runtime.block_on(cycles::alone(&address, clients, seconds))
        }
    }
}
