//! Everything that happens to locks, as it happens; after a break, from where it stopped.
//!
//! ```sh
//! leasehold serve &
//! cargo run -p leasehold-client --example follow_events
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use leasehold_client::{Client, Error, Event, EventFilter};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("LEASEHOLD_SERVER");
    let client = Client::new(url.as_deref().unwrap_or("http://127.0.0.1:7423"))?;
    let mut events = client.events(EventFilter::new());
    if let Some(seq) = std::env::args().nth(1).and_then(|text| text.parse().ok()) {
        events = events.after(seq);
    }
    loop {
        match events.next().await {
            Ok(Event::Audit(event)) => {
                let holder = event.holder.as_deref().unwrap_or("-");
                println!(
                    "{} {} {} {:?} {holder}",
                    event.seq, event.at, event.kind, event.resources
                );
            }
            Ok(Event::Reset { oldest }) => println!("what was before {oldest} is not kept"),
            Ok(_) => {}
            // The server is away for longer than the client is patient: this goes on.
            Err(error) if error.is_retryable() => println!("{error}"),
            Err(error) => return Err(error),
        }
    }
}
