//! Connections between the gateway and the API, as both ends see them.
//!
//! What always holds: what the gateway has written is kept, received or not; and a connection that
//! is cut off tells neither end of it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold_engine::Clock as _;
use leasehold_guard::upstream::BoxFuture;
use leasehold_upstreams::proxy::{Dial, Origin, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::SimClock;

/// Whether the API can be connected to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reach {
    /// Yes.
    #[default]
    Open,
    /// It refuses.
    Refused,
    /// Nobody answers.
    Silent,
}

/// How the API, or something on the way, has ended a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// The API has closed it.
    Closed,
    /// It was reset.
    Reset,
    /// Nothing comes through any more, and nobody is told.
    Partition,
}

/// A connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// All that the gateway has written.
    pub sent: Vec<u8>,
    /// How much of that came through.
    pub received: usize,
    /// What the API has answered and the gateway has not read.
    pub unread: VecDeque<u8>,
    /// How it ended on the side of the API, and when.
    pub cut: Option<(Cut, Duration)>,
    /// When the gateway has let go of it.
    pub closed_at: Option<Duration>,
    reader: Option<Waker>,
}

impl Connection {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn is_cut_by(&self, how: Cut) -> bool {
        self.cut.is_some_and(|(cut, _)| cut == how)
    }
}

/// All connections. All clones are one.
#[derive(Clone, Debug)]
pub struct Network {
    clock: SimClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    reach: Reach,
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

impl Network {
    /// A network without a connection.
    #[must_use]
    pub fn new(clock: SimClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the API can be connected to.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.state().reach
    }

    /// From now on the API can be connected to, or not.
    pub fn set_reach(&self, reach: Reach) {
        self.state().reach = reach;
    }

    /// Looks at every connection, the oldest first.
    pub fn each(&self, mut look: impl FnMut(u64, &Connection)) {
        self.state().connections.iter().for_each(|(id, connection)| look(*id, connection));
    }

    /// The API answers.
    pub fn answer(&self, id: u64, bytes: &[u8]) {
        if let Some(connection) = self.state().connections.get_mut(&id) {
            connection.unread.extend(bytes);
            connection.wake();
        }
    }

    /// A connection ends on the side of the API.
    pub fn cut(&self, id: u64, how: Cut) {
        let now = self.clock.monotonic();
        if let Some(connection) = self.state().connections.get_mut(&id) {
            connection.cut.get_or_insert((how, now));
            connection.wake();
        }
    }

    /// Forgets connections that the gateway has let go of.
    pub fn forget_closed(&self) {
        self.state().connections.retain(|_, connection| connection.closed_at.is_none());
    }
}

impl Dial for Network {
    fn dial<'a>(&'a self, _: &'a Origin) -> BoxFuture<'a, io::Result<Box<dyn Wire>>> {
        Box::pin(async {
            let id = {
                let mut state = self.state();
                match state.reach {
                    Reach::Open => {
                        state.next += 1;
                        let id = state.next;
                        state.connections.insert(id, Connection::default());
                        Some(id)
                    }
                    Reach::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
                    Reach::Silent => None,
                }
            };
            match id {
                Some(id) => Ok(Box::new(End { network: self.clone(), id }) as Box<dyn Wire>),
                // Until whoever connects has waited for long enough.
                None => std::future::pending().await,
            }
        })
    }
}

/// The gateway's end of a connection.
struct End {
    network: Network,
    id: u64,
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.network.state();
        let Some(connection) = state.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if connection.is_cut_by(Cut::Partition) {
            return Poll::Pending;
        }
        let count = buffer.remaining().min(connection.unread.len());
        if count > 0 {
            let bytes: Vec<u8> = connection.unread.drain(..count).collect();
            buffer.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        match connection.cut {
            Some((Cut::Closed, _)) => Poll::Ready(Ok(())),
            Some((Cut::Reset, _)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some((Cut::Partition, _)) | None => {
                connection.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.state();
        let Some(connection) = state.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if connection.is_cut_by(Cut::Reset) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        connection.sent.extend(bytes);
        if connection.cut.is_none() {
            connection.received = connection.sent.len();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let now = self.network.clock.monotonic();
        if let Some(connection) = self.network.state().connections.get_mut(&self.id) {
            connection.closed_at = Some(now);
        }
    }
}
