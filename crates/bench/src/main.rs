//! Measures the server beside a server that does nothing.
//!
//! Each scenario starts the floor (hyper, one thread, answers the same requests without doing
//! anything) and the server program in turn, each several times, and gives rates, the server's
//! own CPU, latencies and memory. Quote ratios of one run: the absolute figures are the
//! machine's. What each scenario does is in `docs/performance.md`.
#![expect(clippy::print_stdout, reason = "it is a program that prints a report")]

mod cores;
mod disk;
mod figures;
mod floor;
mod http;
mod load;
mod redis;
mod report;
mod scenario;
mod summary;
mod target;
mod trail;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::report::Report;
use crate::scenario::{
    Plan, all, audit, contended, cycles, documents, expiry, gateway, handover, many, mix,
};

#[derive(Parser)]
#[command(name = "leasehold-bench", about = "Measures the server beside a no-op floor")]
struct Args {
    #[command(flatten)]
    plan: Plan,
    /// Writes the report to this file too, as JSON, for `show`.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Every scenario below, and which targets are met.
    All(all::Options),
    /// Acquire and release, both durable.
    Cycles(cycles::Options),
    /// Nine renewals in ten requests.
    Mix(mix::Options),
    /// Fail-fast attempts at a few hot keys.
    Contended(contended::Options),
    /// Many clients that wait for one key.
    Handover(handover::Options),
    /// Very many live locks: memory, restart, and cycles beside them.
    Many(many::Options),
    /// Very many locks whose deadlines fall into one second.
    Expiry(expiry::Options),
    /// Reads and writes of documents.
    Documents(documents::Options),
    /// The gateway beside plain reverse proxies.
    Gateway(gateway::Options),
    /// Questions to a long trail.
    Audit(audit::Options),
    /// Prints a report that was written with `--json`, as tables for a document.
    Show {
        /// The file.
        file: PathBuf,
        /// Only the short table that the README has.
        #[arg(long)]
        readme: bool,
    },
    /// Cycles, or attempts at a few keys, against a server that runs already, for profilers: how
    /// many of them per second.
    Load {
        /// Its address, HOST:PORT.
        address: String,
        /// How many clients.
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// Attempts at so many keys instead of cycles, as in `contended`.
        #[arg(long)]
        keys: Option<usize>,
    },
    /// Serves answers that rest on nothing: the floor.
    Floor {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: std::net::SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Args { plan, json, what } = Args::parse();
    runtime.block_on(async {
        let mut report = Report::default();
        match &what {
            What::All(options) => {
                all::measure(&plan, options, &mut report).await?;
                println!("{}\n{}", summary::readme(&report), summary::targets(&report));
            }
            What::Cycles(options) => report.add(cycles::measure(&plan, options).await?),
            What::Mix(options) => report.add([mix::measure(&plan, options).await?]),
            What::Contended(options) => report.add([contended::measure(&plan, options).await?]),
            What::Handover(options) => report.add([handover::measure(&plan, options).await?]),
            What::Many(options) => report.add([many::measure(&plan, options).await?]),
            What::Expiry(options) => report.add([expiry::measure(&plan, options).await?]),
            What::Documents(options) => report.add([documents::measure(&plan, options).await?]),
            What::Gateway(options) => report.add([gateway::measure(&plan, options).await?]),
            What::Audit(options) => report.add([audit::measure(&plan, options).await?]),
            What::Show { file, readme } => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                let report: Report = serde_json::from_str(&text)
                    .with_context(|| format!("{} is not a report", file.display()))?;
                if *readme {
                    print!("{}", summary::readme(&report));
                } else {
                    print!("{}", report.markdown());
                }
            }
            What::Load { address, clients, keys } => load(&plan, address, *clients, *keys).await?,
            What::Floor { listen } => floor::serve(*listen).await?,
        }
        if let Some(file) = json {
            std::fs::write(&file, serde_json::to_string_pretty(&report)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    })
}

async fn load(
    plan: &Plan,
    address: &str,
    clients: usize,
    keys: Option<usize>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(plan.seconds);
    let (tally, unit) = match keys {
        None => (load::run(address, clients, until, cycles::cycles).await?, "cycles"),
        Some(keys) => {
            let attempts = |client| contended::attempts(client, keys.max(1));
            (load::run(address, clients, until, attempts).await?, "attempts")
        }
    };
    println!("{:.0} {unit}/s", tally.operations as f64 / began.elapsed().as_secs_f64());
    Ok(())
}
