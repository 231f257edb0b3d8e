//! The body of the upstream's answer, on its way to the client.
//!
//! What always holds: whoever follows the exchange is told how it ended, exactly once. That of a
//! write goes on to its end without its client; that of a read ends with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use leasehold_guard::body::BoxError;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

use super::Shared;
use super::exchange::Begun;
use super::fault::Fault;
use super::fields;
use super::pace::{Pace, Stage};
use super::pool::Lease;
use super::site::Site;

/// How an exchange ended whose answer had begun.
pub(super) enum Ended {
    /// All of the answer has come.
    Whole,
    /// It has not, and the connection is closed when this has ended.
    Cut(Option<JoinHandle<()>>),
}

/// What an answer failed with after its head.
#[derive(Debug, thiserror::Error)]
enum CutShort {
    #[error("the upstream fell silent within its answer")]
    Silent,
    #[error("the upstream broke off its answer")]
    BrokenOff(#[source] hyper::Error),
}

/// The body of an answer.
pub(super) struct AnswerBody {
    /// None once it was handed on.
    body: Option<Incoming>,
    /// What came with the head of the answer: most answers are whole then, and a write that has
    /// such a one has ended, however slowly its client takes it.
    ahead: Option<hyper::Result<Frame<Bytes>>>,
    /// Why the answer is not whole, until that is told.
    cut: Option<hyper::Error>,
    silence: Duration,
    /// Set while somebody waits. Time in which the client takes nothing does not count.
    timer: Option<(Pin<Box<Sleep>>, bool)>,
    running: Option<Running>,
    /// Whether nobody takes it, and it is read for its end alone.
    is_drained: bool,
}

struct Running {
    shared: Arc<Shared>,
    site: Arc<Site>,
    lease: Lease,
    pace: Arc<Pace>,
    /// Who follows a write to its end.
    follower: Option<oneshot::Sender<Ended>>,
}

impl AnswerBody {
    pub(super) fn new(shared: &Arc<Shared>, begun: Begun) -> (http::response::Parts, Self) {
        let Begun { response, lease, pace, way } = begun;
        let (head, body) = response.into_parts();
        let running =
            Running { shared: shared.clone(), site: way.site, lease, pace, follower: None };
        let silence = way.timeout;
        let mut answer = Self {
            body: Some(body),
            ahead: None,
            cut: None,
            silence,
            timer: None,
            running: Some(running),
            is_drained: false,
        };
        answer.finish_at_end();
        answer.look_ahead();
        (head, answer)
    }

    /// Says how it ends, where it has not; from then on it goes on to its end without its client.
    pub(super) fn follow(&mut self) -> Option<oneshot::Receiver<Ended>> {
        let running = self.running.as_mut()?;
        let (follower, ended) = oneshot::channel();
        running.follower = Some(follower);
        Some(ended)
    }

    fn finish_at_end(&mut self) {
        if self.body.as_ref().is_none_or(HttpBody::is_end_stream) {
            self.finish(None);
        }
    }

    /// Takes what is here already. Whoever takes the answer asks again, and is then woken.
    fn look_ahead(&mut self) {
        let Some(body) = self.body.as_mut().filter(|body| !body.is_end_stream()) else { return };
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(Some(frame)) => {
                self.ahead = Some(frame);
                self.finish_at_end();
            }
            Poll::Ready(None) => self.finish(None),
            Poll::Pending => {}
        }
    }

    fn finish(&mut self, fault: Option<Fault>) {
        let Some(Running { shared, site, lease, pace, follower }) = self.running.take() else {
            return;
        };
        let ended = match fault {
            None if pace.stage() == Stage::Done => {
                site.pool.give_back(lease);
                Ended::Whole
            }
            // It answered before it had the whole request: nothing more of that is sent.
            None => {
                drop(lease);
                Ended::Whole
            }
            Some(fault) => {
                shared.options.observer.failed(fault);
                Ended::Cut(lease.close())
            }
        };
        if let Some(follower) = follower {
            // Who does not listen any more has ended itself.
            let _ = follower.send(ended);
        }
    }

    fn is_silent(&mut self, context: &mut Context<'_>) -> bool {
        let silence = self.silence;
        let (timer, runs) = self.timer.get_or_insert_with(|| (Box::pin(sleep(silence)), true));
        if !std::mem::replace(runs, true) {
            timer.as_mut().reset(Instant::now() + silence);
        }
        timer.as_mut().poll(context).is_ready()
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(error) = this.cut.take() {
            return Poll::Ready(Some(Err(Box::new(CutShort::BrokenOff(error)))));
        }
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let polled = match this.ahead.take() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(body).poll_frame(context),
        };
        let Poll::Ready(frame) = polled else {
            if !this.is_silent(context) {
                return Poll::Pending;
            }
            this.finish(Some(Fault::Silent));
            return Poll::Ready(Some(Err(Box::new(CutShort::Silent))));
        };
        if let Some((_, runs)) = &mut this.timer {
            *runs = false;
        }
        match frame {
            None => {
                this.finish(None);
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                // Whoever takes it may not ask for what comes after its end.
                this.finish_at_end();
                Poll::Ready(Some(Ok(match frame.into_trailers() {
                    Ok(mut trailers) => {
                        fields::trailers(&mut trailers);
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                })))
            }
            Some(Err(error)) => {
                this.finish(Some(Fault::BrokenOff));
                // What came before it goes out first: an error ends the client's connection at once.
                this.cut = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none()
            && self.cut.is_none()
            && self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint);
        if let Some(Ok(frame)) = &self.ahead {
            let ahead = frame.data_ref().map_or(0, Bytes::len) as u64;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + ahead);
            }
            hint.set_lower(hint.lower() + ahead);
        }
        hint
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // A runtime that shuts down drops the task that drains, and drops at once what it is given
        // to run: another such task would be dropped like the first, and so on without an end.
        if self.is_drained {
            return;
        }
        // A read ends with its client: dropping the lease closes the connection.
        let Some(running) = self.running.take_if(|running| running.follower.is_some()) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (body, ahead, silence) = (self.body.take(), self.ahead.take(), self.silence);
        runtime.spawn(drained(Self {
            body,
            ahead,
            cut: None,
            silence,
            timer: None,
            running: Some(running),
            is_drained: true,
        }));
    }
}

/// Reads the rest of an answer that nobody takes, and throws it away.
async fn drained(mut rest: AnswerBody) {
    while let Some(Ok(_)) = rest.frame().await {}
}
