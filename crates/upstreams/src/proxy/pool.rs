//! Connections to the upstream that wait for their next request.
//!
//! A pool of our own over hyper's connections, because of two things that a write asks for: it
//! must be known whether a connection has been closed before the drain time runs, and a write
//! goes out on no connection that has been idle for long, which the upstream may be closing.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use leasehold_core::sabotage::{self, Mistake};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

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

/// After how long without a request a server may be closing a connection for that.
const MAY_CLOSE: Duration = Duration::from_millis(100);

/// A connection. Dropped, it is closed.
pub(super) struct Lease {
    pub(super) sender: SendRequest<Outgoing>,
    /// None once it was told to close.
    task: Option<JoinHandle<()>>,
    /// How long it was idle, where it has carried a request before.
    pub(super) idle_for: Option<Duration>,
    /// For its exchanges, one after the other: one that stands already is put off at no cost.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Lease {
    pub(super) async fn begin(stream: Stream) -> hyper::Result<Self> {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the upstream ended");
            }
        });
        Ok(Self { sender, task: Some(task), idle_for: None, timer: None })
    }

    /// Its timer, which rings at `deadline`.
    pub(super) fn timer(&mut self, deadline: Instant) -> Pin<&mut Sleep> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().reset(deadline);
        timer.as_mut()
    }

    /// Whether a request can meet the close of a connection that was idle.
    pub(super) fn may_be_closing(&self) -> bool {
        let was_idle = |idle_for| MAY_CLOSE <= idle_for || sabotage::is(Mistake::RepeatWrite);
        self.idle_for.is_some_and(was_idle)
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
        let now = Instant::now();
        let mut at = idle.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let found = &idle[at];
            let idle_for = now.duration_since(found.since);
            if found.lease.sender.is_closed() || FOR_READS < idle_for {
                idle.remove(at);
            } else if most < idle_for {
                // All before it have been idle for longer.
                return None;
            } else if found.lease.sender.is_ready() {
                let mut lease = idle.remove(at).lease;
                lease.idle_for = Some(idle_for);
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
