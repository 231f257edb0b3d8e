//! A counter that many change at once: with conditional writes, and under a lock.
//!
//! ```sh
//! leasehold serve &
//! cargo run -p leasehold-client --example update
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use leasehold_client::{Client, Error, Name};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("LEASEHOLD_SERVER");
    let client = Client::new(url.as_deref().unwrap_or("http://127.0.0.1:7423"))?;

    // Only if it is not there yet.
    match client.create("/counters/visits", &0).await {
        Ok(_) => println!("a new counter"),
        Err(error) if error.is(Name::PreconditionFailed) => println!("the counter is there"),
        Err(error) => return Err(error),
    }

    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                client.update("/counters/visits", |count: &mut u64| *count += 1).await
            })
        })
        .collect();
    for task in tasks {
        match task.await {
            Ok(updated) => println!("counted to {}", updated?.value),
            Err(panicked) => println!("{panicked}"),
        }
    }

    let counter = client.update_locked("/counters/visits", |count: &mut u64| *count += 1).await?;
    println!("and to {} under a lock", counter.value);
    Ok(())
}
