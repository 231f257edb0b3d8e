//! What a connection is told while it is served: that time has passed, and that the server stops.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

/// An HTTP/2 connection on which nothing was asked for so long is closed. (An idle HTTP/1.1
/// connection ends by `header_timeout`.)
const IDLE: Duration = Duration::from_secs(300);

/// What a connection has to be told, beside what comes on it.
pub(super) struct Around {
    stop: CancellationToken,
    cut: CancellationToken,
    /// When the first request has to be there. None: it was looked whether it is.
    pub(super) first_request: Option<Instant>,
    idle: Interval,
    /// Whether the connection has been told to end after what is running.
    pub(super) stopping: bool,
}

pub(super) enum Happened {
    /// What is still running is cut.
    Cut,
    /// The server stops.
    Stop,
    /// The first request should be there.
    FirstRequestIsDue,
    /// It is time to look whether anything was asked for.
    IdleTick,
}

impl Around {
    pub(super) fn new(
        stop: CancellationToken,
        cut: CancellationToken,
        first_request: Instant,
    ) -> Self {
        let mut idle = interval_at(Instant::now() + IDLE, IDLE);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { stop, cut, first_request: Some(first_request), idle, stopping: false }
    }

    /// Waits for the next of them.
    pub(super) async fn next(&mut self) -> Happened {
        let first_request = self.first_request;
        let is_due = async {
            match first_request {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.cut.cancelled() => Happened::Cut,
            () = self.stop.cancelled(), if !self.stopping => Happened::Stop,
            () = is_due => Happened::FirstRequestIsDue,
            _ = self.idle.tick(), if !self.stopping => Happened::IdleTick,
        }
    }
}
