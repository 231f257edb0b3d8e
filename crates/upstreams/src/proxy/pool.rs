//! Connections to the upstream that wait for their next request.
//!
//! A pool of our own over hyper's connections, because of two things that a write asks for: it
//! must be known whether a connection has been closed before the drain time runs, and a write
//! goes out on no connection that has been idle for long, which the upstream may be closing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connect::Stream;
use super::pace::Outgoing;

/// The most idle connections that are kept.
const MOST_IDLE: usize = 256;

/// How long a connection may have been idle for a request that can be sent again.
pub(super) const FOR_READS: Duration = Duration::from_secs(30);

/// How long for one that cannot. Servers close idle connections after two seconds (gunicorn), five
/// (Node, Apache) or more; a request that meets that is lost, and nobody can say whether it was
/// read.
pub(super) const FOR_WRITES: Duration = Duration::from_secs(1);

/// A connection. Dropped, it is closed.
pub(super) struct Lease {
    pub(super) sender: SendRequest<Outgoing>,
    /// None once it was told to close.
    task: Option<JoinHandle<()>>,
    /// Whether it has carried a request before.
    pub(super) is_reused: bool,
}

impl Lease {
    pub(super) async fn begin(stream: Stream) -> hyper::Result<Self> {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the upstream ended");
            }
        });
        Ok(Self { sender, task: Some(task), is_reused: false })
    }

    /// Closes the connection; it is closed when what this gives has ended.
    pub(super) fn close(mut self) -> Option<JoinHandle<()>> {
        let task = self.task.take();
        if let Some(task) = &task {
            task.abort();
        }
        task
    }

    /// Leaves the connection to whoever has taken it over.
    pub(super) fn detach(mut self) {
        self.task = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Idle {
    lease: Lease,
    since: Instant,
}

/// The idle connections, the one last used at the end.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Idle>>);

impl Pool {
    /// A connection that has been idle for no longer than `most`.
    pub(super) fn take(&self, most: Duration) -> Option<Lease> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = idle.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let found = &idle[at];
            if found.lease.sender.is_closed() || FOR_READS < found.since.elapsed() {
                idle.remove(at);
            } else if most < found.since.elapsed() {
                // All before it have been idle for longer.
                return None;
            } else if found.lease.sender.is_ready() {
                let mut lease = idle.remove(at).lease;
                lease.is_reused = true;
                return Some(lease);
            }
        }
        None
    }

    /// Lets go of what nobody would take any more.
    pub(super) fn tidy(&self) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|one| !one.lease.sender.is_closed() && one.since.elapsed() <= FOR_READS);
    }

    /// Keeps a connection whose exchange is over.
    pub(super) fn give_back(&self, lease: Lease) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if MOST_IDLE <= idle.len() {
            // The one that has been idle for longest.
            idle.remove(0);
        }
        idle.push(Idle { lease, since: Instant::now() });
    }
}
