//! A job that runs on one machine at a time, and stops when it may not go on.
//!
//! ```sh
//! leasehold serve &
//! cargo run -p leasehold-client --example held_job &
//! cargo run -p leasehold-client --example held_job
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::time::Duration;

use leasehold_client::{Client, Error, Held};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("LEASEHOLD_SERVER");
    let client = Client::new(url.as_deref().unwrap_or("http://127.0.0.1:7423"))?;
    println!("waiting for the turn of this one");
    let held = client
        .lock("/jobs/nightly")
        .ttl(Duration::from_secs(10))
        .wait(Duration::from_secs(60))
        .hold()
        .await?;

    tokio::select! {
        done = job(&held) => println!("{} steps done", done?),
        // Two seconds before the lock could end, for whatever has to be put away first.
        () = held.lives_no_longer_than(Duration::from_secs(2)) => {
            println!("renewals do not get through: {:?}", held.trouble());
        }
        let_go = held.requested() => {
            println!("{} asks for it: {:?}", let_go.by, let_go.message);
        }
    }
    held.release().await
}

async fn job(held: &Held) -> Result<u32, Error> {
    for step in 0..10 {
        // Before each thing that must not be done without the lock.
        held.check()?;
        println!("step {step}, with {:?} left", held.remaining());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(10)
}
