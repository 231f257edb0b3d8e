//! What is told on a terminal while a lock is waited for: who has it, and for how much longer.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use leasehold_client::{Client, Inspection};

use super::tables::span;
use crate::output::plain;

/// How often the line is written anew.
const TICK: Duration = Duration::from_secs(1);

/// How often the server is asked again.
const ASK: u32 = 3;

/// Waits for `work`, and tells meanwhile how it stands with `resource`.
pub(crate) async fn told<T>(
    client: &Client,
    resource: &str,
    wait: Duration,
    work: impl Future<Output = T>,
) -> T {
    if wait.is_zero() || !io::stderr().is_terminal() {
        return work.await;
    }
    tokio::select! {
        biased;
        done = work => {
            erase();
            done
        }
        never = tell(client, resource, wait) => match never {},
    }
}

async fn tell(client: &Client, resource: &str, wait: Duration) -> Infallible {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    // What needs no wait is over by then.
    ticks.reset_after(Duration::from_millis(300));
    let (mut seen, mut seen_at): (Option<Inspection>, Instant) = (None, began);
    let mut next_ask = 0_u32;
    loop {
        ticks.tick().await;
        if next_ask == 0 {
            next_ask = ASK;
            // It only tells: what cannot be seen is left out.
            let asked = tokio::time::timeout(TICK, client.inspect(resource)).await;
            (seen, seen_at) = (asked.ok().and_then(Result::ok), Instant::now());
        }
        next_ask -= 1;
        let left = wait.saturating_sub(began.elapsed());
        let line = line(resource, seen.as_ref(), seen_at.elapsed(), left);
        let _ = write!(io::stderr(), "\r\u{1b}[K{line}");
    }
}

fn erase() {
    let _ = write!(io::stderr(), "\r\u{1b}[K");
}

fn line(resource: &str, seen: Option<&Inspection>, ago: Duration, left: Duration) -> String {
    let ms = |span: Duration| Some(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    let mut line = format!("Waiting for {resource}, for {} at most", span(ms(left)));
    let Some(seen) = seen else { return line };
    if let Some(lock) = seen.locks.iter().max_by_key(|lock| lock.expires_in_ms) {
        let holder = plain(lock.holder.as_deref().unwrap_or("somebody"));
        let rest = Duration::from_millis(lock.expires_in_ms).saturating_sub(ago);
        line.push_str(&format!(": {holder} has it for another {} unless renewed", span(ms(rest))));
    }
    if 1 < seen.queue.len() {
        line.push_str(&format!("; {} are waiting", seen.queue.len()));
    }
    line
}
