//! Who an exchange waits for: the upstream's silence is counted, the client's is not.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use leasehold_guard::body::{Body, BoxError};
use tokio::time::Instant;

use super::fields;

/// How far a request's body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Stage {
    /// The upstream has to take what is there.
    Upstream,
    /// The client has to send more.
    Client,
    /// The client will not send the rest.
    Failed,
    /// All of it has been taken.
    Done,
}

/// How far an exchange is.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// When something last moved, in milliseconds since it began.
    moved: AtomicU64,
    stage: AtomicU8,
}

impl Pace {
    fn new(stage: Stage) -> Self {
        let stage = AtomicU8::new(stage as u8);
        Self { began: Instant::now(), moved: AtomicU64::new(0), stage }
    }

    fn at(&self, stage: Stage) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(elapsed, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Release);
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Upstream,
            1 => Stage::Client,
            2 => Stage::Failed,
            _ => Stage::Done,
        }
    }

    /// Until when the upstream may be silent.
    pub(super) fn deadline(&self, silence: Duration) -> Instant {
        match self.stage() {
            Stage::Client => Instant::now() + silence,
            _ => self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + silence,
        }
    }
}

/// The body of a request on its way to the upstream.
pub(super) struct Outgoing {
    body: Body,
    pace: Arc<Pace>,
}

impl Outgoing {
    pub(super) fn new(body: Body) -> (Self, Arc<Pace>) {
        let stage = if body.is_end_stream() { Stage::Done } else { Stage::Upstream };
        let pace = Arc::new(Pace::new(stage));
        (Self { body, pace: pace.clone() }, pace)
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let stage = match &polled {
            Poll::Pending => Stage::Client,
            Poll::Ready(None) => Stage::Done,
            Poll::Ready(Some(Err(_))) => Stage::Failed,
            // Whoever takes a body may not ask for what comes after its end.
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => Stage::Done,
            Poll::Ready(Some(Ok(_))) => Stage::Upstream,
        };
        self.pace.at(stage);
        polled.map(|frame| frame.map(|frame| frame.map(filtered)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn filtered(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            fields::trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
