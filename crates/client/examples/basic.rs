//! A lock, a document, and what others see.
//!
//! ```sh
//! leasehold serve &
//! cargo run -p leasehold-client --example basic
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::time::Duration;

use leasehold_client::{Client, Error, Name};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("LEASEHOLD_SERVER");
    let client = Client::new(url.as_deref().unwrap_or("http://127.0.0.1:7423"))?;

    client.put("/v1/flags/feature-x", &json!({ "enabled": false })).await?;
    let held = client
        .lock("/v1/flags/feature-x")
        .ttl(Duration::from_secs(30))
        .reason("Rolling out")
        .wait(Duration::from_secs(10))
        .hold()
        .await?;
    println!("locked, with fence {}, for {:?} at a time", held.fence(), held.remaining());

    // Somebody else's write is refused.
    match client.put("/v1/flags/feature-x", &json!({ "enabled": true })).await {
        Err(Error::Refused(problem)) if problem.is(Name::Locked) => println!("others: {problem}"),
        other => println!("others: {other:?}"),
    }

    // The holder's passes.
    client.put("/v1/flags/feature-x", &json!({ "enabled": true })).under(&held).await?;
    let flag = client.get::<serde_json::Value>("/v1/flags/feature-x").await?;
    println!("now {} at {}", flag.value, flag.etag);

    held.release().await
}
