//! Puts everything together and runs it.

use std::convert::Infallible;

use anyhow::Context as _;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use leasehold_guard::body::{self, Body};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::listener::{Listener, Settings};

/// Serves until the process is told to stop.
///
/// # Errors
/// When the server cannot start.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    crate::log::init(config.log, config.log_format)?;
    let listener = Listener::bind(config.listen, Settings::of(&config))
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!("listening on http://{}", listener.local_addr());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopped.cancel();
        }
    });
    listener.serve(tower::service_fn(unavailable), stop).await;
    Ok(())
}

async fn unavailable(_: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    Ok(response)
}
