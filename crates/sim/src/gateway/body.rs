//! The body of a request that comes as its client sends it, or does not.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use leasehold_guard::body::{Body, BoxError};

/// The client's end of a body.
#[derive(Clone, Debug)]
pub struct Flow(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How many pieces there are to take.
    pieces: u32,
    end: Option<End>,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Whole,
    BrokenOff,
}

struct Pieces(Flow);

impl Flow {
    /// A body of which nothing has come, and what sends it.
    #[must_use]
    pub fn new() -> (Body, Self) {
        let flow = Self(Arc::default());
        (Pieces(flow.clone()).boxed_unsync(), flow)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// The client sends a piece.
    pub fn send(&self) {
        self.change(|state| state.pieces += 1);
    }

    /// The client has sent everything.
    pub fn end(&self) {
        self.change(|state| state.end = Some(End::Whole));
    }

    /// The client has gone.
    pub fn break_off(&self) {
        self.change(|state| state.end = Some(End::BrokenOff));
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.0.state();
        if state.pieces > 0 {
            state.pieces -= 1;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"piece")))));
        }
        match state.end {
            Some(End::Whole) => Poll::Ready(None),
            Some(End::BrokenOff) => {
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())))
            }
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
