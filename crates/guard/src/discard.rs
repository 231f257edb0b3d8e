//! What is left of a request's body when it has been answered: read and thrown away, within
//! bounds, so that the client sees the answer and not a reset connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

/// The most bytes that are read and thrown away.
const MOST_BYTES: usize = 1 << 20;
/// The longest that takes.
const LONGEST: Duration = Duration::from_secs(2);

/// `body`, which is read to its end within bounds when it is dropped early. With
/// `Expect: 100-continue` (`expects`) an unread body is left alone: reading it would ask the
/// client for what nobody wants.
pub fn discarding<B: Discardable>(body: B, expects: bool) -> Discarding<B> {
    Discarding { body: Some(body), asked: !expects, ended: false }
}

/// A body that can be read in a task of its own.
pub trait Discardable: HttpBody<Data = Bytes> + Send + Unpin + 'static {}

impl<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> Discardable for B {}

/// A body that is read to its end: see [`discarding`].
pub struct Discarding<B: Discardable> {
    body: Option<B>,
    /// Whether the client sends its body anyway.
    asked: bool,
    ended: bool,
}

impl<B: Discardable> HttpBody for Discarding<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.asked = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.ended = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl<B: Discardable> Drop for Discarding<B> {
    fn drop(&mut self) {
        if self.ended || !self.asked || self.is_end_stream() {
            return;
        }
        let (Some(body), Ok(runtime)) = (self.body.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            // Out of time or over the bound, dropping what is left closes the connection.
            let _ = tokio::time::timeout(LONGEST, discard(body)).await;
        });
    }
}

async fn discard(mut body: impl Discardable) {
    let mut left = MOST_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
