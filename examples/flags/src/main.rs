//! Feature flags, an ordinary axum service, with Leasehold's guard before it.
//!
//! Whoever changes a flag reads it, looks at what it does to whom, decides, and writes it back:
//! several requests, between which nobody else must write. So the lock of a flag is taken first:
//!
//! ```sh
//! cargo run -p leasehold-example-flags &
//! AS='Authorization: Bearer alice'
//! curl -X PUT localhost:8080/flags/checkout -H "$AS" -H 'If-None-Match: *' --json '{"enabled": true}'
//! TOKEN=$(curl -s -X POST localhost:8080/flags/checkout/lock -H "$AS" |
//!     sed 's/.*"lock_token":"\([^"]*\)".*/\1/')
//! curl localhost:8080/flags/checkout
//! curl 'localhost:8080/flags/checkout/evaluation?user=kim&country=de'
//! curl -X PUT localhost:8080/flags/checkout -H "$AS" -H "X-Lock-Token: $TOKEN" \
//!     --json '{"enabled": true, "rollout_percentage": 20}'
//! curl -X DELETE localhost:8080/flags/checkout/lock -H "$AS" -H "X-Lock-Token: $TOKEN"
//! ```
//!
//! The handlers ([`api`]) know nothing of tokens. The lock table is in this process, with its log in
//! a folder; with `FLAGS_LOCK_SERVER=http://127.0.0.1:7423` that Leasehold server is asked instead.
//! Then several processes of this service can share it; locks are taken and rules set there, and who
//! callers are is what that server makes of their `Authorization`.

mod api;
mod callers;
mod flag;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::{Router, middleware};
use leasehold_client::{Client, RetryPolicy};
use leasehold_tower::{Leasehold, LeaseholdLayer, Pattern, Remote, Rule, Stopping};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long writes have to end when the service stops.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// How long the lock server has to answer. Until then a write waits.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let set = |name: &str| std::env::var(name).ok();
    let listen = set("FLAGS_LISTEN").unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener =
        TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    match set("FLAGS_LOCK_SERVER") {
        Some(url) => {
            let client = Client::builder(&url)
                .timeout(ANSWERS_WITHIN)
                .retry(RetryPolicy::default().total(ANSWERS_WITHIN))
                .build()?;
            serve(listener, address, Remote::new(client).layer(), None).await
        }
        None => {
            let data = set("FLAGS_DATA").unwrap_or_else(|| "./flags-data".to_owned());
            let locks = Leasehold::builder(data)
                .identity(callers::caller)
                .rule(flags_rule()?)
                .open()
                .await
                .context("cannot open the lock table")?;
            serve(listener, address, locks.layer(), Some(locks.stopping())).await?;
            locks.close(LAST_WRITES).await?;
            Ok(())
        }
    }
}

/// What holds for flags: everything below one is that flag, and nobody overwrites it blindly. A write
/// has a lock's token, or says by `If-Match` which version it is about.
fn flags_rule() -> anyhow::Result<Rule> {
    Ok(Rule {
        patterns: vec![Pattern::parse("/flags/{id}/**")?],
        resource: Some(Pattern::parse("/flags/{id}")?),
        require_precondition: true,
        ..Rule::default()
    })
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    guard: LeaseholdLayer,
    stopping: Option<Stopping>,
) -> anyhow::Result<()> {
    // The last is the outermost: who sends a request is known before the guard asks.
    let app: Router = api::routes().layer(guard).layer(middleware::from_fn(callers::authenticate));
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "flags are at http://{address}/flags")?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = stop.recv() => {}
                _ = interrupt.recv() => {}
            }
            if let Some(stopping) = stopping {
                stopping.begin();
            }
        })
        .await?;
    Ok(())
}
