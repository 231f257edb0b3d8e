//! The body of a request, on its way in: it may be long, but it must not fall silent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use leasehold_guard::body::BoxError;
use tokio::time::{Instant, Sleep, sleep};

/// What reading a body fails with when its client has fallen silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the client sent nothing more of the request's body for {}", crate::config::units::show(*.0))]
pub struct BodyTimedOut(pub Duration);

/// `body`, which fails with [`BodyTimedOut`] when it is waited for so long. Time in which nobody
/// waits does not count: then the silence is ours.
pub fn timed<B>(body: B, silence: Duration) -> Timed<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    Timed { body, silence, was_asked: false, timer: None }
}

/// A body that may not fall silent: see [`timed`].
pub struct Timed<B> {
    body: B,
    silence: Duration,
    /// Whether it was asked for something that was not there at once.
    was_asked: bool,
    /// Set while somebody waits.
    timer: Option<Timer>,
}

struct Timer {
    sleep: Pin<Box<Sleep>>,
    runs: bool,
}

impl<B> HttpBody for Timed<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(timer) = &mut this.timer {
                timer.runs = false;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // Most bodies have come with their heads, and hyper reads one when it runs next after it has
        // been asked: no timer for that.
        if !std::mem::replace(&mut this.was_asked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let silence = this.silence;
        let timer =
            this.timer.get_or_insert_with(|| Timer { sleep: Box::pin(sleep(silence)), runs: true });
        if !timer.runs {
            timer.sleep.as_mut().reset(Instant::now() + silence);
            timer.runs = true;
        }
        ready!(timer.sleep.as_mut().poll(cx));
        Poll::Ready(Some(Err(Box::new(BodyTimedOut(silence)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use http_body_util::channel::Channel;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_falls_silent_fails_and_a_slow_one_does_not() {
        let (mut sender, channel) = Channel::<Bytes, BoxError>::new(1);
        let mut body = timed(channel, Duration::from_secs(2));
        tokio::spawn(async move {
            for _ in 0..3 {
                sleep(Duration::from_millis(1900)).await;
                sender.send_data(Bytes::from_static(b"a")).await.unwrap();
            }
            std::future::pending::<()>().await;
            drop(sender);
        });
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
        }
        // Whoever reads may take his time.
        sleep(Duration::from_secs(60)).await;
        body.frame().await.unwrap().unwrap();
        let start = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&BodyTimedOut(Duration::from_secs(2))));
        assert_eq!(start.elapsed().as_secs(), 2);
        let text = "the client sent nothing more of the request's body for 2s";
        assert_eq!(error.to_string(), text);
    }

    #[tokio::test]
    async fn a_body_arrives_as_it_is() {
        let whole = leasehold_guard::body::full("abc");
        let body = timed(whole, Duration::from_secs(1));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
    }
}
