//! The body of the service's answer to a write, on its way to the client.
//!
//! What always holds: whoever follows the write is told how its answer ended, once. It is taken to
//! its end without its client, within a bound.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use leasehold_core::event::WriteResult;
use leasehold_guard::body::{Body, BoxError};
use leasehold_guard::upstream::Ending;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How long a write is followed once nobody will say how it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long the rest of an answer is taken whose client has gone.
    pub(crate) answer_timeout: Duration,
    /// How long a write may still land after its handler or its answer broke off.
    pub(crate) drain_time: Duration,
}

impl Patience {
    /// Waits until nothing of a write can land any more whose end was not seen.
    pub(crate) async fn landed_or_not(self) -> WriteResult {
        sleep(self.drain_time).await;
        WriteResult::Unknown
    }

    /// The body of an answer, and what says how the write has ended; none where it has.
    pub(crate) fn follow(self, status: StatusCode, body: Body) -> (Body, Option<Ending>) {
        if body.is_end_stream() {
            return (body, None);
        }
        let (tell, ended) = oneshot::channel();
        let body = AnswerBody { body: Some(body), tell: Some(tell), patience: self };
        let ending = async move {
            match ended.await {
                Ok(Whole) => WriteResult::Answered(status.as_u16()),
                // It broke off, or panicked.
                Err(_) => self.landed_or_not().await,
            }
        };
        (body.boxed_unsync(), Some(Box::pin(ending)))
    }
}

/// All of an answer was taken.
struct Whole;

struct AnswerBody {
    /// None once somebody else takes the rest.
    body: Option<Body>,
    /// None once it was told. Dropped, it tells that the answer broke off.
    tell: Option<oneshot::Sender<Whole>>,
    patience: Patience,
}

impl AnswerBody {
    fn end(&mut self) {
        if let Some(tell) = self.tell.take() {
            // Who does not listen any more has ended with the runtime.
            let _ = tell.send(Whole);
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        match &frame {
            None => self.end(),
            // Whoever takes it may not ask for what comes after its end.
            Some(Ok(_)) if self.is_end_stream() => self.end(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.tell = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // One that is dropped because it panicked has nothing more to give.
        if self.tell.is_none() || std::thread::panicking() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (Some(body), Some(tell)) = (self.body.take(), self.tell.take()) else { return };
        let longest = self.patience.answer_timeout;
        runtime.spawn(async move {
            match timeout(longest, taken(body)).await {
                // Who does not listen any more has ended with the runtime.
                Ok(Ok(())) => drop(tell.send(Whole)),
                Ok(Err(_)) => {}
                Err(_) => tracing::warn!("an answer goes on without its client, and is given up"),
            }
        });
    }
}

/// Takes the rest of an answer that nobody else takes, and throws it away.
async fn taken(mut rest: Body) -> Result<(), BoxError> {
    while let Some(frame) = rest.frame().await {
        frame?;
    }
    Ok(())
}
